//! The life of runs, told by their journals.

use expect_test::expect;

use super::*;

fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from));
    text.replace(from, to)
}

#[test]
fn auto_drains_verifies_and_undoes_when_resolved() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Done), "web1 DRAIN 10 web2 UP 100"));
    sim.resolve();
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Undone), "web1 UP 100 web2 UP 100"));
    expect![[r"
        planned: drain for host:web1 because of DiskWillFill
        0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        1: haproxy.drain backend=web server=web1 on lb
        ordered 0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        handed_out 0: handed out to lb, to be started within 60 s
        answered 0: started
        answered 0: done
        verified 0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        ordered 1: haproxy.drain backend=web server=web1 on lb
        handed_out 1: handed out to lb, to be started within 60 s
        answered 1: started
        answered 1: done
        verified 1: haproxy.drain backend=web server=web1 on lb
        ended: done: every step was done and verified
        undoing: the alert is resolved
        ordered 2: undo step 1: haproxy.drain backend=web server=web1 on lb
        handed_out 2: handed out to lb, to be started within 59 s
        answered 2: started
        answered 2: done
        verified 2: undo step 1: haproxy.drain backend=web server=web1 on lb
        ordered 3: undo step 0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        handed_out 3: handed out to lb, to be started within 60 s
        answered 3: started
        answered 3: done
        verified 3: undo step 0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        ended: undone: the alert is resolved
    "]]
    .assert_eq(&sim.journal);
}

#[test]
fn shadow_records_and_does_nothing() {
    let mut sim = Sim::new(&with(DRAIN, "mode: auto", "mode: shadow"));
    sim.fire("web1", true);
    sim.pass(120);
    assert!(sim.delivered.is_empty());
    expect![[r"
        planned: drain for host:web1 because of DiskWillFill
        0: haproxy.set_weight backend=web server=web1 weight=10 on lb
        1: haproxy.drain backend=web server=web1 on lb
        would_have 0: would have done haproxy.set_weight backend=web server=web1 weight=10 on lb
        would_have 1: would have done haproxy.drain backend=web server=web1 on lb
        ended: shadowed: shadow mode: nothing was done
    "]]
    .assert_eq(&sim.journal);
}

#[test]
fn a_person_approves_denies_or_says_nothing() {
    let text = with(DRAIN, "mode: auto", "mode: approve");
    let mut sim = Sim::new(&text);
    sim.fire("web1", false);
    sim.pass(20);
    assert!(sim.delivered.is_empty());
    assert_eq!(sim.say(1, Word::Approve), None);
    sim.pass(60);
    assert_eq!(sim.outcome(), Some(Outcome::Done));
    assert_eq!(sim.say(1, Word::Approve).unwrap(), "run 1 does not wait for approval");
    assert_eq!(sim.say(9, Word::Abort).unwrap(), "there is no run 9, or it ended long ago");

    let mut sim = Sim::new(&text);
    sim.fire("web1", false);
    sim.pass(20);
    sim.say(1, Word::Deny);
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.reason().as_str()), (Some(Outcome::Denied), "denied by kim"));

    let mut sim = Sim::new(&text);
    sim.fire("web1", false);
    sim.pass(3700);
    assert_eq!((sim.outcome(), sim.reason().as_str()), (Some(Outcome::Expired), "nobody approved in time"));
    assert!(sim.delivered.is_empty() && sim.engine.runs().count() == 1, "one run per episode");
}

#[test]
fn an_abort_in_the_middle_is_the_last_word() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(5);
    assert_eq!(sim.delivered.len(), 1);
    sim.say(1, Word::Abort);
    sim.resolve();
    sim.pass(600);
    assert_eq!((sim.outcome(), sim.delivered.len()), (Some(Outcome::Stopped), 1));
    assert_eq!(sim.reason(), "aborted by kim");
    assert_eq!(sim.say(1, Word::Abort).unwrap(), "run 1 is over already");
}

#[test]
fn a_failed_step_stops_or_undoes() {
    let failed = OrderOutcome::Failed { reason: "no such server".to_owned() };
    let mut sim = Sim::new(DRAIN);
    sim.answers.insert("haproxy.drain".to_owned(), failed.clone());
    sim.fire("web1", true);
    sim.pass(90);
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Stopped), "web1 UP 10 web2 UP 100"));
    assert_eq!(sim.reason(), "step 1 (haproxy.drain): no such server");

    let mut sim = Sim::new(&with(DRAIN, "mode: auto", "mode: auto\non_failure: undo"));
    sim.answers.insert("haproxy.drain".to_owned(), failed);
    sim.fire("web1", true);
    sim.pass(90);
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Undone), "web1 UP 100 web2 UP 100"));
}

#[test]
fn what_is_not_proven_in_time_has_failed() {
    let mut sim = Sim::new(&with(DRAIN, "mode: auto", "mode: auto\non_failure: undo"));
    sim.untrue.push("sessions".to_owned());
    sim.fire("web1", true);
    sim.pass(120);
    // The drain was done, so it is undone too, last first.
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Undone), "web1 UP 100 web2 UP 100"));
    assert!(sim.reason().contains("not verified in time: `sessions"), "{}", sim.reason());
    let undone: Vec<u32> = sim.applied.iter().map(|(key, _)| key.step).collect();
    assert_eq!(undone, [0, 1, 2, 3]);
}

#[test]
fn an_unknown_end_stops_and_undoes_nothing() {
    let mut sim = Sim::new(&with(DRAIN, "mode: auto", "mode: auto\non_failure: undo"));
    sim.answers.insert("haproxy.drain".to_owned(), OrderOutcome::Unknown { reason: "crashed".to_owned() });
    sim.fire("web1", true);
    sim.pass(120);
    assert_eq!((sim.outcome(), sim.balancer().as_str()), (Some(Outcome::Stopped), "web1 UP 10 web2 UP 100"));
}

#[test]
fn a_guard_that_no_longer_holds_stops_before_the_next_step() {
    let mut sim = Sim::new(DRAIN);
    sim.fire("web1", true);
    sim.pass(3);
    sim.untrue.push("free".to_owned());
    sim.pass(60);
    assert_eq!((sim.outcome(), sim.delivered.len()), (Some(Outcome::Stopped), 1));
    assert_eq!(sim.reason(), "step 1 (haproxy.drain): there is room");
}

#[test]
fn a_refused_plan_is_tried_again_and_told_once() {
    let mut sim = Sim::new(DRAIN);
    sim.untrue.push("free".to_owned());
    sim.fire("web1", true);
    sim.pass(300);
    assert_eq!((sim.outcome(), sim.reason().as_str()), (Some(Outcome::Refused), "there is room"));
    assert_eq!(sim.journal.matches("refused: there is room").count(), 1, "{}", sim.journal);
    sim.untrue.clear();
    sim.pass(90);
    assert_eq!((sim.outcome(), sim.engine.runs().count()), (Some(Outcome::Done), 1));
}
