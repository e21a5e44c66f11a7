//! The journal, through a child: `journalctl --follow`, started again where it ended. A thread reads its output ahead within a
//! bound; the position is the cursor of the last entry that was handed out, so what was read ahead and not handed out is
//! read again after a crash, and nothing else is.

pub(crate) mod export;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

pub(super) use self::export::Entry;
use self::export::{ExportReader, FIELDS};
use super::join::{self, Trace};
use crate::command::{Following, Tool};

/// Where reading of the journal stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPosition {
    /// The cursor of the last entry that was taken.
    pub cursor: String,
}

/// What the reader is told.
#[derive(Debug, Clone)]
pub(super) struct JournalSource {
    pub(super) journalctl: PathBuf,
    pub(super) directory: Option<PathBuf>,
    pub(super) message_bytes_max: usize,
    /// Join the lines of a stack trace.
    pub(super) is_joined: bool,
}

/// Entries read ahead: at the largest message they take 4 MiB.
const AHEAD_MAX: usize = 64;
/// What journalctl may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(5);
/// One reading of the pipe.
const PIPE_BYTES: usize = 32 << 10;
/// Wait before a child that ended is started again: doubled up to the second.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// An entry whose trace may go on is held back for so long.
const JOIN_MS: i64 = 1000;
/// Most lines joined into one.
const JOINED_MAX: usize = 256;

/// The journal, being followed.
pub(super) struct Journal {
    source: JournalSource,
    entries: Receiver<Entry>,
    shared: Arc<Shared>,
    position: Option<JournalPosition>,
    /// Entries written before this are only looked at for their cursor: the journal was never followed before.
    begins_at: Option<Timestamp>,
    held: Option<Held>,
}

/// What the thread and its owner share.
#[derive(Default)]
struct Shared {
    child: Mutex<Option<Following>>,
    is_stopped: AtomicBool,
    restarts: AtomicU64,
}

/// An entry whose trace may go on.
struct Held {
    entry: Entry,
    trace: Trace,
    lines: usize,
    since: Timestamp,
}

/// Whether this host keeps a journal that can be read: a readable file in one of systemd's folders, and a journalctl that
/// runs. Starts it once.
pub(super) fn is_there(journalctl: &Path, directory: Option<&Path>) -> bool {
    has_files(directory)
        && Tool::new(journalctl).run(&["--version"], Instant::now() + VERSION_WITHIN).is_ok_and(|said| said.well())
}

fn has_files(directory: Option<&Path>) -> bool {
    let usual = ["/var/log/journal".into(), "/run/log/journal".into()];
    let folders: Vec<PathBuf> = directory.map_or_else(|| usual.to_vec(), |given| vec![given.to_owned()]);
    let is_journal =
        |path: &Path| path.extension().is_some_and(|end| end == "journal") && std::fs::File::open(path).is_ok();
    folders.iter().any(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| {
            is_journal(&path)
                || std::fs::read_dir(&path).into_iter().flatten().flatten().any(|entry| is_journal(&entry.path()))
        })
    })
}

impl Journal {
    /// Starts reading from `position`; without one, with what is written from `now` on, or with all there is.
    pub(super) fn start(
        source: JournalSource,
        position: Option<JournalPosition>,
        from_begin: bool,
        now: Timestamp,
        wake: SyncSender<()>,
    ) -> std::io::Result<Journal> {
        let (out, entries) = sync_channel(AHEAD_MAX);
        let shared = Arc::new(Shared::default());
        let begins_at = (position.is_none() && !from_begin).then_some(now);
        let thread = Thread {
            source: source.clone(),
            cursor: position.as_ref().map(|position| position.cursor.clone()),
            is_new: begins_at.is_some(),
            out,
            wake,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || thread.run())?;
        Ok(Journal { source, entries, shared, position, begins_at, held: None })
    }

    pub(super) fn position(&self) -> Option<&JournalPosition> {
        self.position.as_ref()
    }

