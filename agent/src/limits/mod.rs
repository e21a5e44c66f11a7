//! What the agent allows itself of its own host. `governor` decides from what was used; here that is measured, told, and handed to
//! those that can do less. It never stops heartbeats, orders or the delivery of what is spooled.

mod config;
mod governor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

pub use self::config::{CheckLimitsError, LimitsConfig, RawLimitsConfig};
pub use self::governor::{Change, Governor, Level, Over, Usage};
use crate::collect::{Family, Kind};
use crate::telemetry;

/// Length of a window: long enough for the 10 ms grain of the kernel's account to be 0.1 % of a core.
const WINDOW: Duration = Duration::from_secs(15);
/// However far the agent gives way, a round is made this often: the server expects one a minute.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Pause between two rounds of log lines, times the factor, while the agent gives way. Lines wait in their own files.
const LOG_PAUSE: Duration = Duration::from_millis(100);

/// How far the agent gives way now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    factor: AtomicU32,
    lines_as_counts: AtomicBool,
    slow_sources_rest: AtomicBool,
    over_cpu: AtomicU64,
    over_memory: AtomicU64,
    rounds_left_out: AtomicU64,
    lines_left_out: AtomicU64,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            factor: AtomicU32::new(1),
            lines_as_counts: AtomicBool::new(false),
            slow_sources_rest: AtomicBool::new(false),
            over_cpu: AtomicU64::new(0),
            over_memory: AtomicU64::new(0),
            rounds_left_out: AtomicU64::new(0),
            lines_left_out: AtomicU64::new(0),
        }
    }
}

impl Limits {
    /// Rounds between two collections at this interval, 1 when nothing is left out.
    pub fn rounds(&self, interval: Duration) -> u32 {
        let most = INTERVAL_MAX.as_millis() / interval.as_millis().max(1);
        self.0.factor.load(Ordering::Relaxed).min(u32::try_from(most).unwrap_or(u32::MAX)).max(1)
    }

    /// Whether collectors that ask child processes or sockets rest.
    pub fn slow_sources_rest(&self) -> bool {
        self.0.slow_sources_rest.load(Ordering::Relaxed)
    }

    /// Whether log lines below «error» only count.
    pub fn lines_as_counts(&self) -> bool {
        self.0.lines_as_counts.load(Ordering::Relaxed)
    }

    /// Pause before the next round of log lines.
    pub fn log_pause(&self) -> Duration {
        LOG_PAUSE * (self.0.factor.load(Ordering::Relaxed) - 1)
    }

    /// A round of samples was left out.
    pub fn left_out_round(&self) {
        self.0.rounds_left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Log lines were counted only.
    pub fn left_out_lines(&self, lines: usize) {
        self.0.lines_left_out.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// What is told of all this.
    pub fn families(&self) -> Vec<Family> {
        let shared = &self.0;
        let factor = f64::from(shared.factor.load(Ordering::Relaxed));
        let mut limited = Family::new(
            Kind::Counter,
            "petrel_agent_limited_total",
            "What the agent gave way to (windows of 15 s over a ceiling), and what it left out therefore.",
        );
        for (what, count) in [
            ("cpu", &shared.over_cpu),
            ("memory", &shared.over_memory),
            ("rounds", &shared.rounds_left_out),
            ("log_lines", &shared.lines_left_out),
        ] {
            limited.push(&[("what", what)], count.load(Ordering::Relaxed) as f64);
        }
        let rate =
            Family::new(Kind::Gauge, "petrel_agent_rate_factor", "The agent collects this much rarer than configured.");
        vec![rate.with(factor), limited]
    }

    fn set(&self, level: Level) {
        self.0.factor.store(level.rate_factor(), Ordering::Relaxed);
        self.0.lines_as_counts.store(level.lines_as_counts(), Ordering::Relaxed);
        self.0.slow_sources_rest.store(level.slow_sources_rest(), Ordering::Relaxed);
    }

    /// Measures and decides, window after window. Returns, with the memory used, only when the agent has to end; never where
    /// there is no limit.
    pub async fn govern(&self, config: Option<LimitsConfig>) -> u64 {
        let Some(config) = config else { return std::future::pending().await };
        let mut governor = Governor::new(config);
        let mut ticks = interval(WINDOW);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = (Instant::now(), telemetry::cpu_seconds_used());
        loop {
            ticks.tick().await;
            let now = (Instant::now(), telemetry::cpu_seconds_used());
            let seconds = (now.0 - before.0).as_secs_f64();
            let used = now.1.zip(before.1).map_or(0.0, |(now, before)| (now - before).max(0.0));
            before = now;
            let usage =
                Usage { cpu_share: used / seconds, memory_bytes: telemetry::resident_bytes_used().unwrap_or(0) };
            if usage.cpu_share > config.cpu_share {
                self.0.over_cpu.fetch_add(1, Ordering::Relaxed);
            }
            if usage.memory_bytes > config.memory_bytes {
                self.0.over_memory.fetch_add(1, Ordering::Relaxed);
            }
            let (cpu_percent, memory_bytes) = ((usage.cpu_share * 1_000.0).round() / 10.0, usage.memory_bytes);
            match governor.step(usage) {
                Change::None => {}
                Change::Less(level, over) => {
                    self.set(level);
                    let factor = level.rate_factor();
                    warn!(?over, cpu_percent, memory_bytes, factor, "the agent is over its limits and does less");
                }
                Change::More(level) => {
                    self.set(level);
                    info!(cpu_percent, memory_bytes, factor = level.rate_factor(), "the agent does more again");
                }
                Change::End => {
                    error!(
                        memory_bytes,
                        memory_limit = config.memory_bytes,
                        "memory is at twice its limit; the agent ends"
                    );
                    return memory_bytes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::text;

    #[test]
    fn what_is_left_out_follows_the_level_and_is_told() {
        let limits = Limits::default();
        let seconds = Duration::from_secs;
        assert_eq!((limits.rounds(seconds(10)), limits.log_pause()), (1, Duration::ZERO));
        limits.set(Level::Least);
        assert_eq!((limits.rounds(seconds(1)), limits.rounds(seconds(10)), limits.rounds(seconds(60))), (8, 6, 1));
        assert!(limits.lines_as_counts() && limits.slow_sources_rest() && limits.log_pause() > Duration::ZERO);
        limits.set(Level::Half);
        assert!(!limits.lines_as_counts() && !limits.slow_sources_rest());
        limits.left_out_round();
        limits.left_out_lines(3);
        expect_test::expect![[r#"
            # HELP petrel_agent_rate_factor The agent collects this much rarer than configured.
            # TYPE petrel_agent_rate_factor gauge
            petrel_agent_rate_factor 2
            # HELP petrel_agent_limited_total What the agent gave way to (windows of 15 s over a ceiling), and what it left out therefore.
            # TYPE petrel_agent_limited_total counter
            petrel_agent_limited_total{what="cpu"} 0
            petrel_agent_limited_total{what="memory"} 0
            petrel_agent_limited_total{what="rounds"} 1
            petrel_agent_limited_total{what="log_lines"} 3
        "#]].assert_eq(&text::render(&limits.families()));
    }
}
