//! The server dies at every position of the journal, before and after what the commit let out: no key leaves twice, no step is done
//! twice, and every run comes to an end that its journal explains.

use super::*;

fn story(runbook: &str, instance: &str, dies: Option<(usize, bool)>) -> Sim {
    let mut sim = Sim::new(runbook);
    let before = sim.disk.len();
    sim.dies = dies.map(|(commits, after)| (before + commits, after));
    sim.fire(instance, false);
    sim.pass(300);
    sim.resolve();
    // Longer than an answer to a migration is awaited.
    sim.pass(600);
    sim
}

fn kill_everywhere(runbook: &str, instance: &str) -> Vec<Option<Outcome>> {
    let whole = story(runbook, instance, None);
    let commits = whole.disk.len() - Sim::new(runbook).disk.len();
    assert!(commits > 8, "the story has {commits} commits");
    let mut outcomes = Vec::new();
    for position in 1..=commits {
        for after in [false, true] {
            let sim = story(runbook, instance, Some((position, after)));
            assert!(sim.dies.is_none(), "it died at {position}");
            let mut keys: Vec<OrderKey> = sim.applied.iter().map(|(key, _)| *key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), sim.applied.len(), "at {position}: a step was done twice\n{}", sim.journal);
            assert!(sim.engine.runs().all(Run::has_ended), "at {position} {after}: still going\n{}", sim.journal);
            let lost = sim.outcome() == Some(Outcome::Stopped);
            // Only an order that left into the void may stop the run: what became of it is unknown.
            assert!(!lost || !after, "at {position}: {}\n{}", sim.reason(), sim.journal);
            outcomes.push(sim.outcome());
        }
    }
    outcomes
}

#[test]
fn killed_anywhere_a_drain_ends_and_does_nothing_twice() {
    let outcomes = kill_everywhere(DRAIN, "web1");
    assert!(outcomes.contains(&Some(Outcome::Undone)) && outcomes.contains(&Some(Outcome::Stopped)));
}

#[test]
fn killed_anywhere_an_evacuation_ends_and_moves_no_guest_twice() {
    let outcomes = kill_everywhere(EVACUATE, "h1");
    assert!(outcomes.contains(&Some(Outcome::Done)) && outcomes.contains(&Some(Outcome::Stopped)));
}

#[test]
fn a_run_goes_on_over_a_restart() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(5);
    sim.restart();
    sim.pass(120);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
}