    /// How often the child ended by itself.
    pub(super) fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Whether an entry waits for what may follow it.
    pub(super) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Hands out what has come, at most `most` entries; `take` says whether it wants more. Says whether there is more.
    pub(super) fn read(&mut self, now: Timestamp, most: usize, take: &mut dyn FnMut(&Entry) -> bool) -> bool {
        for _ in 0..most {
            match self.entries.try_recv() {
                Ok(entry) => {
                    if !self.entry(entry, now, take) {
                        return true;
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    let is_due = self.held.as_ref().is_some_and(|held| now - held.since >= JOIN_MS || now < held.since);
                    if is_due && let Some(held) = self.held.take() {
                        return !self.hand_out(&held.entry, take);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn entry(&mut self, entry: Entry, now: Timestamp, take: &mut dyn FnMut(&Entry) -> bool) -> bool {
        if self.begins_at.is_some_and(|begin| entry.at < begin) {
            self.position = Some(JournalPosition { cursor: entry.cursor });
            return true;
        }
        self.begins_at = None;
        // journalctl goes to the nearest entry where a cursor is gone: never the same one twice.
        if self.position.as_ref().is_some_and(|position| position.cursor == entry.cursor) {
            return true;
        }
        if !self.source.is_joined {
            return self.hand_out(&entry, take);
        }
        let bytes_max = self.source.message_bytes_max;
        if let Some(held) = &mut self.held {
            let goes_on = held.lines < JOINED_MAX
                && (&held.entry.unit, &held.entry.pid, &held.entry.identifier)
                    == (&entry.unit, &entry.pid, &entry.identifier)
                && held.entry.message.len() + entry.message.len() < bytes_max
                && join::continues(&mut held.trace, entry.message.as_bytes());
            if goes_on {
                held.entry.message.push('\n');
                held.entry.message.push_str(&entry.message);
                held.entry.priority = held.entry.priority.min(entry.priority).or(entry.priority);
                held.entry.cursor = entry.cursor;
                (held.lines, held.since) = (held.lines + 1, now);
                return true;
            }
        }
        let trace = join::begin(entry.message.as_bytes());
        match self.held.replace(Held { entry, trace, lines: 1, since: now }) {
            Some(before) => self.hand_out(&before.entry, take),
            None => true,
        }
    }

    fn hand_out(&mut self, entry: &Entry, take: &mut dyn FnMut(&Entry) -> bool) -> bool {
        self.position = Some(JournalPosition { cursor: entry.cursor.clone() });
        take(entry)
    }
}

impl Drop for Journal {
    /// Ends the child; the thread sees its end and goes. One that hangs on a disk is left behind, as a stop may not wait for it.
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        if let Some(child) = self.shared.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            child.kill();
        }
    }
}

/// The thread's own.
struct Thread {
    source: JournalSource,
    cursor: Option<String>,
    is_new: bool,
    out: SyncSender<Entry>,
    wake: SyncSender<()>,
    shared: Arc<Shared>,
}

impl Thread {
    fn run(mut self) {
        let tool = Tool::new(&self.source.journalctl);
        let mut pause = AGAIN_AFTER.0;
        let mut is_told = false;
        while !self.is_stopped() {
            match self.follow(&tool) {
                Ok(0) if !is_told => {
                    tracing::warn!(program = %tool.program().display(), "journalctl ended without an entry; it is started again and again");
                    is_told = true;
                }
                Ok(0) => {}
                Ok(_) => (pause, is_told) = (AGAIN_AFTER.0, false),
                Err(error) if !is_told => {
                    tracing::error!(error = crate::error_chain::chain(&error), "the journal is not followed");
                    is_told = true;
                }
                Err(_) => {}
            }
            if self.is_stopped() {
                return;
            }
            self.shared.restarts.fetch_add(1, Ordering::Relaxed);
            // In short naps, so that a stop is seen.
            let mut waited = Duration::ZERO;
            while waited < pause && !self.is_stopped() {
                std::thread::sleep(NAP);
                waited += NAP;
            }
            pause = (pause * 2).min(AGAIN_AFTER.1);
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Acquire)
    }

    /// Runs one child to its end; says how many entries it gave.
    fn follow(&mut self, tool: &Tool) -> Result<u64, crate::command::ToolError> {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (child, mut pipe) = tool.follow(&arguments)?;
        *self.shared.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        if self.is_stopped() {
            self.end();
            return Ok(0);
        }
        let mut reader = ExportReader::new(self.source.message_bytes_max);
        let mut bytes = vec![0; PIPE_BYTES];
        let mut count = 0;
        while let Ok(length @ 1..) = pipe.read(&mut bytes) {
            let (out, wake, cursor, is_new) = (&self.out, &self.wake, &mut self.cursor, &mut self.is_new);
            let is_wanted = reader.feed(&bytes[..length], &mut |entry| {
                count += 1;
                *is_new = false;
                *cursor = Some(entry.cursor.clone());
                // Wakes before it blocks: whoever takes entries may be asleep.
                let _ = wake.try_send(());
                out.send(entry).is_ok()
            });
            let _ = self.wake.try_send(());
            if !is_wanted {
                break;
            }
        }
        self.end();
        Ok(count)
    }

    fn end(&self) {
        let child = self.shared.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(child) = child {
            child.end();
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--follow", "--quiet", "--no-pager", "--output=export"].iter().map(|word| (*word).to_owned()).collect();
        arguments.push(format!("--output-fields={FIELDS}"));
        match &self.source.directory {
            Some(directory) => arguments.push(format!("--directory={}", directory.display())),
            // The user's own journals alone are what it would show to somebody who may not read the system's.
            None => arguments.push("--system".to_owned()),
        }
        match &self.cursor {
            Some(cursor) => arguments.extend(["--no-tail".to_owned(), format!("--after-cursor={cursor}")]),
            // The last entry there is, for its cursor.
            None if self.is_new => arguments.push("--lines=1".to_owned()),
            None => arguments.push("--no-tail".to_owned()),
        }
        arguments
    }
}

/// How long the thread sleeps at once.
const NAP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_journal_that_nobody_can_ask_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let is_there = |program: &str| is_there(Path::new(program), Some(folder.path()));
        assert!(!is_there("true"), "no file");
        std::fs::write(folder.path().join("system.journal"), "").unwrap();
        assert!(is_there("true") && !is_there("false") && !is_there("/nonexistent/journalctl"));
    }

    /// A journalctl that gives two entries after each cursor and ends: it has to be started again.
    const SCRIPT: &str = r#"#!/bin/sh
n=0
for word in "$@"; do case $word in --after-cursor=*) n=${word#--after-cursor=} ;; esac; done
for i in $((n+1)) $((n+2)); do
  printf '__CURSOR=%s\n__REALTIME_TIMESTAMP=%s000\nSYSLOG_IDENTIFIER=app\n_PID=7\nMESSAGE=line %s\n\n' $i $i $i
done
"#;

    fn collect(journal: &mut Journal, wanted: usize) -> Vec<String> {
        let (mut seen, begin) = (Vec::new(), Instant::now());
        let mut now = 1_000_000;
        while seen.len() < wanted && begin.elapsed() < Duration::from_secs(20) {
            now += JOIN_MS;
            journal.read(now, 1, &mut |entry| {
                seen.push(format!("{} {}", entry.cursor, entry.message));
                true
            });
            std::thread::yield_now();
        }
        seen
    }

    fn source(folder: &Path, is_joined: bool) -> JournalSource {
        let journalctl = folder.join("journalctl");
        std::fs::write(&journalctl, SCRIPT).unwrap();
        std::fs::set_permissions(&journalctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        JournalSource { journalctl, directory: None, message_bytes_max: 1000, is_joined }
    }

    #[test]
    fn a_child_that_ends_is_started_again_after_its_last_entry() {
        let folder = tempfile::tempdir().unwrap();
        let (wake, _woken) = sync_channel(1);
        let mut journal = Journal::start(source(folder.path(), false), None, true, 0, wake).unwrap();
        assert_eq!(collect(&mut journal, 4), ["1 line 1", "2 line 2", "3 line 3", "4 line 4"]);
        let position = journal.position().cloned();
        drop(journal);
        let (wake, _woken) = sync_channel(1);
        let mut journal = Journal::start(source(folder.path(), true), position, true, 0, wake).unwrap();
        assert_eq!(collect(&mut journal, 2), ["5 line 5", "6 line 6"]);
    }

    #[test]
    fn a_new_host_begins_with_what_is_written_from_now_on() {
        let folder = tempfile::tempdir().unwrap();
        let (wake, _woken) = sync_channel(1);
        let mut journal = Journal::start(source(folder.path(), false), None, false, 2, wake).unwrap();
        assert_eq!(collect(&mut journal, 2), ["2 line 2", "3 line 3"]);
    }

    #[test]
    fn a_trace_is_one_entry_and_its_position_the_last_line() {
        let (out, entries) = sync_channel(10);
        let entry = |cursor: &str, pid: &str, message: &str| Entry {
            cursor: cursor.to_owned(),
            pid: pid.to_owned(),
            message: message.to_owned(),
            ..Entry::default()
        };
        for (cursor, pid, message) in [
            ("1", "7", "Traceback (most recent call last):"),
            ("2", "7", "  File x"),
            ("3", "7", "ValueError: y"),
            ("4", "8", "  other"),
        ] {
            out.send(entry(cursor, pid, message)).unwrap();
        }
        let source =
            JournalSource { journalctl: "x".into(), directory: None, message_bytes_max: 1000, is_joined: true };
        let mut journal =
            Journal { source, entries, shared: Arc::default(), position: None, begins_at: None, held: None };
        let mut seen = Vec::new();
        let mut take = |entry: &Entry| {
            seen.push(entry.message.clone());
            true
        };
        assert!(!journal.read(0, 10, &mut take));
        assert_eq!(journal.position.as_ref().unwrap().cursor, "3", "the entry held back is not in the position");
        journal.read(JOIN_MS, 10, &mut take);
        assert_eq!(seen, ["Traceback (most recent call last):\n  File x\nValueError: y", "  other"]);
        assert_eq!(journal.position.as_ref().unwrap().cursor, "4");
    }
}
