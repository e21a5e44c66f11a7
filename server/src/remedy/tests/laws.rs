//! What must never happen, line by line of DESIGN section 6 as far as remedy can break it.

use super::*;
use crate::remedy::fleet::Duty;

/// Lets the alert fire for two minutes and tells how the run ended, or that it waits.
fn tell(sim: &mut Sim, instance: &str) -> String {
    sim.fire(instance, true);
    sim.pass(120);
    let view = crate::remedy::view::RunView::from(sim.run());
    format!("{}: {}", view.state, view.reason)
}

/// 2: no order without a journal entry before it, beyond what the host allows, or late.
#[test]
fn every_order_was_in_the_journal_before_it_left() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(60);
    let kinds: Vec<&str> = sim.journal.lines().filter_map(|line| line.split(':').next()).collect();
    let at = |word: &str| kinds.iter().position(|kind| *kind == word).unwrap();
    assert!(at("ordered 0") < at("handed_out 0") && at("ordered 1") < at("handed_out 1"));
}

#[test]
fn what_the_host_does_not_allow_is_not_ordered() {
    let mut sim = Sim::new(DRAIN);
    sim.allowed.retain(|action| action != "haproxy.set_weight");
    sim.pass(20);
    assert_eq!(
        tell(&mut sim, "web1"),
        "refused: agent lb does not allow haproxy.set_weight; allow it in that host's own config"
    );
    assert!(sim.delivered.is_empty());
}

#[test]
fn a_late_order_never_leaves() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    // Ordered, but nobody pulls.
    sim.now += SECOND;
    let alert = sim.firing[0].clone();
    sim.step(Event::AlertFiring { alert: Box::new(alert), silenced: false });
    sim.judge();
    assert!(sim.journal.contains("ordered 0"), "{}", sim.journal);
    sim.now += 61 * SECOND;
    sim.pull("lb");
    assert!(sim.delivered.is_empty());
    sim.pass(30);
    assert_eq!((sim.outcome(), sim.delivered.len()), (Some(Outcome::Stopped), 0));
    assert_eq!(sim.reason(), "step 0 (haproxy.set_weight): agent lb did not ask for it in time");
}

/// 3: foreign guests.
#[test]
fn foreign_guests_forbid_an_evacuation() {
    let mut sim = Sim::new(EVACUATE);
    sim.hosts[0].guests[1].owner = Owner::Foreign { reason: "pacemaker resource vm-b".to_owned() };
    sim.pass(20);
    assert_eq!(
        tell(&mut sim, "h1"),
        "refused: host h1 has foreign guests that Petrel must not touch: b (pacemaker resource vm-b)"
    );
}

/// 4: budgets, precursors, obstacles, N+1.
#[test]
fn a_probability_alone_moves_nothing() {
    let mut sim = Sim::new(&EVACUATE.replace(", precursor: true", ""));
    assert_eq!(
        tell(&mut sim, "h1"),
        "waiting: a probability alone never moves guests: no guard is marked `precursor: true`"
    );
    assert!(sim.delivered.is_empty());
    // The same on a measured alert acts.
    let mut sim = Sim::new(&EVACUATE.replace(", precursor: true", ""));
    sim.fire("h1", false);
    sim.pass(120);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
}

#[test]
fn an_unknown_failure_domain_forbids_auto() {
    let mut sim = Sim::new(EVACUATE);
    sim.engine.replace_facts(Facts::default());
    assert_eq!(tell(&mut sim, "h1"), "waiting: the failure domain of h1 is unknown: name it in fleet.yaml");
}

#[test]
fn one_automatic_evacuation_a_day_and_one_host_of_a_cluster_at_a_time() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(200);
    sim.step(Event::Duty { host: "h1".to_owned(), duty: Duty::Active, by: "kim".to_owned() });
    let refused = "refused: 1 automatic evacuations were done within a day, the most that are allowed";
    assert_eq!(tell(&mut sim, "h2"), refused);
    sim.now += 24 * 3600 * SECOND;
    sim.pass(200);
    assert_eq!(sim.outcome(), Some(Outcome::Done), "{}", sim.reason());
    // Two that people approve do not run together either.
    let mut sim = Sim::new(&EVACUATE.replace("auto", "approve"));
    sim.hosts[1].guests.push(guest("c", 1));
    sim.pass(10);
    sim.fire("h1", true);
    sim.fire("h2", true);
    sim.pass(20);
    sim.say(1, Word::Approve);
    sim.say(2, Word::Approve);
    sim.pass(15);
    assert!(
        sim.journal.contains("waiting 0: run 1 is already evacuating a host of the same cluster, h1"),
        "{}",
        sim.journal
    );
}

