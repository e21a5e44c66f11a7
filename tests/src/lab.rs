//! The lab of `../shared`: real hosts in namespaces with real libvirt. One per machine at a time, so a test that finds it in
//! use leaves itself out, and one that started it takes it down again, whatever happens in between.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::left_out::{note, shared};

/// The lab, up. Dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    /// Held while the lab is in use.
    _lock: File,
}

impl Lab {
    /// Starts `hosts` hosts with libvirt for the test `name`, or notes why it cannot.
    pub fn libvirt(hosts: u32, name: &str) -> Option<Lab> {
        let folder = shared("lab", name)?;
        if !is_root() {
            note(name, "the lab needs root");
            return None;
        }
        let lock =
            File::create(std::env::temp_dir().join("petrel-tests-lab.lock")).expect("a file in the temporary folder");
        lock.lock().expect("the lab's lock");
        if PathBuf::from("/run/vlab/h1").exists() {
            note(name, "the lab is in use (lab/libvirt.sh down ends it)");
            return None;
        }
        let lab = Lab { folder, _lock: lock };
        lab.run("libvirt.sh", &["up", &hosts.to_string()]);
        Some(lab)
    }

    /// Runs one of the lab's scripts, which must succeed, and returns what it printed.
    pub fn run(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.output(script, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script} {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Runs one of the lab's scripts, whatever comes of it.
    pub fn output(&self, script: &str, arguments: &[&str]) -> Output {
        Command::new(self.folder.join(script)).args(arguments).output().expect("the lab's scripts can be run")
    }

    /// A script, as it is started.
    pub fn script(&self, script: &str) -> PathBuf {
        self.folder.join(script)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.output("libvirt.sh", &["down"]);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}
