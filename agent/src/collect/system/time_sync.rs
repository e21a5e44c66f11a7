//! Whether and how well the host's clock follows a reference: asked of the daemon that keeps it, chrony, ntpd or systemd's
//! timesyncd, whichever runs. It only asks, and never sets anything.

use std::path::Path;
use std::time::Duration;

use super::time_sync_answers::{Kept, chrony, ntpd, timesyncd};
use crate::collect::asked::{ask, present, refused};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};
use crate::command::Said;

/// Time synchronisation.
pub(super) struct TimeSync {
    /// Daemons are asked of the system that the agent runs in: with another root they would be the wrong ones.
    is_own_root: bool,
}

/// A question to a daemon: its name, program, arguments, what must be there for it to be worth asking, and how to read the
/// answer.
type Question = (&'static str, &'static str, &'static [&'static str], &'static str, fn(&str) -> Option<Kept>);

/// Asked in this order until one answers.
const QUESTIONS: [Question; 3] = [
    ("chrony", "chronyc", &["-n", "-c", "tracking"], "/", chrony),
    ("ntpd", "ntpq", &["-n", "-c", "rv 0"], "/", ntpd),
    ("timesyncd", "timedatectl", &["timesync-status", "--no-pager"], "/run/systemd/system", timesyncd),
];
const EVERY: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(5);

const SYNCHRONIZED: Column =
    gauge("petrel_time_sync_synchronized", "Whether the host's clock follows a reference (1 = yes, 0 = no).");
const OFFSET: Column = gauge(
    "petrel_time_sync_offset_seconds",
    "Seconds by which the host's clock is ahead of its reference; negative when it is behind.",
);
const STRATUM: Column = gauge("petrel_time_sync_stratum", "Hops from the host to a reference clock; 16 means none.");
const ERROR_MAX: Column = gauge(
    "petrel_time_sync_error_seconds_max",
    "The most by which the reference itself can be wrong: half the delay to the reference clock, and its dispersion.",
);
const FREQUENCY: Column =
    gauge("petrel_time_sync_frequency_ppm", "How much the clock would gain without correction, in millionths.");
const REFERENCE: Column =
    gauge("petrel_time_sync_reference_timestamp_seconds", "When the reference was last heard, since 1970.");
const INFO: Column = gauge("petrel_time_sync_info", "Who keeps the clock and by which reference; always 1.");

impl TimeSync {
    pub(super) fn new(roots: &Roots) -> TimeSync {
        TimeSync { is_own_root: roots.rootfs.as_os_str() == "/" }
    }
}

impl Collector for TimeSync {
    fn name(&self) -> &'static str {
        "time_sync"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN * 4 }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut unasked = CollectError::Absent { path: "chronyc".into() };
        if !self.is_own_root {
            return Err(unasked);
        }
        for (daemon, program, arguments, needed, read) in QUESTIONS {
            if present(Path::new(needed)).is_err() {
                continue;
            }
            let said = match ask(program, arguments, WITHIN) {
                Ok(said) => said,
                Err(CollectError::Absent { .. }) => continue,
                Err(error) => return Err(error),
            };
            // A program whose daemon does not run says so; another may run.
            if let Some(kept) = understood(&said, read) {
                families.extend(told(daemon, &kept));
                return Ok(());
            }
            unasked = refused(program, arguments, &said);
        }
        Err(unasked)
    }
}

fn understood(said: &Said, read: fn(&str) -> Option<Kept>) -> Option<Kept> {
    if said.well() { read(&said.out) } else { None }
}

fn told(daemon: &str, kept: &Kept) -> Vec<Family> {
    let optional = |column: Column, value: Option<f64>| {
        let family = column.family();
        value.filter(|value| value.is_finite()).map(|value| family.with(value))
    };
    let mut info = INFO.family();
    info.push(&[("daemon", daemon), ("reference", &kept.reference)], 1.0);
    [
        Some(SYNCHRONIZED.family().with(f64::from(u8::from(kept.synchronized)))),
        optional(OFFSET, kept.ahead_seconds),
        optional(STRATUM, kept.stratum),
        optional(ERROR_MAX, kept.error_seconds_max),
        optional(FREQUENCY, kept.frequency_ppm),
        optional(REFERENCE, kept.reference_seconds),
        Some(info),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::{text, trial};

    #[test]
    fn what_is_known_is_told() {
        let kept = chrony(include_str!("../../../testdata/chrony/tracking.csv")).unwrap();
        expect![[r#"
            petrel_time_sync_synchronized 1
            petrel_time_sync_offset_seconds 0.000001274
            petrel_time_sync_stratum 9
            petrel_time_sync_error_seconds_max 0.000004805
            petrel_time_sync_frequency_ppm 0.002
            petrel_time_sync_reference_timestamp_seconds 1795390189.677857
            petrel_time_sync_info{daemon="chrony",reference="127.0.0.1"} 1
        "#]]
        .assert_eq(&trial::series(&text::render(&told("chrony", &kept))));
        let nothing = Kept { reference: String::new(), ..Kept::default() };
        expect![[r#"
            petrel_time_sync_synchronized 0
            petrel_time_sync_info{daemon="timesyncd",reference=""} 1
        "#]]
        .assert_eq(&trial::series(&text::render(&told("timesyncd", &nothing))));
    }

    #[test]
    fn programs_that_fail_are_not_believed() {
        let said = Said { code: Some(1), out: "506 Cannot talk to daemon\n".to_owned(), words: String::new() };
        assert_eq!(understood(&said, chrony), None);
    }
}
