//! What is known of one host: its paths, whether it said goodbye, what others say of it. Pure; decides when a path is late or
//! silent, and when a wave of silence is over. What follows from all paths together is `petrel_models::failure`'s table.

use std::collections::BTreeMap;

use petrel_models::failure::{Accrual, AccrualConfig, HostView, PathState, Verdict, judge};

use super::HostVerdict;
use crate::decide::testimony::Testimony;
use crate::series::Timestamp;

/// φ from which a path is late.
const LATE_PHI: f64 = 5.0;
/// φ from which a path is silent. The pause below, not this, decides how much loss is forgiven.
const SILENT_PHI: f64 = 12.0;
/// Missed beats forgiven before a path may be late: three lost datagrams in a row are 10⁻⁶ at 1 % loss.
const LATE_PAUSE_BEATS: f64 = 2.5;
/// Missed beats forgiven before a late path is silent.
const SILENT_PAUSE_BEATS: f64 = 5.5;
/// Expected time between an agent's batches until its own rhythm is known.
const STREAM_INTERVAL_MS: f64 = 10_000.0;
/// Rhythms up to this are learnt: agents collect at least once a minute.
const STREAM_LEARN_MS_MAX: f64 = 150_000.0;
/// Share of a batch interval that is forgiven before the stream may be late, and before it is silent.
const STREAM_PAUSES: (f64, f64) = (0.5, 1.0);
/// Silences that began within this of each other began at once.
const AT_ONCE_MS: Timestamp = 30_000;
/// So many at once are a fault of ours until shown otherwise,
const MANY_HOSTS: usize = 3;
/// and so many where no more than one other host shows that our network works: that one may be the server's own machine.
const MANY_HOSTS_OF_FEW: usize = 2;
/// A wave of silence ends for its last hosts so long after the others are back: a network comes back bit by bit.
const AFTER_WAVE_MS: Timestamp = 30_000;
/// What others said stands for so long at most: thirty rounds of questions, so that also of thousands of silent hosts each is
/// asked about in time.
const ANSWER_MS: Timestamp = 30_000;
/// A host is known for so long before it can be dead: after a start of the server its agent may come back with batches half a minute
/// later than with heartbeats, and collect once a minute.
const KNOWN_MS_MIN: Timestamp = 60_000;
/// A beat that comes on another path so soon after a goodbye was sent before it.
const STRAGGLING_BEAT_MS: Timestamp = 5_000;
/// And so does a batch that was under way.
const STRAGGLING_BATCH_MS: Timestamp = 30_000;
/// Heartbeats and batches are received side by side, so that of two events the earlier one may come later, by no more than this.
const OUT_OF_ORDER_MS: Timestamp = 5_000;
/// Heartbeat paths of a host watched at most, as many as an agent may have.
const PATHS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Host {
    beats: BTreeMap<u8, Path>,
    stream: Option<Path>,
    /// The path that brought the last goodbye, and when, until it is taken back.
    goodbye: Option<(u8, Timestamp)>,
    /// What others said last, and when, while it is silent.
    testimony: Option<(Testimony, Timestamp)>,
    /// When others were asked last, with or without an answer.
    asked_at: Option<Timestamp>,
    /// When it was last one of many that are silent.
    waved_at: Option<Timestamp>,
    /// When it was heard first.
    known_at: Timestamp,
    pub(super) current: HostVerdict,
}

#[derive(Debug)]
struct Path {
    accrual: Accrual,
    /// Further silence allowed once it is late, in milliseconds.
    late_to_silent_ms: f64,
    /// Longest gap since the last export, in milliseconds.
    gap_ms_max: Timestamp,
}

impl Host {
    pub(super) fn new(current: HostVerdict) -> Host {
        Host {
            beats: BTreeMap::new(),
            stream: None,
            goodbye: None,
            testimony: None,
            asked_at: None,
            waved_at: None,
            known_at: current.since,
            current,
        }
    }

    pub(super) fn beat(&mut self, number: u8, interval_ms: u32, goodbye: bool, now: Timestamp) {
        if goodbye {
            self.goodbye = Some((number, now));
        } else if let Some((path, at)) = self.goodbye {
            // Numbers order the beats of one path; two paths may take a different time.
            if path != number && is_within(STRAGGLING_BEAT_MS, at, now) {
                return;
            }
            self.begin_anew(now);
        }
        if !self.beats.contains_key(&number) && self.beats.len() >= PATHS_MAX {
            return;
        }
        let interval_ms = f64::from(interval_ms.clamp(100, 60_000));
        let path = self.beats.entry(number).or_insert_with(|| Path::beats(interval_ms, now));
        if path.accrual.interval_ms() == interval_ms {
            path.heard(now);
        } else {
            *path = Path::beats(interval_ms, now);
        }
    }

