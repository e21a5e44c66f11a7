//! Verdicts over simulated hosts: how fast a lost one is called dead, and how often a sound one is suspected.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::decide::testimony::Says;

mod doubt;

/// Hosts that beat on two paths every second and send a batch every ten, over a network that loses and delays.
struct Fleet {
    book: VerdictBook,
    rng: StdRng,
    now: Timestamp,
    loss: f64,
    /// What is answered when others are asked about a silent host.
    said: Option<Vec<Statement>>,
    changes: Vec<(Timestamp, String, Verdict)>,
}

impl Fleet {
    fn new(loss: f64) -> Fleet {
        let (book, rng) = (VerdictBook::new(), StdRng::seed_from_u64(7));
        Fleet { book, rng, now: 1_000_000, loss, said: Some(Vec::new()), changes: Vec::new() }
    }

    /// From now on `by` says so of every silent host.
    fn say(&mut self, by: &str, says: &[Says]) {
        let at = self.now;
        self.said = Some(says.iter().map(|says| Statement { by: by.to_owned(), at, says: *says }).collect());
    }

    /// A second in which the named hosts are alive; each can be cut from path 1 or from the stream.
    fn second(&mut self, alive: &[(&str, bool, bool)]) {
        let mut arrivals: Vec<(Timestamp, Event)> = Vec::new();
        for (host, path_1, stream) in alive {
            for path in [0, 1] {
                let lost = self.rng.gen_bool(self.loss) || (path == 1 && !path_1);
                let delay = self.rng.gen_range(0..80);
                if !lost {
                    arrivals.push((self.now + delay, beat(host, path, false)));
                }
            }
            if *stream && self.now / 1_000 % 10 == 0 {
                arrivals.push((self.now + self.rng.gen_range(0..500), batch(host)));
            }
        }
        arrivals.sort_by_key(|(at, _)| *at);
        for (at, event) in arrivals {
            assert_eq!(self.book.step(event, at), vec![]);
        }
        self.now += 1_000;
        self.tick();
    }

    fn tick(&mut self) {
        self.book.step(Event::Awake, self.now);
        for agent in self.book.in_question(self.now) {
            self.book.step(Event::Witnessed { agent, statements: self.said.clone() }, self.now);
        }
        for Change { to, .. } in self.book.step(Event::Tick, self.now) {
            self.changes.push((self.now, to.host, to.verdict));
        }
    }

    fn verdict(&self, host: &str) -> Verdict {
        self.book.verdict(host).unwrap().verdict
    }

    /// Seconds until a host has the verdict.
    fn seconds_until(&mut self, host: &str, verdict: Verdict, alive: &[(&str, bool, bool)]) -> u32 {
        for second in 1..200 {
            self.second(alive);
            if self.verdict(host) == verdict {
                return second;
            }
        }
        panic!("{host} is {} after 200 s", self.verdict(host));
    }
}

fn beat(agent: &str, path: u8, goodbye: bool) -> Event {
    Event::Beat { agent: agent.to_owned(), path, interval_ms: 1_000, goodbye }
}

fn batch(agent: &str) -> Event {
    Event::Batch { agent: agent.to_owned(), is_backlog: false }
}

const BOTH: [(&str, bool, bool); 2] = [("a", true, true), ("b", true, true)];

#[test]
fn a_lost_host_is_suspect_in_seconds_and_dead_in_half_a_minute() {
    let mut fleet = Fleet::new(0.01);
    for _ in 0..120 {
        fleet.second(&BOTH);
    }
    assert_eq!(fleet.verdict("a"), Verdict::Healthy);
    let suspect = fleet.seconds_until("a", Verdict::Suspect, &BOTH[1..]);
    let dead = suspect + fleet.seconds_until("a", Verdict::Dead, &BOTH[1..]);
    assert!((3..=6).contains(&suspect) && dead <= 35, "suspect after {suspect} s, dead after {dead} s");
    assert_eq!(fleet.verdict("b"), Verdict::Healthy);
    assert_eq!(fleet.seconds_until("a", Verdict::Healthy, &BOTH), 1);
}

#[test]
fn a_lost_path_isolates_and_a_lost_stream_makes_suspect() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&BOTH);
    }
    assert!(fleet.seconds_until("a", Verdict::Isolated, &[("a", false, true), BOTH[1]]) <= 10);
    assert!(fleet.seconds_until("b", Verdict::Suspect, &[BOTH[0], ("b", true, false)]) <= 40);
    for _ in 0..120 {
        fleet.second(&[BOTH[0], ("b", true, false)]);
    }
    assert_eq!((fleet.verdict("a"), fleet.verdict("b")), (Verdict::Healthy, Verdict::Suspect));
}

