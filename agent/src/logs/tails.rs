//! The rim of `logs`: a thread that waits for changes, reads, and hands rounds to the agent's run loop. It decides nothing.
//!
//! A thread, because reading a file may block for as long as its disk does, and heartbeats must not wait for that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use petrel_models::Timestamp;
use petrel_models::logs::SavedTemplate;
use tokio::sync::mpsc;

use super::config::LogsConfig;
use super::counts::Counts;
use super::follow::Follow;
use super::inlets::Inlets;
use super::sift::{Line, Sift};
use super::{LogRecord, LogState};
use crate::collect::Family;
use crate::collect::zone::Zone;

/// Says what time it is; given by the run loop.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What was read in a round.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRound {
    /// Lines that travel whole, at most about 1,000.
    pub records: Vec<LogRecord>,
    /// Where reading stands after them: to be stored with them, in one synced write. With no records it may be stored
    /// later, with the next ones: at worst some lines are counted twice.
    pub state: LogState,
}

/// What was counted, for each round of collection.
#[derive(Clone)]
pub struct LogCounts(Arc<Mutex<Counts>>);

impl LogCounts {
    /// All families. A precursor that was seen for the first time is shown as 0 once.
    pub fn families(&self) -> Vec<Family> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).families()
    }
}

/// The logs of this host.
pub struct LogTails {
    rounds: mpsc::Receiver<LogRound>,
    counts: Arc<Mutex<Counts>>,
    wake: SyncSender<()>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Most lines read in a round. Few of them become records.
const LINES_MAX: usize = 10_000;
/// Most records of a round.
const RECORDS_MAX: usize = 1000;
/// After a first change, wait for more: one round for a burst, at the price of this much delay.
const GATHER: Duration = Duration::from_millis(200);
/// Look without being told: file systems without notification, a full event queue, a folder that did not exist.
const POLL: Duration = Duration::from_secs(5);
/// The same while something waits for its end, or a source cannot tell that it has something.
const SOON: Duration = Duration::from_secs(1);
/// Longest wait for the thread at the end; it takes a few milliseconds where nothing hangs.
const PARTING: Duration = Duration::from_millis(300);
/// How often templates are written down while new ones come.
const SAVE_EVERY: Duration = Duration::from_secs(300);

impl LogTails {
    /// Starts following, from `state` where there is one. The thread ends when this is dropped.
    pub fn new(config: &LogsConfig, state: Option<LogState>, clock: Clock) -> LogTails {
        let (out, rounds) = mpsc::channel(1);
        let (wake, woken) = sync_channel(1);
        let counts = Arc::new(Mutex::new(Counts::default()));
        let stopped = Arc::new(AtomicBool::new(false));
        let saved = config.templates_file.as_deref().map(load_templates).unwrap_or_default();
        let sources = config.sources();
        let sift = Sift::new(config, &saved, Zone::load(&config.localtime));
        let inlets = Inlets::start(&sources, config, state.as_ref(), clock(), &wake);
        let worker = Worker {
            follow: Follow::new(config, &sources.copies, state),
            inlets,
            sift,
            counts: Arc::clone(&counts),
            clock,
            out,
            stopped: Arc::clone(&stopped),
            templates_file: config.templates_file.clone(),
            saved_at: Instant::now(),
            saved_templates: saved.len(),
        };
        let watch = Watch::new(wake.clone());
        let spawned = std::thread::Builder::new().name("logs".to_owned()).spawn(move || worker.run(&woken, watch));
        if let Err(error) = &spawned {
            tracing::error!(%error, "log files are not followed: no thread for them");
        }
        LogTails { rounds, counts, wake, stopped, thread: spawned.ok() }
    }

    /// The next round; waits for as long as nothing is written. Safe to cancel: a round not taken is taken next time.
    /// Waits for ever when there is nothing to follow.
    pub async fn next(&mut self) -> LogRound {
        match self.rounds.recv().await {
            Some(round) => round,
            None => std::future::pending().await,
        }
    }