    pub(super) fn batch(&mut self, is_backlog: bool, now: Timestamp) {
        // What was under way when the agent said goodbye does not take the word back; a beat does, or a batch later on.
        if self.goodbye.is_some_and(|(_, at)| !is_within(STRAGGLING_BATCH_MS, at, now)) {
            self.begin_anew(now);
        }
        let stream = self.stream.get_or_insert_with(|| Path::stream(now));
        if is_backlog {
            // It comes at the pace that the server sets: taken for the rhythm, the next round would be missed at once.
            stream.seen(now);
        } else {
            stream.heard(now);
        }
    }

    /// An agent that stopped cleanly is back, perhaps with other paths: those it has no more must not be missed for ever.
    fn begin_anew(&mut self, now: Timestamp) {
        self.goodbye = None;
        self.beats.clear();
        if let Some(stream) = &mut self.stream {
            // The time in which it was stopped is no silence.
            stream.accrual.forgive(Timestamp::MAX, now);
        }
    }

    /// Others were asked; nothing new where their answer could not be had.
    pub(super) fn asked(&mut self, testimony: Option<Testimony>, now: Timestamp) {
        self.asked_at = Some(now);
        self.testimony = testimony.map(|said| (said, now)).or(self.testimony);
    }

    pub(super) fn asked_at(&self) -> Option<Timestamp> {
        self.asked_at
    }

    /// The server itself heard nothing for so long.
    pub(super) fn forgive(&mut self, gap_ms: Timestamp, now: Timestamp) {
        self.paths_mut().for_each(|path| path.accrual.forgive(gap_ms, now));
    }

    pub(super) fn not_after(&mut self, latest: Timestamp) {
        self.paths_mut().for_each(|path| path.accrual.not_after(latest));
    }

    /// How close each path came to being late since the last call, by its name. Nothing of an agent that stopped.
    pub(super) fn take_margins(&mut self, now: Timestamp) -> Vec<(String, f64)> {
        if self.goodbye.is_some() {
            return Vec::new();
        }
        let numbered = self.beats.iter_mut().map(|(number, path)| (number.to_string(), path.take_margin(now)));
        let stream = self.stream.iter_mut().map(|path| ("stream".to_owned(), path.take_margin(now)));
        numbered.chain(stream).collect()
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.beats.values_mut().chain(&mut self.stream)
    }

    pub(super) fn heard_at(&self) -> Timestamp {
        let heard = self.beats.values().chain(&self.stream).map(|path| path.accrual.last());
        heard.max().unwrap_or(self.current.heard_at)
    }

    /// Whether a sign of life is heard now.
    pub(super) fn is_heard(&self, now: Timestamp) -> bool {
        self.goodbye.is_none()
            && self.beats.values().chain(&self.stream).any(|path| path.state(now) == PathState::Beating)
    }

    /// Whether what others say of it matters: nothing is heard of it, and nobody said that this would be so.
    pub(super) fn is_in_question(&self, now: Timestamp) -> bool {
        self.goodbye.is_none() && !self.is_heard(now)
    }

    /// When its heartbeats ended, or its batches where it has no heartbeats; `None` while they come. Batches come so seldom that
    /// their end shows a minute later on one host than on another.
    fn faded_at(&self, now: Timestamp) -> Option<Timestamp> {
        let any = |paths: &mut dyn Iterator<Item = &Path>| {
            let (mut last, mut is_beating) = (None, false);
            for path in paths {
                last = last.max(Some(path.accrual.last()));
                is_beating |= path.state(now) == PathState::Beating;
            }
            last.filter(|_| !is_beating)
        };
        if self.goodbye.is_some() {
            return None;
        }
        if self.beats.is_empty() { any(&mut self.stream.iter()) } else { any(&mut self.beats.values()) }
    }