#[test]
fn obstacles_and_a_cluster_without_room_refuse() {
    let mut sim = Sim::new(EVACUATE);
    sim.hosts[0].guests[0].obstacles.push("local disk vda".to_owned());
    sim.pass(20);
    assert!(tell(&mut sim, "h1").contains("cannot be moved live: a (local disk vda)"));
    let mut sim = Sim::new(EVACUATE);
    sim.hosts[1].guests.push(guest("c", 12));
    sim.hosts[2].guests.push(guest("d", 10));
    sim.pass(20);
    assert!(tell(&mut sim, "h1").contains("the loss of"), "{}", sim.reason());
}

#[test]
fn the_last_server_of_a_backend_stays() {
    let mut sim = Sim::new(&DRAIN.replace("weight: 10}", "weight: 0}"));
    sim.servers[1].status = "DOWN".to_owned();
    sim.pass(20);
    assert_eq!(tell(&mut sim, "web1"), "refused: web1 is the last server of backend web that takes sessions");
    assert!(sim.delivered.is_empty());
}

/// 6: blind, stale, too little history (that one is judged in `judge`).
#[test]
fn a_stale_inventory_or_silent_agents_refuse() {
    let mut sim = Sim::new(DRAIN);
    sim.mute.insert("lb".to_owned());
    sim.pass(40);
    assert!(tell(&mut sim, "web1").starts_with("refused: 1 of 4 agents are silent at once"), "{}", sim.reason());
    assert!(sim.delivered.is_empty());
    let mut sim = Sim::new(DRAIN);
    sim.mute.insert("h1".to_owned());
    sim.pass(29);
    sim.fire("web1", true);
    sim.pass(300);
    // A run in progress waits for a while, then stops.
    assert_eq!(sim.outcome(), Some(Outcome::Stopped));
    assert!(sim.journal.contains("waiting 1: 1 of 4 agents are silent at once"), "{}", sim.journal);
    assert_eq!(sim.delivered.len(), 1);
}

#[test]
fn nothing_leaves_before_all_agents_were_heard_after_a_start() {
    let mut sim = Sim::new(DRAIN);
    sim.restart();
    sim.fire("web1", true);
    sim.pass(20);
    assert!(sim.delivered.is_empty());
    assert!(sim.reason().contains("has just started") || sim.reason().contains("no inventory"), "{}", sim.reason());
    sim.pass(120);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
}

/// 7: what carries Petrel.
#[test]
fn what_carries_petrel_is_not_touched() {
    let mut sim = Sim::new(EVACUATE);
    sim.hosts[0].carries_petrel = true;
    sim.pass(20);
    assert!(tell(&mut sim, "h1").contains("carries Petrel itself"));
}

/// 8: operators' words.
#[test]
fn a_hold_takes_pending_orders_back_and_a_release_goes_on() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(1);
    sim.hold(true);
    let left = sim.delivered.len();
    sim.pass(400);
    assert_eq!(sim.delivered.len(), left);
    sim.restart();
    sim.pass(60);
    assert_eq!(sim.delivered.len(), left, "a hold outlives a restart");
    sim.hold(false);
    sim.pass(120);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
}

#[test]
fn an_order_that_was_not_pulled_is_taken_back_by_a_hold_or_a_duty() {
    for by_duty in [false, true] {
        let mut sim = Sim::new(DRAIN);
        sim.mute.insert("lb".to_owned());
        sim.fire("web1", true);
        sim.pass(2);
        assert!(sim.journal.contains("ordered 0"), "{}", sim.journal);
        if by_duty {
            sim.step(Event::Duty { host: "web1".to_owned(), duty: Duty::Maintenance, by: "kim".to_owned() });
        } else {
            sim.hold(true);
        }
        sim.mute.clear();
        sim.pull("lb");
        sim.pass(60);
        assert!(sim.delivered.is_empty());
        assert!(sim.journal.contains("withdrawn 0: not handed out"), "{}", sim.journal);
    }
}

#[test]
fn duties_silences_and_cooldowns_stop_new_runs() {
    let mut sim = Sim::new(DRAIN);
    sim.step(Event::Duty { host: "web1".to_owned(), duty: Duty::Maintenance, by: "kim".to_owned() });
    assert_eq!(
        tell(&mut sim, "web1"),
        "refused: host web1 is maintenance (by kim); only operators lift that: `petrel hosts duty web1 active`"
    );

    let mut sim = Sim::new(DRAIN);
    let silenced = Event::AlertFiring { alert: Box::new(alert("web1", true, sim.now)), silenced: true };
    sim.step(silenced);
    sim.pass(60);
    assert_eq!(sim.engine.runs().count(), 0);

    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(60);
    sim.resolve();
    sim.pass(60);
    assert_eq!(tell(&mut sim, "web1"), "refused: the runbook acted on host:web1 less than its cooldown ago, in run 1");
    sim.pass(600);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
}

