//! What was learnt of BMCs, as metrics. A power state is told only while it is fresh: an old «on» or «off» would be evidence of
//! something that may have changed since.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::Bmc;
use crate::collect::Family;
use crate::collect::Kind::{Counter, Gauge};
use crate::collect::columns::{Column, Columns};

const COLUMNS: [Column; 5] = [
    ("petrel_bmc_up", Gauge, "Whether the BMC of the host answered the last time."),
    ("petrel_bmc_power_on", Gauge, "Whether the host is switched on, as its BMC says; switched on is no sign of life."),
    ("petrel_bmc_answer_seconds", Gauge, "Time that the BMC took to tell the power state."),
    (
        "petrel_bmc_margin",
        Gauge,
        "Share of the time-out that the slowest answer since the last collection left over, 0 to 1.",
    ),
    ("petrel_bmc_errors_total", Counter, "Times that the BMC could not be asked or did not answer."),
];

/// How long sensors are repeated without a new reading.
const SENSORS_FRESH: Duration = Duration::from_secs(300);

/// The boards of all BMCs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BmcBoards(Arc<[Mutex<Board>]>);

/// The board of one BMC.
#[derive(Debug)]
pub(super) struct Board {
    host: String,
    timeout: Duration,
    /// How long a power state stands: two looks may be missed.
    fresh: Duration,
    /// The last answer: when, how it stands with the power, and how long it took. Nothing after a failure.
    answered: Option<(Instant, Option<bool>, Duration)>,
    slowest: Option<Duration>,
    errors: u64,
    /// Whether anything was tried so far.
    is_known: bool,
    sensors: Option<(Instant, Vec<Family>)>,
}

impl BmcBoards {
    pub(super) fn new(bmcs: &[Bmc]) -> BmcBoards {
        BmcBoards(bmcs.iter().map(|bmc| Mutex::new(Board::new(bmc))).collect())
    }

    pub(super) fn with<T>(&self, place: usize, body: impl FnOnce(&mut Board) -> T) -> T {
        body(&mut self.0[place].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that is to be told now; margins begin anew. Nothing where the config names no BMC.
    pub fn families(&self, now: Instant) -> Vec<Family> {
        let (mut columns, mut families) = (Columns::new(&COLUMNS), Vec::new());
        for place in 0..self.0.len() {
            self.with(place, |board| board.tell(&mut columns, &mut families, now));
        }
        let mut own = Vec::new();
        // At most 96 BMCs with five points.
        let _ = columns.append_to(&mut own);
        own.extend(families);
        own
    }
}

impl Board {
    fn new(bmc: &Bmc) -> Board {
        Board {
            host: bmc.host.clone(),
            timeout: bmc.timeout,
            fresh: bmc.interval * 2 + bmc.timeout * 5,
            answered: None,
            slowest: None,
            errors: 0,
            is_known: false,
            sensors: None,
        }
    }

    /// The BMC told the power state.
    pub(super) fn answered(&mut self, power_on: Option<bool>, took: Duration, now: Instant) {
        self.is_known = true;
        self.answered = Some((now, power_on, took));
        self.slowest = self.slowest.max(Some(took));
    }

    /// It told its sensors.
    pub(super) fn sensed(&mut self, families: Vec<Family>, now: Instant) {
        self.sensors = Some((now, families));
    }

    /// It did not answer.
    pub(super) fn failed(&mut self) {
        self.is_known = true;
        self.errors += 1;
        self.answered = None;
        self.slowest = Some(self.timeout);
    }

    /// Its sensors could not be read.
    pub(super) fn not_sensed(&mut self) {
        self.errors += 1;
    }

    fn tell(&mut self, columns: &mut Columns, families: &mut Vec<Family>, now: Instant) {
        if !self.is_known {
            return;
        }
        let of = [("host", self.host.as_str())];
        let answered = self.answered.filter(|(at, ..)| now.saturating_duration_since(*at) <= self.fresh);
        columns.flag("petrel_bmc_up", &of, answered.is_some());
        if let Some((_, power_on, took)) = answered {
            if let Some(power_on) = power_on {
                columns.flag("petrel_bmc_power_on", &of, power_on);
            }
            columns.push("petrel_bmc_answer_seconds", &of, took.as_secs_f64());
        }
        if let Some(slowest) = self.slowest.take() {
            columns.push("petrel_bmc_margin", &of, (1.0 - slowest.as_secs_f64() / self.timeout.as_secs_f64()).max(0.0));
        }
        columns.push("petrel_bmc_errors_total", &of, self.errors as f64);
        self.sensors = self.sensors.take().filter(|(at, _)| now.saturating_duration_since(*at) <= SENSORS_FRESH);
        families.extend(self.sensors.iter().flat_map(|(_, families)| families.iter().cloned()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{RawBmc, check};
    use super::*;
    use crate::collect::text;

    #[test]
    fn a_power_state_is_told_while_it_is_fresh() {
        let raw: Vec<RawBmc> =
            serde_saphyr::from_str("[{host: web2, ipmi: 192.0.2.1, user: u, password_file: /p}]").unwrap();
        let (boards, begun) = (BmcBoards::new(&check(raw).unwrap()), Instant::now());
        let shown = |seconds| {
            let text = text::render(&boards.families(begun + Duration::from_secs(seconds)));
            text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(shown(0), "", "nothing was asked so far");
        boards.with(0, |board| board.answered(Some(false), Duration::from_secs(2), begun));
        expect_test::expect![[r#"
            petrel_bmc_up{host="web2"} 1
            petrel_bmc_power_on{host="web2"} 0
            petrel_bmc_answer_seconds{host="web2"} 2
            petrel_bmc_margin{host="web2"} 0.8
            petrel_bmc_errors_total{host="web2"} 0"#]]
        .assert_eq(&shown(10));
        assert!(shown(110).contains("power_on") && !shown(111).contains("power_on"));
        assert!(shown(111).contains("petrel_bmc_up{host=\"web2\"} 0"));
        boards.with(0, |board| board.answered(None, Duration::ZERO, begun));
        assert!(!shown(1).contains("power_on"), "it is being switched");
        boards.with(0, Board::failed);
        assert!(shown(1).contains("petrel_bmc_margin{host=\"web2\"} 0\n"), "{}", shown(1));
    }
}
