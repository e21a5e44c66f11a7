//! Probes: health checks that this host's config asks for, and endpoints of Prometheus' kind that it scrapes. Each has a task,
//! an interval and a deadline of its own, so that none delays another, and the first run is at a time of its own. Results lie on a
//! board, where rounds fetch them. What is checked and scraped stands in the host's own file: no server can add anything.

mod certificate;
pub mod check;
pub mod config;
pub mod names;
mod noted;
pub mod outcome;
pub mod scrape;
pub mod secret;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod web;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::check::Checker;
use self::check::config::CheckConfig;
pub use self::config::ProbesConfig;
use self::names::Names;
use self::outcome::{Failure, Outcome};
use self::scrape::config::ScrapeConfig;
use self::scrape::{Reading, Scraper};
use crate::clock::Clock;
use crate::collect::{Family, Kind};

/// Readings of one target that wait for a round; rounds are more frequent than scrapes, so there is rarely more than one.
const READINGS_MAX: usize = 4;

/// What probes found, for rounds to fetch. Cheap to clone; empty unless started.
#[derive(Debug, Clone, Default)]
pub struct ProbeBoard {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    checks: Vec<(Arc<CheckConfig>, Option<Outcome>)>,
    readings: Vec<VecDeque<Reading>>,
    /// Readings that no round fetched in time.
    lost: u64,
    /// Samples whose series stood twice in one body.
    doubles: u64,
}

/// What all probes of one agent share.
#[derive(Clone)]
struct Shared {
    board: ProbeBoard,
    names: Names,
    clock: Clock,
    stop: CancellationToken,
}

/// Starts all probes on `tasks`; they end at `stop`.
pub fn start(
    config: ProbesConfig,
    clock: Clock,
    mut rng: StdRng,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> ProbeBoard {
    let shared = Shared { board: ProbeBoard::default(), names: Names::default(), clock, stop: stop.clone() };
    let board = shared.board.clone();
    for check in config.checks.into_iter().map(Arc::new) {
        let place = {
            let mut state = board.state();
            state.checks.push((Arc::clone(&check), None));
            state.checks.len() - 1
        };
        tasks.spawn(run_check(check, place, shared.clone(), StdRng::seed_from_u64(rng.r#gen())));
    }
    for target in config.targets {
        let place = {
            let mut state = board.state();
            state.readings.push(VecDeque::new());
            state.readings.len() - 1
        };
        let first = rng.gen_range(Duration::ZERO..target.interval);
        tasks.spawn(run_scrapes(target, place, shared.clone(), first));
    }
    board
}

impl ProbeBoard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the checks found in their last runs, and what the probes counted. Nothing where there are no probes.
    pub fn families(&self) -> Vec<Family> {
        let state = self.state();
        let done = state.checks.iter().filter_map(|(check, outcome)| {
            outcome.as_ref().map(|outcome| (check.name.as_str(), check.target.as_str(), outcome))
        });
        let mut families = outcome::families(&done.collect::<Vec<_>>());
        if !state.readings.is_empty() {
            let (lost, doubles) = (state.lost as f64, state.doubles as f64);
            let counter = |name: &'static str, help: &'static str| Family::new(Kind::Counter, name, help);
            families.push(
                counter("petrel_scrapes_lost_total", "Scrapes that were made and not sent, because no round came.")
                    .with(lost),
            );
            families.push(
                counter(
                    "petrel_scrape_duplicate_samples_total",
                    "Samples left out because their series stood twice in a body.",
                )
                .with(doubles),
            );
        }
        families
    }

    /// The readings of targets since the last time, oldest first for each target.
    pub fn take_readings(&self) -> Vec<Reading> {
        self.state().readings.iter_mut().flat_map(|waiting| waiting.drain(..)).collect()
    }

    fn put_reading(&self, place: usize, reading: Reading, doubles: u64) {
        let mut state = self.state();
        state.doubles += doubles;
        let waiting = &mut state.readings[place];
        waiting.push_back(reading);
        if waiting.len() > READINGS_MAX {
            waiting.pop_front();
            state.lost += 1;
        }
    }
}

async fn run_check(config: Arc<CheckConfig>, place: usize, shared: Shared, mut rng: StdRng) {
    let first = rng.gen_range(Duration::ZERO..config.interval);
    let mut checker = Checker::new(&config, shared.names.clone(), rng);
    let mut ticks = interval_at(Instant::now() + first, config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut is_told = false;
    loop {
        let outcome = tokio::select! {
            () = shared.stop.cancelled() => return,
            outcome = async { ticks.tick().await; checker.run().await } => outcome,
        };
        tell("check", &config.name, &config.target, outcome.failure.as_ref(), &mut is_told);
        shared.board.state().checks[place].1 = Some(outcome);
    }
}

async fn run_scrapes(config: ScrapeConfig, place: usize, shared: Shared, first: Duration) {
    let mut scraper = Scraper::new(&config, shared.names.clone());
    let mut ticks = interval_at(Instant::now() + first, config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let target = secret::shown(&config.web.url);
    let (job, instance): (Arc<str>, Arc<str>) = (config.job.as_str().into(), config.instance.as_str().into());
    let mut is_told = false;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let at = (shared.clock)();
        let scraped = tokio::select! {
            () = shared.stop.cancelled() => return,
            scraped = scraper.scrape() => scraped,
        };
        tell("scrape", &config.job, &target, scraped.failure.as_ref(), &mut is_told);
        let (job, instance, families) = (Arc::clone(&job), Arc::clone(&instance), Arc::new(scraped.families));
        let reading = Reading { target: Some(place), job, instance, at, families };
        shared.board.put_reading(place, reading, scraped.doubles);
    }
}

/// One line when something begins to fail, and one when it is well again.
fn tell(what: &'static str, name: &str, target: &str, failure: Option<&Failure>, is_told: &mut bool) {
    match failure {
        Some(Failure { reason, words }) if !*is_told => {
            warn!(name, target, reason = reason.as_str(), words, "{what} fails");
        }
        None if *is_told => info!(name, target, "{what} is well again"),
        _ => {}
    }
    *is_told = failure.is_some();
}
