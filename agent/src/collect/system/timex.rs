//! What the kernel says of the clock that it disciplines (adjtimex): offset, frequency, errors, status. With node_exporter's
//! names.
//!
//! Safe code has no call for it here, so a program that prints it is asked: Debian's `adjtimex`, or busybox, which most
//! distributions have in their boot image's tools. It is only ever asked to print; the same programs can set the clock.
//! Neither prints the kernel's figures of a pulse-per-second source, so `node_timex_pps_*` is not told.

use std::time::Duration;

use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};

use crate::collect::asked::{ask, refused};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace};

/// The kernel's clock discipline.
pub(super) struct Timex;

/// Asked in this order until one is there.
const PROGRAMS: [(&str, &[&str]); 2] = [("adjtimex", &["--print"]), ("busybox", &["adjtimex"])];
const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(5);

/// `STA_NANO`: the offset is in nanoseconds.
const STATUS_NANO: i64 = 0x2000;
/// `TIME_ERROR`: what the call returns while nothing keeps the clock.
const STATE_ERROR: i64 = 5;
/// The kernel's frequency is in 1/65,536 of a millionth.
const PARTS: f64 = 65_536.0 * 1e6;

const OFFSET: Column = gauge("node_timex_offset_seconds", "Time offset in between local system and reference clock.");
const FREQUENCY: Column = gauge("node_timex_frequency_adjustment_ratio", "Local clock frequency adjustment.");
const ERROR_MAX: Column = gauge("node_timex_maxerror_seconds", "Maximum error in seconds.");
const ERROR: Column = gauge("node_timex_estimated_error_seconds", "Estimated error in seconds.");
const STATUS: Column = gauge("node_timex_status", "Value of the status array bits.");
const CONSTANT: Column = gauge("node_timex_loop_time_constant", "Phase-locked loop time constant.");
const TICK: Column = gauge("node_timex_tick_seconds", "Seconds between clock ticks.");
const SYNC: Column = gauge("node_timex_sync_status", "Is clock synchronized to a reliable server (1 = yes, 0 = no).");
const TAI: Column = gauge("node_timex_tai_offset_seconds", "International Atomic Time (TAI) offset.");

/// What the kernel said, in its own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Discipline {
    offset: i64,
    frequency: i64,
    error_us_max: i64,
    error_us: i64,
    status: i64,
    constant: i64,
    tick_us: i64,
    state: i64,
}

impl Collector for Timex {
    fn name(&self) -> &'static str {
        "timex"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN * 3 }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut last = CollectError::Absent { path: PROGRAMS[0].0.into() };
        for (program, arguments) in PROGRAMS {
            let said = match ask(program, arguments, WITHIN) {
                Ok(said) => said,
                Err(CollectError::Absent { .. }) => continue,
                Err(error) => return Err(error),
            };
            // busybox ends with the clock's state, which is 5 while nothing keeps it.
            if let Some(discipline) = read(&said.out) {
                families.extend(told(&discipline));
                families.extend(tai_offset().map(|seconds| TAI.family().with(seconds)));
                return Ok(());
            }
            // A busybox that was built without it says so, and is as good as none.
            if program != "busybox" {
                last = refused(program, arguments, &said);
            }
        }
        Err(last)
    }
}

/// Seconds by which atomic time is ahead of the host's; both clocks are the kernel's, so what passes between the two calls is
/// rounded away (to 0, not to -0). `None` where the kernel has no such clock.
fn tai_offset() -> Option<f64> {
    let tai = clock_gettime_dynamic(DynamicClockId::Tai).ok()?;
    let wall = clock_gettime(ClockId::Realtime);
    let seconds = tai.tv_sec.saturating_sub(wall.tv_sec) as f64;
    Some((seconds + tai.tv_nsec.saturating_sub(wall.tv_nsec) as f64 / 1e9).round() + 0.0)
}

/// Lines of a key and a number, with a colon or an equals sign between them; busybox puts the option that would set the value
/// before the key.
fn read(out: &str) -> Option<Discipline> {
    let value = |keys: [&str; 2]| {
        out.lines().find_map(|line| {
            let (key, rest) = line.split_once([':', '='])?;
            let key = key.trim();
            let key = if key.starts_with('-') { key.split_once(' ')?.1.trim() } else { key };
            let number = rest.split_whitespace().next()?;
            if keys.contains(&key) { number.parse::<i64>().ok() } else { None }
        })
    };
    Some(Discipline {
        offset: value(["offset"; 2])?,
        frequency: value(["frequency", "freq.adjust"])?,
        error_us_max: value(["maxerror"; 2])?,
        error_us: value(["esterror"; 2])?,
        status: value(["status"; 2])?,
        constant: value(["time_constant", "timeconstant"])?,
        tick_us: value(["tick"; 2])?,
        state: value(["return value"; 2])?,
    })
}

fn told(kernel: &Discipline) -> [Family; 8] {
    let offset_unit = if kernel.status & STATUS_NANO == 0 { 1e6 } else { 1e9 };
    [
        OFFSET.family().with(kernel.offset as f64 / offset_unit),
        FREQUENCY.family().with(1.0 + kernel.frequency as f64 / PARTS),
        ERROR_MAX.family().with(kernel.error_us_max as f64 / 1e6),
        ERROR.family().with(kernel.error_us as f64 / 1e6),
        STATUS.family().with(kernel.status as f64),
        CONSTANT.family().with(kernel.constant as f64),
        TICK.family().with(kernel.tick_us as f64 / 1e6),
        SYNC.family().with(f64::from(u8::from(kernel.state != STATE_ERROR))),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const BUSYBOX: &str = include_str!("../../../testdata/timex/busybox.txt");
    // As the source of Debian's adjtimex 1.29 prints it; not recorded.
    const ADJTIMEX: &str = "         mode: 0\n       offset: -1537000\n    frequency: 6553600\n     maxerror: 500\n     esterror: 20\n       status: 8193\ntime_constant: 7\n    precision: 1\n    tolerance: 32768000\n         tick: 10001\n     raw time:  1790000000s 5us = 1790000000.000005\n return value = 0\n";

    #[test]
    fn two_programs() {
        let shown = |out: &str| trial::series(&text::render(&told(&read(out).unwrap())));
        expect![[r"
            node_timex_offset_seconds 0
            node_timex_frequency_adjustment_ratio 1
            node_timex_maxerror_seconds 16
            node_timex_estimated_error_seconds 16
            node_timex_status 64
            node_timex_loop_time_constant 2
            node_timex_tick_seconds 0.01
            node_timex_sync_status 0
        "]]
        .assert_eq(&shown(BUSYBOX));
        expect![[r"
            node_timex_offset_seconds -0.001537
            node_timex_frequency_adjustment_ratio 1.0001
            node_timex_maxerror_seconds 0.0005
            node_timex_estimated_error_seconds 0.00002
            node_timex_status 8193
            node_timex_loop_time_constant 7
            node_timex_tick_seconds 0.010001
            node_timex_sync_status 1
        "]]
        .assert_eq(&shown(ADJTIMEX));
        assert_eq!(read("adjtimex: applet not found\n"), None);
        assert!(tai_offset().is_none_or(|seconds| (0.0..100.0).contains(&seconds)), "{:?}", tai_offset());
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(one in trial::near(BUSYBOX), two in trial::near(ADJTIMEX)) {
            for bytes in [one, two] {
                let _ = read(&String::from_utf8_lossy(&bytes)).map(|kernel| told(&kernel));
            }
        }
    }
}
