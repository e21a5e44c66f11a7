//! `statfs` with a deadline. A hung NFS server or a dead disk blocks the call for ever, in a state no signal ends; so
//! threads of our own make it, and a thread that is stuck is left behind, never waited for, never joined by a second one
//! for the same mount, and counted. It must never block the collection for longer than the patience given.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Space and files of a file system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Space {
    pub(super) size_bytes: f64,
    pub(super) free_bytes: f64,
    pub(super) avail_bytes: f64,
    pub(super) files: f64,
    pub(super) files_free: f64,
}

/// What came of one question.
#[derive(Debug)]
pub(super) enum Answer {
    Space(Space),
    /// The kernel refused.
    Failed(io::Error),
    /// No answer in time, now or earlier; or too many threads are stuck already to risk another.
    Stuck,
}

/// Asks the kernel; a fake that hangs in tests.
pub(super) type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// The threads: one that works, and those left behind.
pub(super) struct StatfsThreads {
    ask: Ask,
    idle: Option<Worker>,
    stuck: Vec<(String, Worker)>,
}

struct Worker {
    questions: SyncSender<PathBuf>,
    answers: Receiver<io::Result<Space>>,
}

/// Most threads that may be stuck at once. Each costs some KiB of memory; when a storage network dies a host has about as
/// many mounts on it.
const STUCK_MAX: usize = 32;
/// Stack of a thread that makes one system call.
const STACK_BYTES: usize = 64 << 10;

impl StatfsThreads {
    pub(super) fn new(ask: Ask) -> StatfsThreads {
        StatfsThreads { ask, idle: None, stuck: Vec::new() }
    }

    /// How many threads are stuck.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Looks whether threads came back since the last time; call it before a round of questions.
    pub(super) fn reap(&mut self) {
        let (back, stuck): (Vec<_>, Vec<_>) =
            self.stuck.drain(..).partition(|(_, worker)| worker.answers.try_recv().is_ok());
        self.stuck = stuck;
        // Their late answers are worthless. One may go on working, the others end as their channels close.
        if self.idle.is_none() {
            self.idle = back.into_iter().next().map(|(_, worker)| worker);
        }
    }

    /// Asks about the file system at `path`, known by the name `point`.
    pub(super) fn ask(&mut self, point: &str, path: PathBuf, patience: Duration) -> Answer {
        if self.stuck.len() >= STUCK_MAX || self.stuck.iter().any(|(stuck, _)| stuck == point) {
            return Answer::Stuck;
        }
        let worker = match self.idle.take().map_or_else(|| Worker::start(&self.ask), Ok) {
            Ok(worker) => worker,
            Err(error) => return Answer::Failed(error),
        };
        // The worker waits for its next question, so a place in the channel is free.
        if worker.questions.try_send(path).is_err() {
            return Answer::Failed(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        if let Ok(answer) = worker.answers.recv_timeout(patience) {
            self.idle = Some(worker);
            answer.map_or_else(Answer::Failed, Answer::Space)
        } else {
            self.stuck.push((point.to_owned(), worker));
            Answer::Stuck
        }
    }
}

impl Worker {
    /// Starts a thread. It ends when the worker is dropped; it is not joined, because it may never come back.
    fn start(ask: &Ask) -> io::Result<Worker> {
        let ask = Arc::clone(ask);
        let (questions, asked) = sync_channel::<PathBuf>(1);
        let (answer, answers) = sync_channel(1);
        std::thread::Builder::new().name("statfs".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            for path in asked {
                if answer.send(ask(&path)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Worker { questions, answers })
    }
}

/// Asks the kernel.
pub(super) fn kernel() -> Ask {
    Arc::new(|path| {
        let stat = rustix::fs::statfs(path).map_err(io::Error::from)?;
        // `f_bsize` and not `f_frsize`, as node_exporter multiplies.
        let block = stat.f_bsize as f64;
        Ok(Space {
            size_bytes: stat.f_blocks as f64 * block,
            free_bytes: stat.f_bfree as f64 * block,
            avail_bytes: stat.f_bavail as f64 * block,
            files: stat.f_files as f64,
            files_free: stat.f_ffree as f64,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_hung_mount_costs_one_thread_until_it_comes_back() {
        let (release, gate) = sync_channel::<()>(8);
        let gate = Mutex::new(gate);
        let space = Space { size_bytes: 1.0, free_bytes: 1.0, avail_bytes: 1.0, files: 1.0, files_free: 1.0 };
        let ask: Ask = Arc::new(move |path| match path.to_str() {
            Some("/hung") => gate.lock().unwrap().recv().map(|()| space).map_err(io::Error::other),
            Some("/gone") => Err(io::Error::from(io::ErrorKind::NotFound)),
            _ => Ok(space),
        });
        let mut threads = StatfsThreads::new(ask);
        let short = Duration::from_millis(20);
        let at = |threads: &mut StatfsThreads, point: &str| threads.ask(point, PathBuf::from(point), short);
        assert!(matches!(at(&mut threads, "/hung"), Answer::Stuck));
        assert!(matches!(at(&mut threads, "/hung"), Answer::Stuck));
        assert_eq!(threads.stuck(), 1);
        let generous = Duration::from_secs(10);
        assert!(matches!(threads.ask("/", PathBuf::from("/"), generous), Answer::Space(_)));
        assert!(matches!(threads.ask("/gone", PathBuf::from("/gone"), generous), Answer::Failed(_)));
        release.send(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while threads.stuck() > 0 && Instant::now() < deadline {
            threads.reap();
            std::thread::yield_now();
        }
        assert_eq!(threads.stuck(), 0);
    }

    #[test]
    fn no_more_threads_than_the_limit_get_stuck() {
        let (_keep, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let mut threads = StatfsThreads::new(Arc::new(move |_| {
            let _ = gate.lock().map(|gate| gate.recv());
            Err(io::Error::other("released"))
        }));
        for number in 0..STUCK_MAX + 5 {
            let _ = threads.ask(&number.to_string(), PathBuf::from("/"), Duration::from_micros(1));
        }
        assert_eq!(threads.stuck(), STUCK_MAX);
    }
}
