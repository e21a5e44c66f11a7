//! When in doubt, not dead: silences that something else explains, witnesses that are none, and what must not hide a death either.

use super::*;

const FOUR: [(&str, bool, bool); 4] = [("a", true, true), ("b", true, true), ("c", true, true), ("d", true, true)];

/// A fleet that was heard for a minute, without loss.
fn settled(alive: &[(&str, bool, bool)]) -> Fleet {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(alive);
    }
    fleet.changes.clear();
    fleet
}

fn was_dead(fleet: &Fleet) -> bool {
    fleet.changes.iter().any(|(_, _, to)| *to == Verdict::Dead)
}

#[test]
fn who_was_not_asked_about_is_not_dead_and_an_old_answer_is_none() {
    let mut fleet = settled(&BOTH);
    fleet.said = None;
    for _ in 0..120 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Unknown);
    assert_eq!(fleet.book.verdict("a").unwrap().reasons.last(), Some(&Reason::NotAllHeard));
    // One answer stands for half a minute without another one, and not for ever.
    fleet.say("b", &[Says::AliveOnStorage]);
    fleet.second(&BOTH[1..]);
    assert_eq!(fleet.verdict("a"), Verdict::Isolated);
    fleet.said = None;
    for _ in 0..29 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Isolated);
    for _ in 0..3 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Unknown);
    assert!(!was_dead(&fleet));
}

#[test]
fn what_was_said_during_one_silence_is_no_news_in_the_next() {
    let mut fleet = settled(&BOTH);
    fleet.say("b", &[Says::AliveOnStorage]);
    for _ in 0..60 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Isolated);
    fleet.second(&BOTH);
    fleet.said = None;
    for _ in 0..10 {
        fleet.second(&BOTH[1..]);
    }
    assert!(!fleet.book.verdict("a").unwrap().reasons.contains(&Reason::AliveOnStorage));
}

#[test]
fn of_a_thousand_silent_hosts_each_is_asked_about_in_turn() {
    let mut book = VerdictBook::new();
    let name = |n: usize| format!("host{n:04}");
    for n in 0..1_000 {
        // Not at once, or it would be a wave.
        book.step(beat(&name(n), 0, false), n as Timestamp * 60_000);
        book.step(batch(&name(n)), n as Timestamp * 60_000);
    }
    let mut now = 1_000 * 60_000;
    let verdicts = |book: &VerdictBook| {
        let dead = book.snapshot().iter().filter(|host| host.verdict == Verdict::Dead).count();
        let unknown = book.snapshot().iter().filter(|host| host.verdict == Verdict::Unknown).count();
        (dead, unknown)
    };
    let mut rounds = Vec::new();
    for _ in 0..6 {
        now += 1_000;
        let asked = book.in_question(now);
        assert_eq!(asked.len(), QUESTIONS_MAX);
        for agent in asked {
            book.step(Event::Witnessed { agent, statements: Some(Vec::new()) }, now);
        }
        book.step(Event::Tick, now);
        rounds.push(verdicts(&book));
    }
    // The last of them fell silent a minute ago, so all are.
    assert_eq!(rounds, [(256, 744), (512, 488), (768, 232), (1_000, 0), (1_000, 0), (1_000, 0)]);
    // When nobody can be asked any more, what was said is forgotten.
    for _ in 0..32 {
        now += 1_000;
        book.step(Event::Tick, now);
    }
    assert_eq!(verdicts(&book), (0, 1_000));
}

#[test]
fn a_host_does_not_testify_about_itself_nor_do_strangers_or_the_silent() {
    for (by, says) in [("a", Says::PowerOff), ("stranger", Says::PowerOff), ("c", Says::PowerOff)] {
        let mut fleet = Fleet::new(0.0);
        // Only one path is known, so that silence alone is not enough.
        for _ in 0..60 {
            fleet.second(&[BOTH[1], FOUR[3]]);
            for host in ["a", "c"] {
                fleet.book.step(beat(host, 0, false), fleet.now);
            }
        }
        for _ in 0..60 {
            fleet.say(by, &[says]);
            fleet.second(&[BOTH[1], FOUR[3]]);
        }
        assert_eq!(fleet.verdict("a"), Verdict::Suspect, "{by}");
        fleet.say("b", &[says]);
        fleet.second(&[BOTH[1], FOUR[3]]);
        assert_eq!(fleet.verdict("a"), Verdict::Dead, "b is heard");
    }
}