    /// `petrel_log_template_total{template,source}` of the busiest templates.
    pub fn template_counts(&self) -> Family {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).template_family()
    }

    /// Everything that is counted, `template_counts` included.
    pub fn counts(&self) -> LogCounts {
        LogCounts(Arc::clone(&self.counts))
    }
}

impl Drop for LogTails {
    /// Tells the thread to end and gives it a moment to write its templates down. One that hangs on a disk is left
    /// behind: a stop may not take that long.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.rounds.close();
        let _ = self.wake.try_send(());
        let begin = Instant::now();
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && begin.elapsed() < PARTING {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the thread of the log files ended with a panic");
        }
    }
}

/// When the next round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At once: there is more.
    Now,
    /// Within a second.
    Soon,
    /// When something changes.
    Idle,
}

/// The thread's own.
struct Worker {
    follow: Follow,
    inlets: Inlets,
    sift: Sift,
    counts: Arc<Mutex<Counts>>,
    clock: Clock,
    out: mpsc::Sender<LogRound>,
    stopped: Arc<AtomicBool>,
    templates_file: Option<PathBuf>,
    saved_at: Instant,
    saved_templates: usize,
}

impl Worker {
    fn run(mut self, woken: &Receiver<()>, mut watch: Watch) {
        let mut last = None;
        loop {
            watch.keep_to(&self.follow.folders());
            let (round, pace) = self.round();
            let state = LogState { at: 0, ..round.state.clone() };
            let is_news = !round.records.is_empty() || last.as_ref() != Some(&state);
            if is_news {
                last = Some(state);
                // Blocks while the run loop is busy: that is the bound on what is read ahead.
                if self.out.blocking_send(round).is_err() {
                    break;
                }
            }
            if pace != Pace::Now && !self.wait(woken, pace) {
                break;
            }
            if self.saved_at.elapsed() >= SAVE_EVERY {
                self.save_templates();
            }
        }
        self.save_templates();
    }

    fn round(&mut self) -> (LogRound, Pace) {
        let now = (self.clock)();
        let mut records = Vec::new();
        let (sift, shared) = (&mut self.sift, &self.counts);
        sift.skips_kernel = self.inlets.has_kmsg();
        let mut sieve = |line: &Line<'_>| {
            let mut counts = shared.lock().unwrap_or_else(PoisonError::into_inner);
            sift.line(line, now, &mut counts, &mut records);
            records.len() < RECORDS_MAX
        };
        // The kernel's messages first: they are few, and its ring forgets.
        let mut has_more = self.inlets.read(now, LINES_MAX, &mut sieve);
        let progress = self.follow.round(now, LINES_MAX, &mut |path, line| {
            let source = path.to_string_lossy();
            sieve(&Line { source: &source, unit: "", bytes: line, stated: None })
        });
        has_more |= progress.more;
        let mut counts = shared.lock().unwrap_or_else(PoisonError::into_inner);
        counts.follow = self.follow.counts;
        counts.follow.lines_cut += self.inlets.lines_cut;
        counts.files = self.follow.files();
        counts.templates_known = self.sift.miner().len();
        counts.templates_evicted = self.sift.miner().evicted();
        (counts.journal, counts.kmsg) = self.inlets.counts();
        drop(counts);
        let pace = match has_more {
            true => Pace::Now,
            false if progress.waits || self.inlets.is_hurried() => Pace::Soon,
            false => Pace::Idle,
        };
        let mut state = self.follow.state(now);
        (state.journal, state.kmsg) = self.inlets.positions();
        (LogRound { records, state }, pace)
    }

    /// Waits for a change; false when it is time to end.
    fn wait(&self, woken: &Receiver<()>, pace: Pace) -> bool {
        let longest = if pace == Pace::Soon { SOON } else { POLL };
        let is_woken = !matches!(woken.recv_timeout(longest), Err(RecvTimeoutError::Timeout));
        if is_woken && !self.stopped.load(Ordering::Acquire) {
            std::thread::sleep(GATHER);
            while woken.try_recv().is_ok() {}
        }
        !self.stopped.load(Ordering::Acquire)
    }

    fn save_templates(&mut self) {
        self.saved_at = Instant::now();
        let templates = self.sift.miner().save();
        let Some(path) = self.templates_file.as_deref().filter(|_| !templates.is_empty()) else { return };
        if templates.len() == self.saved_templates && self.sift.miner().evicted() == 0 {
            return;
        }
        self.saved_templates = templates.len();
        if let Err(error) = write_templates(path, &templates) {
            tracing::warn!(path = %path.display(), %error, "log templates cannot be kept; they are mined anew after a restart");
        }
    }
}

