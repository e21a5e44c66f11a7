//! All collectors of this host, each with its own account of cost, success and errors. Those that read kernel text run one
//! after the other with the round; the others run beside it (`apart`).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::apart::{Apart, Look};
use super::{CollectConfig, CollectError, Collector, Family, Kind, Pace, cluster, guests, hardware, kernel, network};
use super::{storage, system};

/// What a round waits at most for readings that were started with it: most children answer within.
const PATIENCE: Duration = Duration::from_millis(100);
/// What is not there is looked for again so often.
const ABSENT_EVERY: Duration = Duration::from_secs(60);

/// Rounds after which each collector has answered once; then what does not apply is told, in one line.
const FIRST_ROUNDS: u32 = 3;

/// Every collector that the config leaves in.
pub struct Collectors {
    members: Vec<Member>,
    /// Rounds so far, up to [`FIRST_ROUNDS`].
    rounds: u32,
    /// Those that run apart are not read.
    slow_rest: bool,
}

struct Member {
    seat: Seat,
    account: Account,
    /// When a source that is not there was last looked for.
    absent_at: Option<Instant>,
}

enum Seat {
    WithRound(Box<dyn Collector>),
    Apart(Apart),
}

/// What is told of a collector.
struct Account {
    name: &'static str,
    errors: u64,
    /// The last error was logged already; one line per outage, not one per interval.
    told: bool,
    is_absent: bool,
    /// These are the first rounds: an absent source is told with all others.
    is_first: bool,
}

/// The families that tell of the collectors themselves.
struct Costs {
    duration: Family,
    success: Family,
    errors: Family,
}

impl Collectors {
    /// Makes the collectors. Opens nothing yet.
    pub fn new(config: &CollectConfig) -> Collectors {
        let wanted = every(config).into_iter().filter(|collector| config.wants(collector.as_ref()));
        Collectors { members: wanted.map(Member::new).collect(), rounds: 0, slow_rest: false }
    }

    /// Whether collectors that run apart rest from now on: what they said last ends, as it would be old.
    pub fn rest_slow(&mut self, rest: bool) {
        self.slow_rest = rest;
    }

    /// Collects from all sources. Blocks for a few milliseconds, a tenth of a second when children are slow, and for about
    /// two seconds at most when a mount hangs.
    pub fn collect(&mut self) -> Vec<Family> {
        self.collect_within(PATIENCE)
    }

    /// The same, waiting longer for what is slow.
    pub(super) fn collect_within(&mut self, patience: Duration) -> Vec<Family> {
        let now = Instant::now();
        for member in &mut self.members {
            let absent = member.absent_at.map(|_| ABSENT_EVERY);
            match &mut member.seat {
                Seat::Apart(apart) if self.slow_rest => apart.rest(),
                Seat::Apart(apart) => apart.start(now, absent),
                Seat::WithRound(_) => {}
            }
        }
        let mut families = Vec::with_capacity(256);
        let mut costs = Costs::new();
        let until = now + patience;
        for member in &mut self.members {
            member.collect(now, until, &mut families, &mut costs);
        }
        if self.rounds < FIRST_ROUNDS {
            self.rounds += 1;
            if self.rounds == FIRST_ROUNDS {
                self.tell_absent();
            }
        }
        // A text file may name what a collector has already, which runs before it: the first has it.
        let mut names = HashSet::with_capacity(families.len());
        families.retain(|family| !family.points.is_empty() && names.insert(family.name.clone()));
        families.extend([costs.duration, costs.success, costs.errors]);
        families
    }

    fn tell_absent(&mut self) {
        let accounts = self.members.iter_mut().map(|member| &mut member.account);
        let absent = accounts.filter_map(|account| {
            account.is_first = false;
            account.is_absent.then_some(account.name)
        });
        let absent = absent.collect::<Vec<_>>().join(", ");
        tracing::info!(absent, "what this host does not have is looked for again each minute");
    }
}

/// All collectors that there are, also those that are off by default, in the order in which they run.
fn every(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let folders = [
        kernel::all(config),
        network::all(config),
        storage::all(config),
        hardware::all(config),
        guests::all(config),
        cluster::all(config),
        // Last, as text files are read with it.
        system::all(config),
    ];
    folders.into_iter().flatten().collect()
}

/// The names of all collectors.
pub(super) fn names(config: &CollectConfig) -> Vec<&'static str> {
    every(config).iter().map(|collector| collector.name()).collect()
}

impl Member {
    fn new(collector: Box<dyn Collector>) -> Member {
        let account = Account { name: collector.name(), errors: 0, told: false, is_absent: false, is_first: true };
        let seat = match collector.pace() {
            Pace::WithRound => Seat::WithRound(collector),
            Pace::Apart { every, within } => Seat::Apart(Apart::new(collector, every, within)),
        };
        Member { seat, account, absent_at: None }
    }

    fn collect(&mut self, now: Instant, until: Instant, families: &mut Vec<Family>, costs: &mut Costs) {
        match &mut self.seat {
            Seat::WithRound(collector) => {
                let rests = |at: Instant| now.saturating_duration_since(at) < ABSENT_EVERY;
                if self.absent_at.is_some_and(rests) {
                    return;
                }
                let begin = Instant::now();
                let outcome = collector.collect(families);
                let took = begin.elapsed();
                self.absent_at = matches!(outcome, Err(CollectError::Absent { .. })).then_some(now);
                self.account.settle(outcome);
                if self.absent_at.is_none() {
                    costs.push(&self.account, took);
                }
            }
            Seat::Apart(apart) => match apart.look(now, until) {
                Look::Fresh(reading) => {
                    families.extend(reading.families.iter().cloned());
                    let outcome = std::mem::replace(&mut reading.outcome, Ok(()));
                    self.absent_at = matches!(outcome, Err(CollectError::Absent { .. })).then_some(now);
                    self.account.settle(outcome);
                    if self.absent_at.is_none() {
                        costs.push(&self.account, reading.took);
                    }
                }
                Look::Same(reading) if self.absent_at.is_none() => {
                    families.extend(reading.families.iter().cloned());
                    costs.push(&self.account, reading.took);
                }
                Look::Same(_) | Look::Waiting => {}
                Look::Late(runs) => {
                    if !self.account.told {
                        self.account.settle(Err(CollectError::Late { seconds: runs.as_secs() }));
                    }
                    costs.push(&self.account, runs);
                }
                Look::Lost => {
                    if !self.account.told {
                        self.account.settle(Err(CollectError::Lost));
                    }
                    costs.push(&self.account, Duration::ZERO);
                }
            },
        }
    }
}