#[test]
fn the_first_of_many_to_be_silent_is_not_called_dead_before_the_others_are() {
    let mut fleet = Fleet::new(0.0);
    // The batches of two come once a minute, so that their silence shows later.
    for second in 0..300 {
        fleet.second(&[("a", true, true), ("b", true, second % 60 == 0), ("c", true, second % 60 == 0), FOUR[3]]);
    }
    for _ in 0..300 {
        fleet.second(&FOUR[3..]);
    }
    assert!(!was_dead(&fleet), "{:?}", fleet.changes);
}

/// The server and a cluster of two: its own network card is gone, and only the agent beside it is heard.
#[test]
fn both_hosts_of_a_small_fleet_at_once_are_our_own_fault_too() {
    let mut fleet = settled(&FOUR[..3]);
    for _ in 0..120 {
        fleet.second(&FOUR[..1]);
    }
    assert_eq!((fleet.verdict("b"), fleet.verdict("c")), (Verdict::Unknown, Verdict::Unknown));
    assert!(!was_dead(&fleet));
    assert!(fleet.seconds_until("b", Verdict::Dead, &[FOUR[0], FOUR[2]]) <= 40);
}

#[test]
fn a_network_that_comes_back_bit_by_bit_makes_nobody_dead() {
    let mut fleet = settled(&FOUR);
    for _ in 0..60 {
        fleet.second(&FOUR[3..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Unknown);
    for _ in 0..20 {
        fleet.second(&FOUR[1..]);
    }
    assert!(!was_dead(&fleet));
    fleet.second(&FOUR);
    assert_eq!(fleet.verdict("a"), Verdict::Healthy);
}

#[test]
fn who_does_not_come_back_with_the_network_is_found() {
    let mut fleet = settled(&FOUR);
    for _ in 0..60 {
        fleet.second(&FOUR[3..]);
    }
    assert!(fleet.seconds_until("a", Verdict::Dead, &FOUR[1..]) <= 40);
}

#[test]
fn heartbeats_of_many_that_end_at_once_are_no_evidence_when_batches_end_too() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&FOUR);
    }
    // A firewall before the server: batches arrive, datagrams do not.
    let batches_of = |fleet: &mut Fleet, hosts: &[&str]| {
        fleet.second(&[]);
        if fleet.now / 1_000 % 10 == 0 {
            for host in hosts {
                fleet.book.step(batch(host), fleet.now);
            }
        }
    };
    for _ in 0..60 {
        batches_of(&mut fleet, &["a", "b", "c", "d"]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Isolated);
    for _ in 0..120 {
        batches_of(&mut fleet, &["b", "c", "d"]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Unknown, "what is left is one path");
    assert!(!was_dead(&fleet));
}

#[test]
fn a_host_that_was_just_heard_is_not_dead_before_its_batches_may_have_come() {
    let mut fleet = Fleet::new(0.0);
    // The server was restarted: heartbeats are there at once, batches are tried again later, and then both paths lose a few.
    for _ in 0..5 {
        fleet.second(&[("a", true, false), BOTH[1]]);
    }
    for _ in 0..20 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Unknown);
    assert_eq!(fleet.book.verdict("a").unwrap().reasons.last(), Some(&Reason::NotAllHeard));
    assert!(fleet.seconds_until("a", Verdict::Dead, &BOTH[1..]) <= 40, "but not for ever");
}

#[test]
fn a_beat_of_a_slower_path_does_not_take_a_goodbye_back() {
    let mut fleet = settled(&BOTH);
    let now = fleet.now;
    fleet.book.step(beat("a", 0, true), now);
    fleet.book.step(beat("a", 1, false), now + 200);
    // And the last batch, which waited for the book while the goodbye was taken in.
    fleet.book.step(batch("a"), now - 5);
    for _ in 0..120 {
        fleet.second(&BOTH[1..]);
    }
    assert_eq!(fleet.book.verdict("a").unwrap().reasons, [Reason::StoppedCleanly]);
    assert!(!was_dead(&fleet));
}

