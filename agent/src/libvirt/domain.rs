//! What a guest's description says that matters for moving it: identity, size, disks, passed-through devices, whose
//! metadata it carries. Pure: text in, values out; whether a path is shared is judged over a given mount table.

use std::path::{Path, PathBuf};

use crate::xml::{Element, ReadXmlError, read};

/// One guest as `virsh dumpxml` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// UUID, lower case.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Its disks, CD drives and floppies.
    pub disks: Vec<Disk>,
    /// What ties it to this host beside disks: passed-through devices and folders.
    pub tied: Vec<String>,
    /// XML namespaces of its metadata.
    pub metadata: Vec<String>,
    /// Manufacturer and product that it shows in its firmware tables.
    pub firmware: String,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the guest, for example `vda`.
    pub target: String,
    /// `file`, `block`, `network`, …
    pub kind: String,
    /// Path, where it has one; an empty drive has none.
    pub source: Option<PathBuf>,
    /// Whether a copy of it is being made.
    pub mirrored: bool,
}

/// Reads the descriptions of several guests in a row.
///
/// # Errors
/// When the text is not XML, or one of them lacks its name or UUID.
pub fn domains(text: &str) -> Result<Vec<Domain>, ReadXmlError> {
    let roots = read(text)?;
    roots.iter().filter(|root| root.name == "domain").map(domain).collect()
}

/// Reads the description of the one guest that was asked for.
///
/// # Errors
/// When the text is not XML, or does not describe just that guest: what it says would be taken for another's.
pub fn described(text: &str, uuid: &str) -> Result<Domain, ReadXmlError> {
    match <[Domain; 1]>::try_from(domains(text)?) {
        Ok([domain]) if domain.uuid.eq_ignore_ascii_case(uuid) => Ok(domain),
        Ok(_) => Err(ReadXmlError { at: 0, problem: "another guest than the one asked for" }),
        Err(_) => Err(ReadXmlError { at: 0, problem: "not one guest alone" }),
    }
}

fn domain(root: &Element) -> Result<Domain, ReadXmlError> {
    let text = |name: &str, problem: &'static str| {
        let found = root.child(name).map(|child| child.text.clone()).filter(|text| !text.is_empty());
        found.ok_or(ReadXmlError { at: 0, problem })
    };
    let devices = root.child("devices").map(|devices| devices.children.as_slice()).unwrap_or_default();
    let metadata = root.child("metadata").map(|metadata| metadata.children.as_slice()).unwrap_or_default();
    let firmware = root.at(&["sysinfo", "system"]).map(|system| {
        let entries = system
            .children
            .iter()
            .filter(|entry| matches!(entry.attribute("name"), Some("manufacturer" | "product" | "family")));
        entries.map(|entry| entry.text.as_str()).collect::<Vec<_>>().join(" ")
    });
    Ok(Domain {
        uuid: text("uuid", "a guest without UUID")?.to_lowercase(),
        name: text("name", "a guest without name")?,
        disks: devices.iter().filter(|device| device.name == "disk").map(disk).collect(),
        tied: devices.iter().filter_map(tie).collect(),
        metadata: metadata.iter().map(|element| namespace(element, root)).collect(),
        firmware: firmware.unwrap_or_default(),
    })
}

fn disk(device: &Element) -> Disk {
    let source = device.child("source").and_then(|source| {
        source.attribute("file").or_else(|| source.attribute("dev")).or_else(|| source.attribute("dir"))
    });
    let of = |element: Option<&str>| element.unwrap_or("?").to_owned();
    Disk {
        target: of(device.child("target").and_then(|target| target.attribute("dev"))),
        kind: of(device.attribute("type")),
        source: source.map(PathBuf::from),
        mirrored: device.child("mirror").is_some(),
    }
}

/// What a device ties the guest to, if anything.
fn tie(device: &Element) -> Option<String> {
    let kind = device.attribute("type").unwrap_or_default();
    match device.name.as_str() {
        "hostdev" => Some(format!("passthrough device ({})", device.attribute("type").unwrap_or("host"))),
        "interface" if kind == "hostdev" => Some("passthrough network device".to_owned()),
        "interface"
            if kind == "direct"
                && device.child("source").and_then(|source| source.attribute("mode")) == Some("passthrough") =>
        {
            Some("network device in passthrough mode".to_owned())
        }
        "filesystem" => Some("folder of the host".to_owned()),
        "shmem" => Some("memory shared with other guests".to_owned()),
        _ => None,
    }
}

/// The namespace of a metadata element; its own name where the namespace is not declared.
fn namespace(element: &Element, root: &Element) -> String {
    let declared = match element.name.split_once(':') {
        Some((prefix, _)) => format!("xmlns:{prefix}"),
        None => "xmlns".to_owned(),
    };
    let found = element.attribute(&declared).or_else(|| root.attribute(&declared));
    found.unwrap_or(&element.name).to_owned()
}

/// File systems that other hosts see as well.
const NETWORK_FILE_SYSTEMS: [&str; 14] = [
    "nfs",
    "nfs4",
    "ceph",
    "fuse.ceph",
    "fuse.glusterfs",
    "glusterfs",
    "gfs2",
    "ocfs2",
    "gpfs",
    "lustre",
    "cifs",
    "smb3",
    "beegfs",
    "afs",
];

