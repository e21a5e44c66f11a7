//! Versions of the software that matters on a hypervisor host, from the package database (dpkg or rpm), as labels. The
//! database is read when it has changed, and never written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::collect::asked::ask;
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Packages.
pub(super) struct Packages {
    dpkg: PathBuf,
    /// rpm's database, by where it stood over the years.
    rpm: [PathBuf; 4],
    /// The database as it was read, and what it said.
    known: Option<(PathBuf, SystemTime, Vec<Family>)>,
}

const INFO: Column = gauge("petrel_package_info", "Version of an installed package; always 1.");
const EVERY: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(30);
/// A status file of dpkg with 10,000 packages has some 12 MB.
const DPKG_BYTES_MAX: u64 = 64 << 20;

/// Packages that are told, by their names in Debian and in Fedora's family.
const WANTED: [&str; 50] = [
    "ceph-base",
    "ceph-common",
    "ceph-mon",
    "ceph-osd",
    "chrony",
    "containerd",
    "corosync",
    "device-mapper-multipath",
    "dlm-controld",
    "docker-ce",
    "drbd-dkms",
    "drbd-kmod",
    "drbd-utils",
    "fence-agents",
    "fence-agents-all",
    "gfs2-utils",
    "glusterfs-server",
    "haproxy",
    "ipmitool",
    "keepalived",
    "kernel",
    "kernel-core",
    "libvirt",
    "libvirt-daemon",
    "libvirt-daemon-kvm",
    "libvirt-daemon-system",
    "linux-image-amd64",
    "linux-image-arm64",
    "linux-image-generic",
    "lvm2",
    "lvm2-lockd",
    "microcode_ctl",
    "multipath-tools",
    "intel-microcode",
    "nfs-common",
    "nova-compute",
    "open-iscsi",
    "openvswitch",
    "openvswitch-switch",
    "ovn-host",
    "pacemaker",
    "pcs",
    "proxmox-ve",
    "pve-qemu-kvm",
    "qemu-kvm",
    "qemu-kvm-core",
    "qemu-system-x86",
    "sanlock",
    "sbd",
    "systemd",
];

impl Packages {
    pub(super) fn new(roots: &Roots) -> Packages {
        let rpm = [
            "var/lib/rpm/rpmdb.sqlite",
            "usr/lib/sysimage/rpm/rpmdb.sqlite",
            "var/lib/rpm/Packages.db",
            "var/lib/rpm/Packages",
        ];
        Packages {
            dpkg: roots.rootfs.join("var/lib/dpkg/status"),
            rpm: rpm.map(|database| roots.rootfs.join(database)),
            known: None,
        }
    }
}

impl Collector for Packages {
    fn name(&self) -> &'static str {
        "packages"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN * 2 }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let changed = |path: &PathBuf| Some((path.clone(), path.metadata().ok()?.modified().ok()?));
        // A host of Fedora's family may have dpkg's folder as a tool; its file is empty or not there.
        let dpkg = changed(&self.dpkg).filter(|(path, _)| path.metadata().is_ok_and(|file| file.len() > 0));
        let Some((path, time)) = dpkg.or_else(|| self.rpm.iter().find_map(changed)) else {
            return Err(CollectError::Absent { path: self.dpkg.clone() });
        };
        let is_known = |(known, at, _): &(PathBuf, SystemTime, Vec<Family>)| (known, at) == (&path, &time);
        if !self.known.as_ref().is_some_and(is_known) {
            let packages = if path == self.dpkg { read_dpkg(&path)? } else { ask_rpm(&path)? };
            self.known = Some((path, time, vec![told(&packages)]));
        }
        families.extend(self.known.iter().flat_map(|(_, _, known)| known.iter().cloned()));
        Ok(())
    }
}

type Package = (String, String);

fn told(packages: &BTreeSet<Package>) -> Family {
    let mut info = INFO.family();
    for (name, version) in packages {
        info.push(&[("name", name), ("version", version)], 1.0);
    }
    info
}

