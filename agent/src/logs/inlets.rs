//! The sources of lines that are no files: the journal and the kernel's messages. Opens what this host has, reads what has
//! come, and knows where each stands. Decides nothing about lines.

use std::fs::File;
use std::sync::mpsc::SyncSender;

use petrel_models::Timestamp;

use super::config::{LogsConfig, Sources};
use super::journal::{Entry, Journal, JournalPosition};
use super::kmsg::{self, Kmsg, KmsgPosition};
use super::sift::Line;
use super::state::LogState;

/// What is followed beside files.
#[derive(Default)]
pub(super) struct Inlets {
    journal: Option<Journal>,
    kmsg: Option<Kmsg<File>>,
    /// Messages of the journal that were too long.
    pub(super) lines_cut: u64,
    /// Kept while a source is away, so that it can be taken up again.
    kept: (Option<JournalPosition>, Option<KmsgPosition>),
    text: String,
}

impl Inlets {
    /// Opens what there is; what cannot be opened is said and left out.
    pub(super) fn start(
        sources: &Sources,
        config: &LogsConfig,
        state: Option<&LogState>,
        now: Timestamp,
        wake: &SyncSender<()>,
    ) -> Inlets {
        let kept = state.map(|state| (state.journal.clone(), state.kmsg.clone())).unwrap_or_default();
        let journal = sources.journal.clone().and_then(|source| {
            let started = Journal::start(source, kept.0.clone(), config.from_beginning, now, wake.clone());
            started.inspect_err(|error| tracing::error!(%error, "the journal is not followed: no thread for it")).ok()
        });
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kmsg = sources.kmsg.as_ref().and_then(|path| {
            let opened = Kmsg::open(path, boot_id.trim(), kept.1.as_ref(), config.from_beginning);
            opened.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the kernel's messages cannot be read; run as root or with CAP_SYSLOG")).ok()
        });
        if journal.is_some() {
            tracing::info!(left_out = ?sources.copies, "the journal is followed; files that hold copies of it are not");
        }
        Inlets { journal, kmsg, kept, ..Inlets::default() }
    }

    /// Hands out what has come; says whether there is more.
    pub(super) fn read(&mut self, now: Timestamp, lines_max: usize, take: &mut dyn FnMut(&Line<'_>) -> bool) -> bool {
        let mut has_more = false;
        let text = &mut self.text;
        if let Some(kmsg) = &mut self.kmsg {
            // One uptime for the round: what is off by the time that reading takes.
            let mut uptime = None;
            let reading = kmsg.read(lines_max, &mut |record| {
                let uptime_ms = *uptime.get_or_insert_with(uptime_ms);
                text.clear();
                text.push_str("kernel: ");
                text.push_str(&record.message);
                let stated = Some((kmsg::wall(now, uptime_ms, record.monotonic_us), Some(record.priority)));
                take(&Line { source: "kmsg", unit: "", bytes: text.as_bytes(), stated })
            });
            match reading {
                Ok(reading) => has_more |= reading.more,
                Err(error) => {
                    tracing::warn!(%error, "the kernel's messages cannot be read any more");
                    self.kept.1 = Some(kmsg.position().clone());
                    self.kmsg = None;
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            let cut = &mut self.lines_cut;
            has_more |= journal.read(now, lines_max, &mut |entry: &Entry| {
                *cut += u64::from(entry.is_cut);
                entry.line(text);
                let stated = Some((if entry.at > 0 { entry.at } else { now }, entry.priority));
                take(&Line { source: "journal", unit: &unit_name(&entry.unit), bytes: text.as_bytes(), stated })
            });
        }
        has_more
    }

    /// Whether the kernel's messages come from the kernel itself, so that lines of them in files are copies.
    pub(super) fn has_kmsg(&self) -> bool {
        self.kmsg.is_some()
    }

    /// Whether it should be looked at again soon: nobody wakes for the kernel's messages.
    pub(super) fn is_hurried(&self) -> bool {
        self.kmsg.is_some() || self.journal.as_ref().is_some_and(Journal::is_holding)
    }

    /// Where each stands after what was handed out.
    pub(super) fn positions(&self) -> (Option<JournalPosition>, Option<KmsgPosition>) {
        let journal = self.journal.as_ref().and_then(Journal::position).or(self.kept.0.as_ref());
        let kmsg = self.kmsg.as_ref().map(Kmsg::position).or(self.kept.1.as_ref());
        (journal.cloned(), kmsg.cloned())
    }

    /// Restarts of the journal's reader and messages that the kernel's ring lost, of what is followed.
    pub(super) fn counts(&self) -> (Option<u64>, Option<u64>) {
        (self.journal.as_ref().map(Journal::restarts), self.kmsg.as_ref().map(|kmsg| kmsg.lost))
    }
}

/// A unit as a label: those that are made for each session, guest or call are one kind each.
fn unit_name(unit: &str) -> String {
    if unit.strip_suffix(".scope").is_none() && !unit.starts_with("run-") {
        return unit.to_owned();
    }
    let mut name = String::new();
    for letter in unit.chars() {
        match letter {
            '0'..='9' if name.ends_with('*') => {}
            '0'..='9' => name.push('*'),
            other => name.push(other),
        }
    }
    name
}

/// How long the machine has run; 0 where it does not say.
fn uptime_ms() -> i64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    (seconds * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_come_and_go_are_one_kind() {
        for (unit, expected) in [
            ("ssh.service", "ssh.service"),
            ("user@1000.service", "user@1000.service"),
            ("session-12.scope", "session-*.scope"),
            ("machine-qemu\\x2d7\\x2dweb.scope", "machine-qemu\\x*d*\\x*dweb.scope"),
            ("run-r12ab.service", "run-r*ab.service"),
            ("", ""),
        ] {
            assert_eq!(unit_name(unit), expected);
        }
    }

    #[test]
    fn the_kernels_messages_of_this_machine_are_read_once() {
        let Ok(mut kmsg) = Kmsg::open(std::path::Path::new("/dev/kmsg"), "b", None, true) else { return };
        let mut first = Vec::new();
        kmsg.read(usize::MAX, &mut |line| {
            first.push(line.sequence);
            true
        })
        .unwrap();
        assert!(first.is_sorted_by(|a, b| a < b));
        let kept = kmsg.position().clone();
        let mut again = Kmsg::open(std::path::Path::new("/dev/kmsg"), "b", Some(&kept), false).unwrap();
        again
            .read(usize::MAX, &mut |line| line.sequence >= kept.next || panic!("{} was read twice", line.sequence))
            .unwrap();
        assert_eq!(again.lost, 0);
    }
}
