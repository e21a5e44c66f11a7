//! The mount table: which file systems the host has, without those that hold no data of their own.

use crate::collect::CollectError;
use crate::collect::kernel_file::KernelFile;

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mount {
    /// What is mounted.
    pub(super) device: String,
    /// Where, as the host sees it.
    pub(super) point: String,
    /// Kind of file system.
    pub(super) fstype: String,
    /// Whether it was mounted read-only, as the mount's options say.
    pub(super) read_only: bool,
}

/// Most mounts that are looked at; a host with more has a container runtime gone wild, and the rest is counted.
const MOUNTS_MAX: usize = 1000;

/// node_exporter's default list of types to leave out.
const FSTYPES_LEFT_OUT: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// Reads the mounts to look at, and how many more there are than are looked at.
pub(super) fn read(file: &mut KernelFile) -> Result<(Vec<Mount>, usize), CollectError> {
    let text = file.read()?;
    let mut mounts = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(fstype), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(text.malformed(line));
        };
        let point = unescape(point);
        if FSTYPES_LEFT_OUT.contains(&fstype) || is_left_out(&point) {
            continue;
        }
        let read_only = options.split(',').any(|option| option == "ro");
        mounts.push(Mount { device: unescape(device), point, fstype: fstype.to_owned(), read_only });
    }
    // The same thing mounted twice over itself would give one label set twice.
    mounts.sort();
    mounts.dedup_by(|a, b| (&a.device, &a.point, &a.fstype) == (&b.device, &b.point, &b.fstype));
    let dropped = mounts.len().saturating_sub(MOUNTS_MAX);
    mounts.truncate(MOUNTS_MAX);
    Ok((mounts, dropped))
}

/// node_exporter's default: `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`.
fn is_left_out(point: &str) -> bool {
    let below = |folder: &str| point.strip_prefix(folder);
    let itself_or_below = ["/dev", "/proc", "/sys"].into_iter().filter_map(below);
    let only_below =
        ["/run/credentials", "/var/lib/docker", "/var/lib/containers/storage"].into_iter().filter_map(below);
    itself_or_below.into_iter().any(|rest| rest.is_empty() || rest.starts_with('/'))
        || only_below.into_iter().any(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// Undoes the kernel's `\040` for space, `\011` for tab, `\012` for newline, `\134` for backslash, `\043` for `#`.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(position) = rest.find('\\') {
        let (before, after) = rest.split_at(position);
        text.push_str(before);
        let code = after.get(1..4).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        if let Some(code) = code {
            text.push(char::from(code));
            rest = &after[4..];
        } else {
            text.push('\\');
            rest = &after[1..];
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn keeps_what_holds_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mounts");
        let table = "\
/dev/vda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
tmpfs /run tmpfs rw,ro_not 0 0
/dev/vdb /srv/a\\040b\\134c xfs ro,nosuid 0 0
/dev/vdb /srv/a\\040b\\134c xfs rw 0 0
overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0
tmpfs /var/lib/docker tmpfs rw 0 0
tmpfs /var/lib/docker/x tmpfs rw 0 0
nas:/export /mnt/nas nfs4 rw 0 0
/dev/vdc /devices ext4 rw 0 0
";
        std::fs::write(&path, table).unwrap();
        let (mounts, dropped) = read(&mut KernelFile::new(path)).unwrap();
        let lines: Vec<String> =
            mounts.iter().map(|m| format!("{} on {} ({}) ro={}", m.device, m.point, m.fstype, m.read_only)).collect();
        expect![[r"
            /dev/vda1 on / (ext4) ro=false
            /dev/vdb on /srv/a b\c (xfs) ro=false
            /dev/vdc on /devices (ext4) ro=false
            nas:/export on /mnt/nas (nfs4) ro=false
            tmpfs on /run (tmpfs) ro=false
            tmpfs on /var/lib/docker (tmpfs) ro=false"]]
        .assert_eq(&lines.join("\n"));
        assert_eq!(dropped, 0);
    }
}
