//! A file that grows steadily, so that a file system runs out of space at a known pace.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Writes on a thread of its own until it is stopped, dropped, or the file system is full.
pub struct Filler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    /// Writes `first` bytes into `folder` at once, then `step` bytes every `period`.
    pub fn start(folder: &Path, first: usize, (step, period): (usize, Duration)) -> Filler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut file = File::create(folder.join("growing")).expect("the mount is writable");
        file.write_all(&vec![7; first]).expect("the mount has room for the start");
        let thread = std::thread::spawn(move || {
            let block = vec![7; step];
            while !stopped.load(Ordering::Relaxed) && file.write_all(&block).is_ok() {
                std::thread::sleep(period);
            }
        });
        Filler { stop, thread: Some(thread) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has written what it could; the test says what is missing.
        drop(self.thread.take().map(JoinHandle::join));
    }
}
