//! Evacuations: one migration after the other, each checked again, each proven by both ends.

use super::*;

#[test]
fn a_host_is_emptied_one_guest_at_a_time_and_stays_quarantined() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(120);
    assert_eq!((sim.outcome(), sim.guests().as_str()), (Some(Outcome::Done), "h1: h2:b h3:a"));
    assert_eq!(sim.engine.fleet().duty("h1").unwrap().by, "run 1");
    assert!(sim.journal.contains("h1 is quarantined until an operator lifts it"));
    // Guests that moved stay.
    sim.resolve();
    sim.pass(120);
    assert_eq!(sim.guests(), "h1: h2:b h3:a");
}

#[test]
fn a_failed_migration_leaves_its_guest_and_stops() {
    let mut sim = Sim::new(EVACUATE);
    let reason = "destination refused the connection".to_owned();
    sim.answers.insert("libvirt.migrate".to_owned(), OrderOutcome::Failed { reason });
    sim.fire("h1", true);
    sim.pass(120);
    assert_eq!((sim.outcome(), sim.guests().as_str()), (Some(Outcome::Stopped), "h1:a,b h2: h3:"));
    assert_eq!(sim.delivered.len(), 1);
}

#[test]
fn shadow_says_what_would_move() {
    let mut sim = Sim::new(&EVACUATE.replace("auto", "shadow"));
    sim.fire("h1", true);
    sim.pass(120);
    assert_eq!((sim.outcome(), sim.guests().as_str()), (Some(Outcome::Shadowed), "h1:a,b h2: h3:"));
    assert!(
        sim.journal.contains("would have done libvirt.migrate b bandwidth_mib_s=40 destination_host=h2"),
        "{}",
        sim.journal
    );
}

#[test]
fn a_shadow_does_not_stand_in_the_way_of_the_real_thing() {
    let mut sim = Sim::new(&EVACUATE.replace("auto", "shadow"));
    sim.fire("h1", true);
    sim.pass(120);
    sim.runbooks = EVACUATE.to_owned();
    sim.take_runbooks();
    sim.pass(120);
    assert_eq!((sim.outcome(), sim.guests().as_str()), (Some(Outcome::Done), "h1: h2:b h3:a"), "{}", sim.journal);
    assert_eq!((sim.engine.runs().count(), sim.delivered.len()), (2, 2));
}

#[test]
fn a_target_that_fills_up_in_between_stops_the_rest() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(2);
    assert_eq!(sim.delivered.len(), 1);
    // Somebody else starts a large guest there: the second move would break N+1.
    sim.hosts[2].guests.push(guest("big", 13));
    sim.pass(200);
    assert_eq!((sim.outcome(), sim.delivered.len()), (Some(Outcome::Stopped), 1));
    assert!(sim.reason().contains("fits on no other host") || sim.reason().contains("N+1"), "{}", sim.reason());
}

#[test]
fn a_guest_seen_on_both_ends_is_not_verified() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    sim.pass(2);
    let ghost = sim.hosts[1].guests[0].clone();
    sim.hosts[0].guests.push(ghost);
    sim.pass(200);
    assert_eq!((sim.outcome(), sim.delivered.len()), (Some(Outcome::Stopped), 1));
    assert!(sim.reason().contains("guest b is still seen running on h1"), "{}", sim.reason());
}

#[test]
fn a_target_not_heard_of_after_a_restart_is_waited_for() {
    let mut sim = Sim::new(EVACUATE);
    sim.fire("h1", true);
    while sim.delivered.is_empty() {
        sim.pass(1);
    }
    sim.mute.insert("h3".to_owned());
    sim.restart();
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.delivered.len()), (None, 1), "{}", sim.journal);
    sim.mute.clear();
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.guests().as_str()), (Some(Outcome::Done), "h1: h2:b h3:a"), "{}", sim.journal);
}
