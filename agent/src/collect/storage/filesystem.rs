//! Space and files of every mounted file system that holds data. A mount that does not answer is reported by
//! `node_filesystem_device_error` and never holds up the others.

use std::path::PathBuf;
use std::time::Duration;

use super::mounts::{self, Mount};
use super::statfs::{Answer, Space, StatfsThreads, kernel};
use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// File systems.
pub(super) struct Filesystem {
    /// The host's mounts as init sees them, and our own where init may not be read.
    tables: [KernelFile; 2],
    rootfs: PathBuf,
    threads: StatfsThreads,
    /// Mounts that did not answer in the last round; one log line each.
    silent: Vec<String>,
}

/// Patience with the first mount that does not answer in a round. A healthy local one takes microseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Patience with the rest of that round: 32 stuck mounts cost 0.5 s + 31 * 0.05 s, within the contract's two seconds or so.
const PATIENCE_AFTER: Duration = Duration::from_millis(50);

/// The families, in one place.
struct Columns {
    size: Family,
    free: Family,
    avail: Family,
    files: Family,
    files_free: Family,
    readonly: Family,
    device_error: Family,
}

impl Filesystem {
    pub(super) fn new(roots: &Roots) -> Filesystem {
        Filesystem {
            tables: ["1/mounts", "self/mounts"].map(|table| KernelFile::new(roots.procfs.join(table))),
            rootfs: roots.rootfs.clone(),
            threads: StatfsThreads::new(kernel()),
            silent: Vec::new(),
        }
    }
}

impl Collector for Filesystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let [of_init, own] = &mut self.tables;
        let (mounts, dropped) = mounts::read(of_init).or_else(|_| mounts::read(own))?;
        self.threads.reap();
        let mut columns = Columns::new();
        let mut silent = Vec::new();
        for mount in &mounts {
            let path = self.rootfs.join(mount.point.trim_start_matches('/'));
            let patience = if silent.is_empty() { PATIENCE } else { PATIENCE_AFTER };
            match self.threads.ask(&mount.point, path, patience) {
                Answer::Space(space) => columns.push(mount, Some(space)),
                Answer::Failed(error) => {
                    tracing::debug!(mount = %mount.point, %error, "statfs failed");
                    columns.push(mount, None);
                }
                Answer::Stuck => {
                    silent.push(mount.point.clone());
                    columns.push(mount, None);
                }
            }
        }
        for point in silent.iter().filter(|point| !self.silent.contains(point)) {
            tracing::warn!(mount = %point, "the file system does not answer; the rest is collected without it");
        }
        self.silent = silent;
        columns.append_to(families);
        families.push(
            Family::new(
                Kind::Gauge,
                "petrel_filesystem_stuck_threads",
                "Threads that wait for a file system that hangs.",
            )
            .with(self.threads.stuck() as f64),
        );
        families.push(
            Family::new(Kind::Gauge, "petrel_filesystem_mounts_dropped", "Mounts beyond the limit, not looked at.")
                .with(dropped as f64),
        );
        Ok(())
    }
}

impl Columns {
    fn new() -> Columns {
        let gauge = |name: &str, help: &'static str| Family::new(Kind::Gauge, format!("node_filesystem_{name}"), help);
        Columns {
            size: gauge("size_bytes", "Filesystem size in bytes."),
            free: gauge("free_bytes", "Filesystem free space in bytes."),
            avail: gauge("avail_bytes", "Filesystem space available to non-root users in bytes."),
            files: gauge("files", "Filesystem total file nodes."),
            files_free: gauge("files_free", "Filesystem total free file nodes."),
            readonly: gauge("readonly", "Filesystem read-only status."),
            device_error: gauge(
                "device_error",
                "Whether an error occurred while getting statistics for the given device.",
            ),
        }
    }

    /// No `device_error` label as the newest node_exporter has it: the series would change its identity at the very
    /// moment somebody looks at it.
    fn push(&mut self, mount: &Mount, space: Option<Space>) {
        let labels = [
            ("device", mount.device.as_str()),
            ("fstype", mount.fstype.as_str()),
            ("mountpoint", mount.point.as_str()),
        ];
        self.device_error.push(&labels, f64::from(u8::from(space.is_none())));
        self.readonly.push(&labels, f64::from(u8::from(mount.read_only)));
        let Some(space) = space else { return };
        self.size.push(&labels, space.size_bytes);
        self.free.push(&labels, space.free_bytes);
        self.avail.push(&labels, space.avail_bytes);
        self.files.push(&labels, space.files);
        self.files_free.push(&labels, space.files_free);
    }

    fn append_to(self, families: &mut Vec<Family>) {
        families.extend([
            self.size,
            self.free,
            self.avail,
            self.files,
            self.files_free,
            self.readonly,
            self.device_error,
        ]);
    }
}