    /// Judges it anew; returns what the verdict was where it changed.
    pub(super) fn judge(&mut self, now: Timestamp, waves: &Waves) -> Option<Verdict> {
        self.current.heard_at = self.heard_at();
        if !self.is_in_question(now) {
            // What was said during this silence is no news in the next.
            (self.testimony, self.asked_at, self.waved_at) = (None, None, None);
        } else if self.faded_at(now).is_some_and(|at| waves.many_at(at)) {
            self.waved_at = Some(now);
        }
        let beats: Vec<(u8, PathState)> = self.beats.iter().map(|(number, path)| (*number, path.state(now))).collect();
        let stream = self.stream.as_ref().map(|path| path.state(now));
        let testimony = self.testimony.filter(|(_, at)| is_within(ANSWER_MS, *at, now)).map(|(said, _)| said);
        let is_incomplete = testimony.is_none() || is_within(KNOWN_MS_MIN, self.known_at, now);
        let Testimony { storage_alive, power_off } = testimony.unwrap_or_default();
        let storage = storage_alive.map(|alive| if alive { PathState::Beating } else { PathState::Silent });
        let goodbye = self.goodbye.is_some();
        let many_silent = self.waved_at.is_some_and(|at| is_within(AFTER_WAVE_MS, at, now));
        let view = HostView { beats: &beats, stream, storage, power_off, goodbye, many_silent, is_incomplete };
        let (verdict, reasons) = judge(&view);
        self.current.reasons = reasons;
        let from = std::mem::replace(&mut self.current.verdict, verdict);
        if from == verdict {
            return None;
        }
        self.current.since = now;
        Some(from)
    }
}

/// Whether `at` is no longer ago than that. What lies far ahead is of a clock that was set back since.
fn is_within(ms: Timestamp, at: Timestamp, now: Timestamp) -> bool {
    (-OUT_OF_ORDER_MS..=ms).contains(&(now - at))
}

impl Path {
    fn beats(interval_ms: f64, now: Timestamp) -> Path {
        let config = AccrualConfig {
            interval_ms,
            pause_ms: LATE_PAUSE_BEATS * interval_ms,
            learn_ms_max: (1.0 + LATE_PAUSE_BEATS) * interval_ms,
        };
        let late_to_silent_ms = (SILENT_PAUSE_BEATS - LATE_PAUSE_BEATS) * interval_ms;
        Path { accrual: Accrual::new(config, now), late_to_silent_ms, gap_ms_max: 0 }
    }

    fn stream(now: Timestamp) -> Path {
        let interval_ms = STREAM_INTERVAL_MS;
        let config =
            AccrualConfig { interval_ms, pause_ms: STREAM_PAUSES.0 * interval_ms, learn_ms_max: STREAM_LEARN_MS_MAX };
        let late_to_silent_ms = (STREAM_PAUSES.1 - STREAM_PAUSES.0) * interval_ms;
        Path { accrual: Accrual::new(config, now), late_to_silent_ms, gap_ms_max: 0 }
    }

    fn heard(&mut self, now: Timestamp) {
        self.gap_ms_max = self.gap_ms_max.max(now - self.accrual.last());
        self.accrual.heard(now);
    }

    /// Heard outside of its rhythm.
    fn seen(&mut self, now: Timestamp) {
        self.gap_ms_max = self.gap_ms_max.max(now - self.accrual.last());
        self.accrual.seen(now);
    }

    fn state(&self, now: Timestamp) -> PathState {
        if self.accrual.phi(now) < LATE_PHI {
            return PathState::Beating;
        }
        let later = now - self.late_to_silent_ms as Timestamp;
        if self.accrual.phi(later) >= SILENT_PHI { PathState::Silent } else { PathState::Late }
    }

    /// Share of the silence allowed before a path is late that the longest gap since the last call left over, 0 to 1.
    fn take_margin(&mut self, now: Timestamp) -> f64 {
        let gap_ms = self.gap_ms_max.max(now - self.accrual.last());
        self.gap_ms_max = 0;
        (1.0 - gap_ms as f64 / self.accrual.silence_ms_allowed(LATE_PHI)).clamp(0.0, 1.0)
    }
}

/// When the hosts whose heartbeats do not come now were last heard.
pub(super) struct Waves {
    /// Sorted.
    faded_at: Vec<Timestamp>,
    many: usize,
}

impl Waves {
    /// Takes [`Host::faded_at`] of all hosts. Also those count that are only late, or whose batches still come: the first of many to be
    /// silent is not to be called dead before the others are.
    pub(super) fn of<'a>(hosts: impl Iterator<Item = &'a Host>, now: Timestamp) -> Waves {
        let (mut faded_at, mut heard) = (Vec::new(), 0);
        for host in hosts {
            match host.faded_at(now) {
                Some(at) => faded_at.push(at),
                None => heard += usize::from(host.goodbye.is_none()),
            }
        }
        faded_at.sort_unstable();
        Waves { faded_at, many: if heard > 1 { MANY_HOSTS } else { MANY_HOSTS_OF_FEW } }
    }

    /// Whether many hosts fell silent close to `at`. O(log n).
    fn many_at(&self, at: Timestamp) -> bool {
        let before = self.faded_at.partition_point(|other| *other < at - AT_ONCE_MS);
        let behind = self.faded_at.partition_point(|other| *other <= at + AT_ONCE_MS);
        behind - before >= self.many
    }
}