fn read_dpkg(path: &Path) -> Result<BTreeSet<Package>, CollectError> {
    use std::io::Read as _;
    let read = |source| CollectError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(read)?.take(DPKG_BYTES_MAX).read_to_end(&mut bytes).map_err(read)?;
    Ok(dpkg(&String::from_utf8_lossy(&bytes)))
}

/// Paragraphs of `Key: value`, with an empty line after each.
fn dpkg(status: &str) -> BTreeSet<Package> {
    let mut packages = BTreeSet::new();
    let (mut name, mut version, mut is_installed) = ("", "", false);
    for line in status.lines().chain([""]) {
        if line.is_empty() {
            if is_installed && !version.is_empty() && WANTED.contains(&name) {
                packages.insert((name.to_owned(), version.to_owned()));
            }
            (name, version, is_installed) = ("", "", false);
        } else if let Some(value) = line.strip_prefix("Package: ") {
            name = value;
        } else if let Some(value) = line.strip_prefix("Version: ") {
            version = value;
        } else if let Some(value) = line.strip_prefix("Status: ") {
            is_installed = value.ends_with(" installed");
        }
    }
    packages
}

fn ask_rpm(database: &Path) -> Result<BTreeSet<Package>, CollectError> {
    let folder = database.parent().unwrap_or(database).to_string_lossy().into_owned();
    let mut arguments = vec!["--dbpath", folder.as_str(), "-q", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n"];
    arguments.extend(WANTED);
    // It fails when one is not installed, and says so between the others.
    Ok(rpm(&ask("rpm", &arguments, WITHIN)?.out))
}

fn rpm(out: &str) -> BTreeSet<Package> {
    let pairs = out.lines().filter_map(|line| line.split_once('\t'));
    let wanted = pairs.filter(|(name, version)| WANTED.contains(name) && !version.is_empty());
    wanted.take(256).map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{CollectConfig, text, trial};

    const STATUS: &str = "\
Package: pacemaker
Status: install ok installed
Architecture: amd64
Version: 2.1.5-1+deb12u1
Description: cluster resource manager
 Package: not a key

Package: haproxy
Status: deinstall ok config-files
Version: 2.6.12-1

Package: vim
Status: install ok installed
Version: 9

Package: qemu-system-x86
Status: hold ok installed
Version: 1:7.2+dfsg-7";

    #[test]
    fn installed_and_wanted() {
        expect![[r#"
            petrel_package_info{name="pacemaker",version="2.1.5-1+deb12u1"} 1
            petrel_package_info{name="qemu-system-x86",version="1:7.2+dfsg-7"} 1
        "#]]
        .assert_eq(&trial::series(&text::render(&[told(&dpkg(STATUS))])));
        let out = "kernel-core\t5.14.0-427.el9\nkernel-core\t5.14.0-503.el9\npackage sbd is not installed\n";
        expect![[r#"
            petrel_package_info{name="kernel-core",version="5.14.0-427.el9"} 1
            petrel_package_info{name="kernel-core",version="5.14.0-503.el9"} 1
        "#]]
        .assert_eq(&trial::series(&text::render(&[told(&rpm(out))])));
    }

    #[test]
    fn a_changed_database_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let status = root.path().join("var/lib/dpkg/status");
        std::fs::create_dir_all(status.parent().unwrap()).unwrap();
        let roots = CollectConfig::at(&root.path().join("proc"), &root.path().join("sys")).roots;
        let mut packages = Packages::new(&roots);
        let mut shown = || {
            let mut families = Vec::new();
            packages.collect(&mut families).map(|()| trial::series(&text::render(&families)).lines().count())
        };
        assert!(matches!(shown(), Err(CollectError::Absent { .. })));
        std::fs::write(&status, STATUS).unwrap();
        assert_eq!(shown().unwrap(), 2);
        let later = std::fs::File::options().append(true).open(&status).unwrap();
        std::io::Write::write_all(&mut &later, b"\n\nPackage: sbd\nStatus: install ok installed\nVersion: 1\n")
            .unwrap();
        later.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        assert_eq!(shown().unwrap(), 3);
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(STATUS)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = (dpkg(&text), rpm(&text));
        }
    }
}
