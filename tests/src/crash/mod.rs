//! Crashes at every step: a process works on a store while `recorder.c` writes down each change that it makes to a file; then
//! the files as a power failure could have left them are put together for step after step, and a store is opened on them.

pub mod disk;
pub mod trace;
pub mod workload;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;
use crate::tree::repository;
use disk::Files;
use trace::Trace;

/// The folder of the store, below the recorded one.
pub const DATA: &str = "data";
/// The file in which the recorded process says what it sent and what was acknowledged, below the recorded folder.
pub const WORD: &str = "word";

/// A folder for files that need no disk, where the machine has one: syncing costs nothing there.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for the test")
}

/// Compiles the recorder into `dir`.
pub fn recorder(dir: &Path) -> PathBuf {
    let library = dir.join("recorder.so");
    let source = repository().join("tests/src/crash/recorder.c");
    run(Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"]));
    library
}

/// Runs `command` with everything recorded that it does below `root`.
pub fn record(command: &mut Command, library: &Path, root: &Path) -> Trace {
    let file = root.with_extension("trace");
    run(command.env("LD_PRELOAD", library).env("PETREL_IO_ROOT", root).env("PETREL_IO_TRACE", &file));
    Trace::read(&file, root)
}

/// Writes files into a folder.
pub fn put(files: &Files, dir: &Path) {
    for (path, bytes) in files {
        let path = dir.join(path);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, bytes))
            .expect("the test's folder is writable");
    }
}
