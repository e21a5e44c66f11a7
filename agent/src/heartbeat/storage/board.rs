//! What the watch over one area has to tell, as metrics: whether the storage answers and how close it came to its time-out, which
//! slot is ours, and who else is alive there. What was read before a stall is not repeated: it says nothing about the time since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::StoragePath;
use super::sightings::Sightings;
use crate::collect::{Family, Kind};

/// The boards of all areas. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StorageBoards(Arc<[Mutex<Board>]>);

/// The board of one area.
#[derive(Debug)]
pub(super) struct Board {
    path: String,
    interval: Duration,
    timeout: Duration,
    begun: Instant,
    /// The last round went to its end, in time.
    pub(super) is_up: bool,
    pub(super) slot: Option<u16>,
    pub(super) sightings: Sightings,
    /// When the slots were read last.
    pub(super) looked_at: Option<Instant>,
    pub(super) unreadable: usize,
    pub(super) write_took: Option<Duration>,
    pub(super) counts: Counts,
    /// The child is asked since then.
    pub(super) asked_at: Option<Instant>,
    /// Longest answer since the last export.
    slowest: Duration,
    /// A child that hangs is not gone yet.
    pub(super) is_stuck: bool,
}

/// What only grows.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) writes: u64,
    pub(super) errors: u64,
    pub(super) stalls: u64,
    pub(super) collisions: u64,
}

impl StorageBoards {
    /// One board for each area.
    pub(super) fn new(paths: &[StoragePath], begun: Instant) -> StorageBoards {
        StorageBoards(paths.iter().map(|path| Mutex::new(Board::new(path, begun))).collect())
    }