impl Account {
    fn settle(&mut self, outcome: Result<(), CollectError>) {
        let collector = self.name;
        match outcome {
            Ok(()) => {
                if self.told {
                    tracing::info!(collector, "the collector works again");
                } else if self.is_absent {
                    tracing::info!(collector, "its source is there now");
                }
                (self.told, self.is_absent) = (false, false);
            }
            // An absent source is no error: hosts differ.
            Err(CollectError::Absent { path }) => {
                self.told = false;
                let is_news = !self.is_absent && !self.is_first;
                self.is_absent = true;
                if is_news {
                    tracing::info!(collector, looked_for = %path.display(), "its source is gone");
                } else {
                    tracing::debug!(collector, looked_for = %path.display(), "does not apply to this host");
                }
            }
            Err(error) => {
                self.errors += 1;
                if !self.told {
                    self.told = true;
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(collector, %error, cause, "the collector failed; its series are missing");
                }
            }
        }
    }
}

impl Costs {
    fn new() -> Costs {
        Costs {
            duration: Family::new(
                Kind::Gauge,
                "petrel_collector_duration_seconds",
                "Time the collector took for the last collection.",
            ),
            success: Family::new(
                Kind::Gauge,
                "petrel_collector_success",
                "Whether the collector's last collection succeeded.",
            ),
            errors: Family::new(
                Kind::Counter,
                "petrel_collector_errors_total",
                "Collections of the collector that failed.",
            ),
        }
    }

    fn push(&mut self, account: &Account, took: Duration) {
        let labels = [("collector", account.name)];
        self.duration.push(&labels, took.as_secs_f64());
        self.success.push(&labels, f64::from(u8::from(!account.told)));
        self.errors.push(&labels, account.errors as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The contract of [`Collector`], for every implementation, on a live kernel, a made-up one and none.
    #[test]
    fn every_collector_keeps_the_contract() {
        let made_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/collect");
        for tree in [Path::new("/"), &made_up, Path::new("/nonexistent")] {
            let config = CollectConfig::at(&tree.join("proc"), &tree.join("sys"));
            for mut collector in every(&config) {
                let name = collector.name();
                let mut rounds = [Vec::new(), Vec::new()];
                let outcomes = rounds.each_mut().map(|round| collector.collect(round).is_ok());
                assert_eq!(outcomes[0], outcomes[1], "{name} on {tree:?}");
                for families in &rounds {
                    let names: Vec<_> = families.iter().map(|family| &family.name).collect();
                    assert!(names.iter().enumerate().all(|(place, name)| !names[..place].contains(name)), "{names:?}");
                    for family in families {
                        let mut labels: Vec<_> = family.points.iter().map(|point| &point.labels).collect();
                        labels.sort();
                        labels.dedup();
                        assert_eq!(labels.len(), family.points.len(), "{} has a label set twice", family.name);
                    }
                }
                let order = |round: &[Family]| round.iter().map(|family| family.name.clone()).collect::<Vec<_>>();
                assert_eq!(order(&rounds[0]), order(&rounds[1]), "{name} on {tree:?}");
            }
        }
    }

    /// What is not there has no series, no success and no error; what breaks has all three.
    #[test]
    fn an_absent_source_is_silent_and_a_broken_one_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("loadavg"), "no numbers").unwrap();
        let mut collectors = Collectors::new(&CollectConfig::at(folder.path(), Path::new("/nonexistent/sys")));
        let text = super::super::text::render(&collectors.collect());
        let of = |name: &str, collector: &str| {
            let series = format!("petrel_collector_{name}{{collector=\"{collector}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
        };
        assert_eq!(of("success", "cpu"), None);
        assert_eq!(of("success", "uname").as_deref(), Some("1"));
        assert_eq!(of("success", "loadavg").as_deref(), Some("0"));
        assert_eq!(of("errors_total", "loadavg").as_deref(), Some("1"));
    }

    #[test]
    fn a_text_file_does_not_say_anew_what_a_collector_says() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.prom"), "node_load1 99\nmine 1\n").unwrap();
        let mut config = CollectConfig::at(Path::new("/proc"), Path::new("/sys"));
        config.textfile = Some(folder.path().to_owned());
        let text = super::super::text::render(&Collectors::new(&config).collect());
        assert!(text.contains("\nmine 1\n") && !text.contains("node_load1 99"), "{text}");
        assert_eq!(text.matches("# TYPE node_load1 ").count(), 1);
    }

    #[test]
    fn names_are_unique_and_left_out_collectors_stay_silent() {
        let config = CollectConfig::at(Path::new("/proc"), Path::new("/sys")).leaving_out("uname");
        let families = Collectors::new(&config).collect();
        let mut names: Vec<&str> = families.iter().map(|family| family.name.as_ref()).collect();
        assert!(names.contains(&"node_load1") && !names.contains(&"node_uname_info"), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