/// Where shared storage is mounted.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    /// Mount points with their file systems, as in `/proc/self/mountinfo`.
    pub mounts: Vec<(PathBuf, String)>,
    /// Folders that the operator says are shared.
    pub shared: Vec<PathBuf>,
}

impl Storage {
    /// Reads `/proc/self/mountinfo`. Only its text: looking at a path may hang on dead storage.
    pub fn of(mountinfo: &str, shared: Vec<PathBuf>) -> Storage {
        let mount = |line: &str| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?.replace("\\040", " ");
            Some((PathBuf::from(point), right.split(' ').next()?.to_owned()))
        };
        Storage { mounts: mountinfo.lines().filter_map(mount).collect(), shared }
    }

    /// Whether a path is on storage that the migration's target sees as well, as far as its name tells.
    pub fn is_shared(&self, path: &Path) -> bool {
        let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
        let by_word = self.shared.iter().any(|folder| path.starts_with(folder));
        // Of mounts on the same point the last one counts.
        let mount = self
            .mounts
            .iter()
            .filter(|(point, _)| path.starts_with(point))
            .max_by_key(|(point, _)| point.components().count());
        plain && (by_word || mount.is_some_and(|(_, kind)| NETWORK_FILE_SYSTEMS.contains(&kind.as_str())))
    }
}

/// Why the guest cannot be moved live, as far as its description says.
pub fn obstacles(domain: &Domain, storage: &Storage) -> Vec<String> {
    let mut obstacles = domain.tied.clone();
    for disk in &domain.disks {
        let target = &disk.target;
        match (&disk.source, disk.kind.as_str()) {
            (_, "network") | (None, "file" | "block") => {}
            (Some(path), "file") if storage.is_shared(path) => {}
            (Some(path), "block") if storage.is_shared(path) => {}
            (Some(path), "file") => obstacles.push(format!("local disk {target} ({})", path.display())),
            (Some(path), "block") => obstacles.push(format!(
                "disk {target} is {}, which is not known to be shared (shared_paths says so)",
                path.display()
            )),
            (_, kind) => obstacles.push(format!("disk {target} is of type {kind}, not known to be shared")),
        }
        if disk.mirrored {
            obstacles.push(format!("a copy of disk {target} is being made"));
        }
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const MOUNTS: &str = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
        30 22 0:40 / /srv/vm\\040disks rw,relatime shared:1 - nfs4 nas:/vm rw\n";

    #[test]
    fn only_the_guest_asked_for_is_taken() {
        let one = |uuid: &str| format!("<domain><name>x</name><uuid>{uuid}</uuid></domain>");
        let (own, other) = ("dfd9ab2e-f43a-474d-ae05-34f5adb249ea", "0b1c2d3e-0000-4000-8000-00000000000a");
        assert_eq!(described(&one(own), own).unwrap().uuid, own);
        assert!(described(&one(other), own).is_err());
        assert!(described(&(one(own) + &one(other)), own).is_err());
        assert!(described("", own).is_err());
    }

    #[test]
    fn a_guest_of_the_lab_is_read() {
        let domains = domains(include_str!("../../testdata/virsh-dumpxml.xml")).unwrap();
        expect![[r#"
            [Domain { uuid: "dfd9ab2e-f43a-474d-ae05-34f5adb249ea", name: "vm1", disks: [], tied: [], metadata: [], firmware: "" }, Domain { uuid: "0b1c2d3e-0000-4000-8000-00000000000a", name: "db", disks: [Disk { target: "vda", kind: "file", source: Some("/srv/vm disks/db.qcow2"), mirrored: false }, Disk { target: "vdb", kind: "file", source: Some("/var/lib/libvirt/images/db.raw"), mirrored: true }, Disk { target: "vdc", kind: "block", source: Some("/dev/vg/db"), mirrored: false }, Disk { target: "vdd", kind: "network", source: None, mirrored: false }, Disk { target: "sda", kind: "file", source: None, mirrored: false }], tied: ["passthrough device (pci)", "passthrough network device"], metadata: ["http://openstack.org/xmlns/libvirt/nova/1.1", "http://libosinfo.org/xmlns/libvirt/domain/1.0"], firmware: "OpenStack Foundation OpenStack Nova" }]"#]]
        .assert_eq(&format!("{domains:?}"));
    }

    #[test]
    fn obstacles_are_named() {
        let domains = domains(include_str!("../../testdata/virsh-dumpxml.xml")).unwrap();
        let storage = Storage::of(MOUNTS, Vec::new());
        assert!(obstacles(&domains[0], &storage).is_empty());
        expect![[r"
            passthrough device (pci)
            passthrough network device
            local disk vdb (/var/lib/libvirt/images/db.raw)
            a copy of disk vdb is being made
            disk vdc is /dev/vg/db, which is not known to be shared (shared_paths says so)"]]
        .assert_eq(&obstacles(&domains[1], &storage).join("\n"));
    }

    #[test]
    fn shared_is_what_is_known_to_be() {
        let storage = Storage::of(MOUNTS, vec![PathBuf::from("/dev/mapper")]);
        assert!(storage.is_shared(Path::new("/srv/vm disks/a")));
        assert!(storage.is_shared(Path::new("/dev/mapper/lun0")));
        assert!(!storage.is_shared(Path::new("/srv/vm disks/../local")));
        assert!(!storage.is_shared(Path::new("/srv/other")));
        assert!(!storage.is_shared(Path::new("/dev/mapperx")));
    }
}