#[test]
fn sound_hosts_on_a_bad_network_are_not_called_dead() {
    // A day of four hosts with two paths, a tenth of all datagrams lost.
    let alive = [("a", true, true), ("b", true, true), ("c", true, true), ("d", true, true)];
    let mut fleet = Fleet::new(0.1);
    for _ in 0..86_400 {
        fleet.second(&alive);
    }
    let count = |verdict| fleet.changes.iter().filter(|(_, _, to)| *to == verdict).count();
    assert_eq!((count(Verdict::Dead), count(Verdict::Isolated)), (0, 0));
    // Suspect takes three datagrams lost in a row on both paths at once: 4 hosts × 86,400 × 10⁻⁶ is less than one a day.
    let suspected = count(Verdict::Suspect);
    assert!(suspected <= 3, "{suspected}");
}

#[test]
fn goodbye_is_no_death() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&BOTH);
    }
    let now = fleet.now;
    fleet.book.step(beat("a", 0, true), now);
    fleet.book.step(batch("a"), now + 1);
    for _ in 0..300 {
        fleet.second(&BOTH[1..]);
    }
    let verdict = fleet.book.verdict("a").unwrap();
    assert_eq!((verdict.verdict, &verdict.reasons[..]), (Verdict::Unknown, &[Reason::StoppedCleanly][..]));
    assert!(!fleet.changes.iter().any(|(_, _, to)| *to == Verdict::Dead));
    assert_eq!(fleet.seconds_until("a", Verdict::Healthy, &BOTH), 1);
}

#[test]
fn three_silent_at_once_are_our_own_fault_until_shown_otherwise() {
    let alive = [("a", true, true), ("b", true, true), ("c", true, true), ("d", true, true)];
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&alive);
    }
    for _ in 0..120 {
        fleet.second(&alive[3..]);
    }
    for host in ["a", "b", "c"] {
        assert_eq!(fleet.verdict(host), Verdict::Unknown);
    }
    assert!(!fleet.changes.iter().any(|(_, _, to)| *to == Verdict::Dead));
}

#[test]
fn a_pause_of_the_server_is_not_held_against_the_hosts() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&BOTH);
    }
    fleet.changes.clear();
    fleet.now += 600_000;
    fleet.tick();
    assert_eq!(fleet.changes, vec![]);
    // But who stays away afterwards is found as ever.
    assert!(fleet.seconds_until("a", Verdict::Dead, &BOTH[1..]) <= 40);
}

/// Both paths and the stream of a host go silent; what others say of it decides.
#[test]
fn a_silent_host_that_others_see_alive_is_isolated_until_they_do_not() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&BOTH);
    }
    assert_eq!(fleet.book.in_question(fleet.now), Vec::<String>::new(), "nobody is asked about sound hosts");
    let say = |fleet: &mut Fleet, says: &[Says]| {
        fleet.say("b", says);
        fleet.second(&BOTH[1..]);
        fleet.verdict("a")
    };
    while fleet.book.in_question(fleet.now).is_empty() {
        fleet.second(&BOTH[1..]);
    }
    for _ in 0..120 {
        say(&mut fleet, &[Says::AliveOnStorage]);
    }
    assert_eq!(say(&mut fleet, &[Says::AliveOnStorage]), Verdict::Isolated);
    assert_eq!(fleet.book.verdict("a").unwrap().reasons.last(), Some(&Reason::AliveOnStorage));
    assert!(!fleet.changes.iter().any(|(_, _, to)| *to == Verdict::Dead));
    assert_eq!(say(&mut fleet, &[Says::AliveOnStorage, Says::PowerOff]), Verdict::Isolated, "who is alive is not off");
    assert_eq!(say(&mut fleet, &[Says::SilentOnStorage]), Verdict::Dead);
    assert_eq!(say(&mut fleet, &[]), Verdict::Dead);
    assert_eq!(say(&mut fleet, &[Says::PowerOff]), Verdict::Dead);
    assert_eq!(fleet.book.verdict("a").unwrap().reasons.last(), Some(&Reason::PoweredOff));
    // What was said of it then is forgotten when it is back, with its next batch.
    assert!(fleet.seconds_until("a", Verdict::Healthy, &BOTH) <= 11);
    assert_eq!(fleet.book.verdict("a").unwrap().reasons, []);
}

#[test]
fn samples_say_one_verdict_and_the_margin_of_each_path() {
    let mut fleet = Fleet::new(0.0);
    for _ in 0..60 {
        fleet.second(&BOTH[..1]);
    }
    let batch = fleet.book.batch(fleet.now);
    let ones: Vec<String> = batch
        .series
        .iter()
        .filter(|(labels, samples)| labels.name() == "petrel_host_verdict" && samples[0].v == 1.0)
        .map(|(labels, _)| labels.to_string())
        .collect();
    assert_eq!(ones, ["petrel_host_verdict{instance=\"a\", verdict=\"healthy\"}"]);
    let margins: Vec<f64> = batch
        .series
        .iter()
        .filter(|(labels, _)| labels.name() == "petrel_heartbeat_margin")
        .map(|(_, samples)| samples[0].v)
        .collect();
    assert_eq!(margins.len(), 3, "two heartbeat paths and the stream");
    assert!(margins.iter().all(|margin| (0.5..1.0).contains(margin)), "{margins:?}");
}