/// An agent cannot answer for another, nor for an epoch that is over.
#[test]
fn answers_from_elsewhere_are_not_followed() {
    let mut sim = Sim::new(DRAIN);
    sim.answers.insert("haproxy.set_weight".to_owned(), OrderOutcome::Started);
    sim.fire("web1", true);
    sim.pass(2);
    let answer = |epoch| OrderAnswer {
        key: OrderKey { run: 1, step: 0 },
        fencing_epoch: epoch,
        at: 0,
        outcome: OrderOutcome::Done,
        command: String::new(),
        before: Map::new(),
    };
    for (agent, epoch) in [("h1", 1), ("lb", 2)] {
        let effects = sim.step(Event::Answer { agent: agent.to_owned(), answer: answer(epoch) });
        assert!(super::super::service::rejection(&effects).is_some() && effects.len() == 1);
    }
    sim.pass(400);
    assert_eq!(sim.reason(), "step 0 (haproxy.set_weight): no answer came in time, and how it ended is unknown");
}

/// 6: what an earlier process heard of is missed, not forgotten.
#[test]
fn a_restart_does_not_hide_that_most_of_the_fleet_is_silent() {
    let mut sim = Sim::new(DRAIN);
    sim.restart();
    sim.mute.extend(["h1", "h2", "h3"].map(str::to_owned));
    sim.pass(60);
    assert_eq!(
        tell(&mut sim, "web1"),
        "refused: 3 of 4 agents are silent at once: suspecting our own sight, not the hosts"
    );
    assert!(sim.delivered.is_empty());
}

/// 8: a duty of the target forbids the migration up to the moment at which it is pulled, and so does `never_move`.
#[test]
fn a_word_on_the_target_or_the_guest_stops_what_was_ordered() {
    let stay = "domains: [{name: r1, hosts: [h1]}, {name: r2, hosts: [h2, h3]}]\nnever_move: [a]";
    for by_duty in [true, false] {
        let mut sim = Sim::new(EVACUATE);
        sim.mute.insert("h1".to_owned());
        sim.fire("h1", true);
        sim.pass(2);
        assert!(sim.journal.contains("ordered 0"), "{}", sim.journal);
        if by_duty {
            let host = sim.run().legs[0].migration.clone().unwrap().to;
            sim.step(Event::Duty { host, duty: Duty::Maintenance, by: "kim".to_owned() });
        } else {
            sim.engine.replace_facts(Facts::parse(std::path::Path::new("fleet.yaml"), stay).unwrap());
        }
        sim.mute.clear();
        sim.pull("h1");
        sim.pass(60);
        assert!(sim.delivered.is_empty(), "{}", sim.journal);
    }
}

/// 4: an evacuation that is ordered counts before its order is pulled.
#[test]
fn an_older_run_waits_for_a_younger_one_that_is_ordered() {
    let mut sim = Sim::new(&EVACUATE.replace("auto", "approve"));
    sim.hosts[1].guests = vec![guest("c", 1)];
    sim.pass(20);
    for host in ["h1", "h2"] {
        sim.fire(host, true);
        sim.pass(2);
    }
    sim.mute.insert("h2".to_owned());
    for run in [2, 1] {
        assert_eq!(sim.say(run, Word::Approve), None);
        sim.pass(1);
    }
    assert_eq!(sim.delivered, [], "{}", sim.journal);
    assert!(sim.journal.contains("run 2 is already evacuating a host of the same cluster"), "{}", sim.journal);
}

/// 8: what is told of an order after its run was aborted ends nothing twice, and blocks its host only while it may be at work.
#[test]
fn an_aborted_run_stays_aborted_and_frees_its_host() {
    for ends in [OrderOutcome::Done, OrderOutcome::Failed { reason: "broken off".to_owned() }, OrderOutcome::Started] {
        let mut sim = Sim::new(&EVACUATE.replace("auto", "approve"));
        sim.answers.insert("libvirt.migrate".to_owned(), OrderOutcome::Started);
        sim.fire("h1", true);
        sim.pass(2);
        sim.say(1, Word::Approve);
        sim.pass(2);
        assert_eq!((sim.delivered.len(), sim.say(1, Word::Abort)), (1, None));
        let reason = sim.reason();
        let answer = OrderAnswer {
            key: sim.delivered[0],
            fencing_epoch: 1,
            at: sim.now,
            outcome: ends,
            command: String::new(),
            before: Map::new(),
        };
        sim.step(Event::Answer { agent: "h1".to_owned(), answer });
        assert_eq!((sim.outcome(), sim.reason()), (Some(Outcome::Stopped), reason));
        assert_eq!(sim.journal.matches("ended: ").count(), 1, "{}", sim.journal);
        sim.answers.clear();
        sim.resolve();
        sim.step(Event::Duty { host: "h1".to_owned(), duty: Duty::Active, by: "kim".to_owned() });
        sim.pass(2 * 3600);
        sim.fire("h1", true);
        sim.pass(2);
        assert_eq!(sim.say(2, Word::Approve), None, "{}", sim.reason());
        sim.pass(120);
        assert_eq!(sim.outcome(), Some(Outcome::Done), "{}", sim.reason());
    }
}