    /// Looks at or changes the board of one area.
    pub(super) fn with<T>(&self, place: usize, body: impl FnOnce(&mut Board) -> T) -> T {
        body(&mut self.0[place].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that is to be told now; margins begin anew. Nothing where the config names no area.
    pub fn families(&self, now: Instant) -> Vec<Family> {
        let mut families = Families::default();
        for place in 0..self.0.len() {
            self.with(place, |board| board.tell(&mut families, now));
        }
        families.0
    }
}

impl Board {
    fn new(path: &StoragePath, begun: Instant) -> Board {
        Board {
            path: path.path.display().to_string(),
            interval: path.interval,
            timeout: path.timeout,
            begun,
            is_up: false,
            slot: None,
            sightings: Sightings::default(),
            looked_at: None,
            unreadable: 0,
            write_took: None,
            counts: Counts::default(),
            asked_at: None,
            slowest: Duration::ZERO,
            is_stuck: false,
        }
    }

    /// The time of this board's clock, which never goes back.
    pub(super) fn ms(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(i64::MAX)
    }

    /// The child answered.
    pub(super) fn answered(&mut self, took: Duration) {
        self.asked_at = None;
        self.slowest = self.slowest.max(took);
    }

    /// Share of the time-out that the slowest answer since the last call left over, 0 to 1.
    fn take_margin(&mut self, now: Instant) -> f64 {
        let pending = self.asked_at.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        let slowest = std::mem::take(&mut self.slowest).max(pending);
        if self.is_stuck {
            return 0.0;
        }
        (1.0 - slowest.as_secs_f64() / self.timeout.as_secs_f64()).max(0.0)
    }

    fn tell(&mut self, families: &mut Families, now: Instant) {
        let margin = self.take_margin(now);
        let (counts, path) = (&self.counts, self.path.as_str());
        let path = &[("path", path)][..];
        families.push(UP, path, f64::from(u8::from(self.is_up)));
        families.push(MARGIN, path, margin);
        families.push(STUCK, path, f64::from(u8::from(self.is_stuck)));
        families.push(UNREADABLE, path, self.unreadable as f64);
        let totals = [
            (WRITES, counts.writes),
            (ERRORS, counts.errors),
            (STALLS, counts.stalls),
            (COLLISIONS, counts.collisions),
        ];
        for (named, count) in totals {
            families.push(named, path, count as f64);
        }
        if let Some(slot) = self.slot {
            families.push(SLOT, path, f64::from(slot));
        }
        if let Some(took) = self.write_took {
            families.push(WRITE_SECONDS, path, took.as_secs_f64());
        }
        let is_fresh =
            self.looked_at.is_some_and(|at| now.saturating_duration_since(at) <= self.interval + self.timeout);
        if self.is_stuck || !is_fresh {
            return;
        }
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        for statement in self.sightings.statements(interval_ms, self.ms(now)) {
            let labels = [path[0], ("host", statement.host.as_str())];
            families.push(AGE, &labels, statement.age_ms as f64 / 1_000.0);
            families.push(ALIVE, &labels, f64::from(u8::from(statement.is_alive)));
        }
    }
}

/// Type, name and help of a family.
type Named = (Kind, &'static str, &'static str);

const UP: Named = (
    Kind::Gauge,
    "petrel_storage_heartbeat_up",
    "Whether the last round of storage heartbeats was read and written in time.",
);
const MARGIN: Named = (
    Kind::Gauge,
    "petrel_storage_heartbeat_margin",
    "Share of the time-out that the slowest read or write since the last collection left over, 0 to 1.",
);
const STUCK: Named = (
    Kind::Gauge,
    "petrel_storage_heartbeat_stuck_children",
    "Processes that hang on the storage and cannot be ended; no other is started meanwhile.",
);
const UNREADABLE: Named =
    (Kind::Gauge, "petrel_storage_heartbeat_unreadable_slots", "Slots that hold something that is no whole record.");
const WRITES: Named = (Kind::Counter, "petrel_storage_heartbeat_writes_total", "Records that the storage took.");
const ERRORS: Named = (
    Kind::Counter,
    "petrel_storage_heartbeat_errors_total",
    "Rounds that failed with an error, and slots that were refused.",
);
const STALLS: Named = (
    Kind::Counter,
    "petrel_storage_heartbeat_stalls_total",
    "Times that the storage did not answer within the time-out.",
);
const COLLISIONS: Named = (
    Kind::Counter,
    "petrel_storage_heartbeat_collisions_total",
    "Times that another wrote into the slot of this host.",
);
const SLOT: Named = (Kind::Gauge, "petrel_storage_heartbeat_slot", "The slot of this host.");
const WRITE_SECONDS: Named = (Kind::Gauge, "petrel_storage_heartbeat_write_seconds", "Time that the last write took.");
const AGE: Named = (
    Kind::Gauge,
    "petrel_storage_heartbeat_age_seconds",
    "Time since the record of another host was seen to change; at least that, where it was never seen to.",
);
const ALIVE: Named = (
    Kind::Gauge,
    "petrel_storage_heartbeat_alive",
    "Whether the record of another host changed within three of its intervals and one of ours.",
);

#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn push(&mut self, (kind, name, help): Named, labels: &[(&'static str, &str)], value: f64) {
        let found = self.0.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.0.push(Family::new(kind, name, help));
            self.0.len() - 1
        });
        self.0[found].push(labels, value);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::area::tests::record;
    use super::super::record::Slot;
    use super::*;
    use crate::collect::text;

    #[test]
    fn ages_stand_while_the_storage_answers_and_margins_begin_anew() {
        let begun = Instant::now();
        let seconds = |n| begun + Duration::from_secs(n);
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(10));
        let path = StoragePath { path: PathBuf::from("/shared/beats"), slot: None, interval, timeout };
        let boards = StorageBoards::new(&[path], begun);
        boards.with(0, |board| {
            board.is_up = true;
            board.slot = Some(3);
            board.answered(Duration::from_secs(4));
            board.write_took = Some(Duration::from_millis(20));
            board.counts.writes = 2;
            for number in [1, 2] {
                let slots = [(1, Slot::Record(record("web2", 1, number)))];
                board.sightings.look(&slots, "web1", i64::try_from(number).unwrap() * 5_000);
            }
            board.looked_at = Some(seconds(10));
        });
        let shown = |now| {
            let text = text::render(&boards.families(now));
            text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
        };
        expect_test::expect![[r#"
            petrel_storage_heartbeat_up{path="/shared/beats"} 1
            petrel_storage_heartbeat_margin{path="/shared/beats"} 0.6
            petrel_storage_heartbeat_stuck_children{path="/shared/beats"} 0
            petrel_storage_heartbeat_unreadable_slots{path="/shared/beats"} 0
            petrel_storage_heartbeat_writes_total{path="/shared/beats"} 2
            petrel_storage_heartbeat_errors_total{path="/shared/beats"} 0
            petrel_storage_heartbeat_stalls_total{path="/shared/beats"} 0
            petrel_storage_heartbeat_collisions_total{path="/shared/beats"} 0
            petrel_storage_heartbeat_slot{path="/shared/beats"} 3
            petrel_storage_heartbeat_write_seconds{path="/shared/beats"} 0.02
            petrel_storage_heartbeat_age_seconds{path="/shared/beats",host="web2"} 2
            petrel_storage_heartbeat_alive{path="/shared/beats",host="web2"} 1"#]]
        .assert_eq(&shown(seconds(12)));
        boards.with(0, |board| board.asked_at = Some(seconds(12)));
        let waiting = shown(seconds(18));
        assert!(waiting.contains("margin{path=\"/shared/beats\"} 0.4") && waiting.contains("age_seconds"), "{waiting}");
        boards.with(0, |board| board.is_stuck = true);
        let stuck = shown(seconds(18));
        assert!(stuck.contains("margin{path=\"/shared/beats\"} 0\n") && !stuck.contains("age_seconds"), "{stuck}");
        assert!(StorageBoards::default().families(begun).is_empty());
    }
}
