//! From what the agent takes of its host to how much it may do: a pure machine over windows of time. It gives way a step at a time and
//! comes back later than it went, so that it does not swing; only memory at twice its ceiling, in two windows in a row, ends the agent.

use super::config::LimitsConfig;

/// Windows in a row above a ceiling before another step is taken: one alone may be a start or a burst.
const WINDOWS_OVER: u32 = 2;
/// Windows in a row well below both ceilings before a step is taken back: five minutes of them.
const WINDOWS_BELOW: u32 = 20;
/// Well below: a step back doubles the work at most, which must not be over again.
const WELL_BELOW: f64 = 0.4;
/// Memory does not double with the rates, and what was once allocated is given back late.
const MEMORY_WELL_BELOW: f64 = 0.85;
/// Multiple of the memory ceiling at which nothing but a restart helps.
const MEMORY_END: u64 = 2;

/// What the agent took in one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Processor time of the agent and of its ended children, as a share of one core.
    pub cpu_share: f64,
    /// Resident memory now.
    pub memory_bytes: u64,
}

/// How far the agent gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Not at all.
    #[default]
    Full,
    /// Half the rate.
    Half,
    /// A quarter of the rate, and log lines below «error» as counts only.
    Quarter,
    /// An eighth of the rate, and what asks child processes or sockets rests.
    Least,
}

/// Why the agent gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
}

/// What follows from a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Go on as before.
    None,
    /// Do less from now on.
    Less(Level, Over),
    /// Do more from now on.
    More(Level),
    /// Memory is far beyond its ceiling: end, and be started anew.
    End,
}

/// The machine.
#[derive(Debug)]
pub struct Governor {
    limits: LimitsConfig,
    level: Level,
    over: u32,
    below: u32,
    beyond: u32,
}

impl Level {
    /// Collections are this much rarer, and pauses between them this much longer.
    pub fn rate_factor(self) -> u32 {
        match self {
            Level::Full => 1,
            Level::Half => 2,
            Level::Quarter => 4,
            Level::Least => 8,
        }
    }

    /// Whether log lines below «error» only count.
    pub fn lines_as_counts(self) -> bool {
        self >= Level::Quarter
    }

    /// Whether collectors that ask child processes or sockets rest.
    pub fn slow_sources_rest(self) -> bool {
        self >= Level::Least
    }

    fn less(self) -> Level {
        match self {
            Level::Full => Level::Half,
            Level::Half => Level::Quarter,
            Level::Quarter | Level::Least => Level::Least,
        }
    }

    fn more(self) -> Level {
        match self {
            Level::Full | Level::Half => Level::Full,
            Level::Quarter => Level::Half,
            Level::Least => Level::Quarter,
        }
    }
}

impl Governor {
    /// Gives way to nothing yet.
    pub fn new(limits: LimitsConfig) -> Governor {
        Governor { limits, level: Level::Full, over: 0, below: 0, beyond: 0 }
    }

    /// Takes one window. O(1).
    pub fn step(&mut self, usage: Usage) -> Change {
        let LimitsConfig { cpu_share, memory_bytes } = self.limits;
        let is_beyond = usage.memory_bytes >= memory_bytes.saturating_mul(MEMORY_END);
        self.beyond = if is_beyond { self.beyond + 1 } else { 0 };
        if self.beyond >= WINDOWS_OVER {
            return Change::End;
        }
        let over = if usage.memory_bytes > memory_bytes {
            Some(Over::Memory)
        } else {
            (usage.cpu_share > cpu_share).then_some(Over::Cpu)
        };
        let is_well_below = usage.cpu_share < cpu_share * WELL_BELOW
            && (usage.memory_bytes as f64) < memory_bytes as f64 * MEMORY_WELL_BELOW;
        self.over = if over.is_some() { self.over + 1 } else { 0 };
        self.below = if is_well_below { self.below + 1 } else { 0 };
        match over {
            Some(over) if self.over >= WINDOWS_OVER && self.level < Level::Least => {
                self.over = 0;
                self.level = self.level.less();
                Change::Less(self.level, over)
            }
            None if self.below >= WINDOWS_BELOW && self.level > Level::Full => {
                self.below = 0;
                self.level = self.level.more();
                Change::More(self.level)
            }
            _ => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: LimitsConfig = LimitsConfig { cpu_share: 0.1, memory_bytes: 100 };

    fn usage(cpu_share: f64, memory_bytes: u64) -> Usage {
        Usage { cpu_share, memory_bytes }
    }

    /// The changes that a run of windows brings, with their numbers.
    fn run(governor: &mut Governor, windows: u32, usage: Usage) -> String {
        let changes = (1..=windows).filter_map(|window| match governor.step(usage) {
            Change::None => None,
            change => Some(format!("{window}: {change:?}")),
        });
        changes.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn it_gives_way_in_steps_and_comes_back_late() {
        let mut governor = Governor::new(LIMITS);
        assert_eq!(run(&mut governor, 100, usage(0.1, 100)), "", "at the ceiling is not above it");
        assert_eq!(run(&mut governor, 1, usage(5.0, 1)), "", "a burst of one window");
        assert_eq!(run(&mut governor, 1, usage(0.05, 1)), "");
        let steps = "2: Less(Half, Cpu); 4: Less(Quarter, Cpu); 6: Less(Least, Cpu)";
        assert_eq!(run(&mut governor, 10, usage(0.11, 1)), steps);
        assert_eq!(run(&mut governor, 100, usage(0.05, 1)), "", "not far enough below");
        assert_eq!(run(&mut governor, 19, usage(0.03, 1)), "");
        assert_eq!(run(&mut governor, 1, usage(0.05, 1)), "", "well below has to last");
        let back = "20: More(Quarter); 40: More(Half); 60: More(Full)";
        assert_eq!(run(&mut governor, 100, usage(0.03, 1)), back);
    }

    #[test]
    fn memory_counts_too_and_ends_the_agent_at_twice_its_ceiling() {
        let mut governor = Governor::new(LIMITS);
        assert_eq!(run(&mut governor, 3, usage(0.01, 101)), "2: Less(Half, Memory)");
        assert_eq!(run(&mut governor, 60, usage(0.01, 90)), "", "memory is given back late");
        assert_eq!(run(&mut governor, 20, usage(0.01, 80)), "20: More(Full)");
        assert_eq!(governor.step(usage(0.0, 200)), Change::None, "one window may be a burst");
        assert_eq!(governor.step(usage(0.0, 199)), Change::Less(Level::Half, Over::Memory));
        assert_eq!(run(&mut governor, 2, usage(0.0, 200)), "2: End");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A host on which the agent's work costs any share, halved at every step: it settles and does not swing.
        #[test]
        fn it_does_not_swing(full in 0.0f64..1.0) {
            let (mut governor, mut level, mut changes) = (Governor::new(LIMITS), Level::Full, 0);
            for _ in 0..2_000 {
                let share = full / f64::from(level.rate_factor());
                if let Change::Less(next, _) | Change::More(next) = governor.step(usage(share, 1)) {
                    (level, changes) = (next, changes + 1);
                }
            }
            prop_assert!(changes <= 3, "{changes} changes at {full}");
        }
    }
}