/// Reads the templates of an earlier run; none where the file is missing or makes no sense.
fn load_templates(path: &Path) -> Vec<SavedTemplate> {
    let bytes = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Writes beside and renames. Not synced: a lost file costs some templates that are mined anew.
fn write_templates(path: &Path, templates: &[SavedTemplate]) -> std::io::Result<()> {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, serde_json::to_vec(templates)?)?;
    std::fs::rename(&beside, path)
}

/// The kernel's notifications for the folders of the files.
struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    fn new(wake: SyncSender<()>) -> Watch {
        // A full channel means the thread is awake already.
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !matches!(event, Ok(event) if event.kind.is_access()) {
                let _ = wake.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file notifications; log files are looked at every 5 seconds");
        }
        Watch { watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches these folders, and no others.
    fn keep_to(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.watched.difference(folders) {
            // A folder that is gone is not watched any more anyway.
            let _ = watcher.unwatch(folder);
        }
        let fresh: Vec<PathBuf> = folders.difference(&self.watched).cloned().collect();
        self.watched.retain(|folder| folders.contains(folder));
        for folder in fresh {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder);
                }
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "folder is not watched, only polled"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::logs::{RawJournalConfig, RawLogsConfig, Wanted};

    /// Rounds until some bring the records wanted; their bodies.
    async fn bodies(tails: &mut LogTails, wanted: usize) -> (Vec<String>, LogState) {
        let mut seen = Vec::new();
        loop {
            let round = tokio::time::timeout(Duration::from_secs(20), tails.next()).await.expect("a round in time");
            seen.extend(round.records.into_iter().map(|record| record.body));
            if seen.len() >= wanted {
                return (seen, round.state);
            }
        }
    }

    #[tokio::test]
    async fn lines_come_out_once_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "before the start\n").unwrap();
        let journal = RawJournalConfig { follow: Wanted::Never, ..RawJournalConfig::default() };
        let (files, kmsg) = (vec![path.display().to_string()], Wanted::Never);
        let raw = RawLogsConfig { files, journal, kmsg, context_lines: 0, ..RawLogsConfig::default() };
        let templates = folder.path().join("templates.json");
        let config = raw.check().unwrap().with_templates_file(templates.clone());
        let clock: Clock = crate::clock::wall();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();

        let mut tails = LogTails::new(&config, None, Arc::clone(&clock));
        tokio::time::timeout(Duration::from_secs(20), tails.next()).await.expect("the first look");
        writeln!(file, "disk error on sda\nall is well").unwrap();
        let (seen, state) = bodies(&mut tails, 2).await;
        assert_eq!(seen, ["disk error on sda", "all is well"]);
        assert_eq!(tails.template_counts().points.len(), 2);
        drop(tails);
        // On a busy machine the thread may outlast the parting.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !templates.exists() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }

        // The second line's template is known by now: only counted.
        writeln!(file, "all is well\nsomething new").unwrap();
        let mut tails = LogTails::new(&config, Some(state), clock);
        assert_eq!(bodies(&mut tails, 1).await.0, ["something new"]);
        let families = tails.counts().families();
        let lines = families.iter().find(|family| family.name == "petrel_log_lines_total").unwrap();
        assert_eq!(lines.points.iter().map(|point| point.value).sum::<f64>(), 2.0);
    }
}