#[test]
fn a_path_that_a_restarted_agent_has_no_more_is_not_missed() {
    let mut fleet = settled(&BOTH);
    for path in [0, 1] {
        fleet.book.step(beat("a", path, true), fleet.now);
    }
    for _ in 0..20 {
        fleet.second(&BOTH[1..]);
    }
    for _ in 0..60 {
        fleet.second(&[("a", false, true), BOTH[1]]);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Healthy);
    // An agent that has no heartbeats any more shows by its batches that it is back.
    fleet.book.step(beat("a", 0, true), fleet.now);
    for _ in 0..60 {
        fleet.second(&BOTH[1..]);
    }
    fleet.book.step(batch("a"), fleet.now);
    fleet.second(&BOTH[1..]);
    assert_eq!(fleet.verdict("a"), Verdict::Healthy);
}

#[test]
fn neither_a_pause_nor_a_clock_that_is_set_back_hides_a_death_for_its_length() {
    let mut fleet = settled(&BOTH);
    // What waited in the socket during the pause is heard before the first tick after it.
    fleet.now += 600_000;
    for host in ["a", "b"] {
        fleet.book.step(beat(host, 0, false), fleet.now);
    }
    fleet.tick();
    assert!(fleet.seconds_until("a", Verdict::Dead, &BOTH[1..]) <= 50);

    let mut fleet = settled(&BOTH);
    fleet.now -= 3_600_000;
    fleet.tick();
    assert!(fleet.seconds_until("a", Verdict::Dead, &BOTH[1..]) <= 50);
    assert_eq!(fleet.verdict("b"), Verdict::Healthy);
}

/// A disk that takes long makes verdicts late, but does not hide a death: who listens is awake all the time.
#[test]
fn slow_verdicts_are_no_pause_of_the_server() {
    let mut fleet = settled(&BOTH);
    let mut now = fleet.now;
    for second in 1..=120 {
        now += 1_000;
        fleet.book.step(beat("b", 0, false), now);
        fleet.book.step(Event::Awake, now);
        if second % 10 == 0 {
            fleet.book.step(batch("b"), now);
            fleet.now = now;
            for agent in fleet.book.in_question(now) {
                fleet.book.step(Event::Witnessed { agent, statements: Some(Vec::new()) }, now);
            }
            fleet.book.step(Event::Tick, now);
        }
    }
    assert_eq!(fleet.verdict("a"), Verdict::Dead);
}

/// The server stands still in the middle of a tick: the tick ends after those who listen are awake again, with its old time.
#[test]
fn a_tick_that_ends_after_a_pause_makes_nobody_silent() {
    let mut fleet = settled(&BOTH);
    let begun = fleet.now;
    for awake_first in [true, false] {
        let after = begun + 600_000;
        if awake_first {
            fleet.book.step(Event::Awake, after);
        }
        fleet.book.step(Event::Tick, begun);
        assert_eq!(fleet.book.step(Event::Tick, after), []);
        fleet.book.step(Event::Awake, after);
        assert_eq!(fleet.book.step(Event::Tick, after + 1_000), []);
        assert_eq!((fleet.verdict("a"), fleet.verdict("b")), (Verdict::Healthy, Verdict::Healthy));
        fleet = settled(&BOTH);
    }
}

#[test]
fn a_backlog_is_a_sign_of_life_and_not_the_rhythm() {
    let mut fleet = Fleet::new(0.0);
    let minutely = |second: usize| second.is_multiple_of(60);
    for second in 0..600 {
        fleet.second(&[("a", true, minutely(second)), BOTH[1]]);
    }
    for n in 0..200 {
        fleet.book.step(Event::Batch { agent: "a".to_owned(), is_backlog: true }, fleet.now + n);
    }
    fleet.changes.clear();
    for second in 600..900 {
        fleet.second(&[("a", true, minutely(second)), BOTH[1]]);
    }
    assert_eq!(fleet.changes, []);
}