/// 4 and 10: runs that did nothing give way first; the one that counts for the day's budget stays.
#[test]
fn what_acted_is_remembered_longer_than_what_did_not() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(120);
    let acted = sim.run().clone();
    assert_eq!(acted.outcome(), Some(Outcome::Done));
    let mut memory = Memory { fencing_epoch: 1, ..Memory::default() };
    for id in 2..=super::super::engine::RUNS_MAX as u64 + 1 {
        let state = super::super::run::State::Ended { outcome: Outcome::Shadowed, reason: String::new() };
        memory.runs.push(Run { id, legs: Vec::new(), evacuates: None, state, ..acted.clone() });
    }
    memory.runs.push(acted);
    let mut engine = Engine::new(sim.settings.clone(), sim.facts.clone(), memory, sim.now);
    engine.step(Event::Tick, sim.now);
    assert_eq!(engine.runs().next().map(|run| run.id), Some(1));
    assert!(engine.runs().all(|run| run.id != 2));
}

/// The same over a restart.
#[test]
fn a_start_takes_up_what_acted() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(120);
    let acted = sim.run().clone();
    let mut disk = rusqlite::Connection::open_in_memory().unwrap();
    for (_, statements) in super::super::journal::MIGRATIONS {
        disk.execute_batch(statements).unwrap();
    }
    let tx = disk.transaction().unwrap();
    super::super::journal::keep(&tx, &sim.disk.concat()).unwrap();
    for id in 2..=super::super::engine::RUNS_MAX as u64 + 1 {
        let state = super::super::run::State::Ended { outcome: Outcome::Shadowed, reason: String::new() };
        let run = Run { id, legs: Vec::new(), evacuates: None, state, ..acted.clone() };
        super::super::journal::keep(&tx, &[Effect::RunChanged(Box::new(run))]).unwrap();
    }
    tx.commit().unwrap();
    let memory = super::super::journal::load(&disk).unwrap();
    assert!(memory.runs.iter().any(|run| run.id == 1));
    assert_eq!(memory.heard.keys().collect::<Vec<_>>(), ["h1", "h2", "h3", "lb"]);
}

/// 2 and 6: a clock that is set back makes no order young and no inventory fresh.
#[test]
fn a_clock_set_back_hides_no_age() {
    let mut sim = Sim::new(DRAIN);
    sim.pass(7200);
    sim.mute.insert("lb".to_owned());
    sim.fire("web1", true);
    sim.pass(2);
    assert!(sim.journal.contains("ordered 0"), "{}", sim.journal);
    sim.now -= 3_600_000;
    sim.mute.clear();
    sim.pull("lb");
    assert!(sim.delivered.is_empty(), "{}", sim.journal);

    let mut sim = Sim::new(DRAIN);
    sim.pass(7200);
    sim.now -= 3_600_000;
    sim.mute.insert("lb".to_owned());
    sim.pass(60);
    assert!(tell(&mut sim, "web1").contains("1 of 4 agents are silent"), "{}", sim.reason());
    assert!(sim.delivered.is_empty());
}

/// An agent tells of itself: it can neither draw another host's guests nor vouch for it.
#[test]
fn an_agent_does_not_speak_for_another_host() {
    let mut sim = Sim::new(EVACUATE);
    let inventory = Inventory {
        agent: "a-liar".to_owned(),
        seen_at: sim.now,
        hypervisors: vec![hypervisor("h2", Vec::new())],
        ..Inventory::default()
    };
    let effects = sim.step(Event::Inventory(Box::new(inventory)));
    assert!(super::super::service::rejection(&effects).is_some());
    assert_eq!(sim.engine.fleet().agent_of("h2"), Some("h2"));
}

/// 8: what an operator changed at the balancer since is not overwritten: the driver is told what the run left there.
#[test]
fn an_undo_expects_what_the_run_left() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(60);
    sim.resolve();
    sim.pass(60);
    assert_eq!(sim.outcome(), Some(Outcome::Undone));
    let expected: Vec<Value> = sim.run().legs.iter().map(|leg| Value::Object(leg.expect.clone())).collect();
    assert_eq!(expected, [json!({}), json!({}), json!({"state": "drain"}), json!({"weight": 10})]);
}
