//! A small filesystem in a mount namespace of its own, so that a server under test runs out of room and nothing is left mounted
//! however the test ends. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, run, wait_for};

/// How long a mount may take on a busy machine.
const MOUNT_DEADLINE: Duration = Duration::from_secs(20);

/// The filesystem.
pub struct SmallDisk {
    /// Keeps the namespace.
    holder: Process,
    /// The mount, as seen from outside.
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many mebibytes at the folder `data` of `dir`, where a server that was started there keeps its files.
    pub fn mount(dir: &Path, mib: u64) -> SmallDisk {
        let inside = dir.join("data");
        fs::create_dir(&inside).expect("the test's folder is writable");
        let script = format!(
            "mount -t tmpfs -o size={mib}m petrel-test {0} && touch {0}/mounted && exec sleep 3600",
            inside.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let holder = Process::start(&mut command, &dir.join("disk.log"));
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), inside.display()));
        wait_for("the small filesystem to be mounted", MOUNT_DEADLINE, || path.join("mounted").exists());
        SmallDisk { holder, path }
    }

    /// The words before a program's name with which it sees the filesystem.
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.holder.id())]
    }

    /// Takes all room but `left` bytes.
    pub fn fill(&self, left: u64) {
        let _ = fs::remove_file(self.path.join("ballast"));
        let free = run(Command::new("stat").args(["--file-system", "--format=%a %S"]).arg(&self.path));
        let (blocks, block_bytes) = free.trim().split_once(' ').expect("two numbers");
        let number = |word: &str| word.parse::<u64>().expect("stat prints numbers");
        let ballast = (number(blocks) * number(block_bytes)).saturating_sub(left);
        // Fails where others write at the same time; then the disk is as full as it gets.
        let _ = fs::write(self.path.join("ballast"), vec![7; usize::try_from(ballast).expect("a small disk")]);
    }

    /// Gives the room back.
    pub fn free(&self) {
        fs::remove_file(self.path.join("ballast")).expect("the ballast is there");
    }
}
