//! The procedures and operations of NFS in the order in which the kernel counts them, by the names node_exporter gives
//! them. An empty name is a place that is counted and not told.

/// Version 2, client and server.
#[rustfmt::skip]
pub(super) const V2: [&str; 18] = [
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create", "Remove", "Rename",
    "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// Version 3, client and server.
#[rustfmt::skip]
pub(super) const V3: [&str; 22] = [
    "Null", "GetAttr", "SetAttr", "Lookup", "Access", "ReadLink", "Read", "Write", "Create", "MkDir", "SymLink", "MkNod",
    "Remove", "RmDir", "Rename", "Link", "ReadDir", "ReadDirPlus", "FsStat", "FsInfo", "PathConf", "Commit",
];

/// Version 4 as the client counts it.
#[rustfmt::skip]
pub(super) const CLIENT_V4: [&str; 59] = [
    "Null", "Read", "Write", "Commit", "Open", "OpenConfirm", "OpenNoattr", "OpenDowngrade", "Close", "Setattr", "FsInfo",
    "Renew", "SetClientID", "SetClientIDConfirm", "Lock", "Lockt", "Locku", "Access", "Getattr", "Lookup", "LookupRoot",
    "Remove", "Rename", "Link", "Symlink", "Create", "Pathconf", "StatFs", "ReadLink", "ReadDir", "ServerCaps",
    "DelegReturn", "GetACL", "SetACL", "FsLocations", "ReleaseLockowner", "Secinfo", "FsidPresent", "ExchangeID",
    "CreateSession", "DestroySession", "Sequence", "GetLeaseTime", "ReclaimComplete", "GetDeviceInfo", "LayoutGet",
    "LayoutCommit", "LayoutReturn", "SecinfoNoName", "TestStateID", "FreeStateID", "GetDeviceList", "BindConnToSession",
    "DestroyClientID", "Seek", "Allocate", "DeAllocate", "LayoutStats", "Clone",
];

/// Version 4's operations as the server counts them. The first three are not used; putting the public and the root file
/// handle is not told.
#[rustfmt::skip]
pub(super) const SERVER_V4: [&str; 40] = [
    "", "", "", "Access", "Close", "Commit", "Create", "DelegPurge", "DelegReturn", "GetAttr", "GetFH", "Link", "Lock",
    "Lockt", "Locku", "Lookup", "LookupRoot", "Nverify", "Open", "OpenAttr", "OpenConfirm", "OpenDgrd", "PutFH", "", "",
    "Read", "ReadDir", "ReadLink", "Remove", "Rename", "Renew", "RestoreFH", "SaveFH", "SecInfo", "SetAttr", "SetClientID",
    "SetClientIDConfirm", "Verify", "Write", "RelLockOwner",
];
