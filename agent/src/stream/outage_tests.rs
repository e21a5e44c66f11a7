//! A server that is away for an hour of event time: the parts that a sender is made of (spool, delivery, pace) on a clock of their own.
//! Nothing is lost, nothing stored twice, and the backlog goes out no faster than the server's answers ask for.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::delivery::{Delivery, Next, Reply};
use super::pace;
use super::protocol::Class;
use crate::spool::{Frozen, Spool};

const STEP_MS: u64 = 100;
const ROUND_MS: u64 = 10_000;
const AWAY_MS: std::ops::Range<u64> = 600_000..4_200_000;
const END_MS: u64 = 4 * 3_600_000;
const PACE: Duration = Duration::from_millis(500);

/// What is known of one class at both ends.
struct Lane {
    class: Class,
    delivery: Delivery,
    next_at: u64,
    produced: u64,
    stored: Vec<u64>,
    attempts_away: u64,
}

fn lane(class: Class, seed: u64) -> Lane {
    let delivery = Delivery::new(StdRng::seed_from_u64(seed));
    Lane { class, delivery, next_at: 0, produced: 0, stored: Vec::new(), attempts_away: 0 }
}

/// One turn of a sender, as `Sender::run` makes it; the answer to a batch that the server took is lost now and then.
fn turn(lane: &mut Lane, spool: &mut Spool, now: u64, rng: &mut StdRng) {
    let Some(batch) = spool.front(lane.class).unwrap().filter(|_| now >= lane.next_at) else { return };
    let is_away = AWAY_MS.contains(&now);
    if is_away {
        lane.attempts_away += 1;
    } else if lane.stored.last().is_none_or(|mark| *mark < batch.seq) {
        lane.stored.push(batch.seq);
    }
    let is_answered = !is_away && rng.gen_bool(0.98);
    let reply = if is_answered { Reply::Answered { status: 200, retry_after: None } } else { Reply::Unreachable };
    let wait = match lane.delivery.step(&reply) {
        Next::Advance => {
            spool.acknowledge(lane.class, batch.seq).unwrap();
            let pending = Class::ALL.map(|class| spool.pending(class));
            let wait = pace::wait(lane.class, PACE, pending, rng);
            assert!(spool.pending(lane.class) == 0 || wait >= PACE.mul_f64(0.75), "the server's pace holds");
            wait
        }
        Next::Retry { after, .. } => after,
        Next::Refuse => panic!("no answer refuses a batch"),
    };
    lane.next_at = now + wait.as_millis() as u64;
}

/// Four hours of which the server is away for one; returns what each class has produced, stored and dropped.
fn run(budget: u64, body_bytes: usize, seed: u64) -> Vec<(u64, u64, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), budget, "ab").unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut lanes = [lane(Class::Logs, seed), lane(Class::Metrics, seed + 1)];
    for now in (0..END_MS).step_by(STEP_MS as usize) {
        for lane in &mut lanes {
            // The last quarter of an hour is for what is left.
            if now % ROUND_MS == 0 && now < END_MS - 900_000 {
                lane.produced += 1;
                let frozen = Frozen { records: 1, state: &[], body: &vec![1; body_bytes] };
                // What finds no room is counted.
                let _ = spool.append(lane.class, &frozen, now as i64);
                assert!(spool.bytes() <= budget);
            }
            turn(lane, &mut spool, now, &mut rng);
        }
    }
    let result = lanes.iter().map(|lane| {
        assert!(lane.stored.is_sorted_by(|a, b| a < b), "none twice");
        assert!((50..200).contains(&lane.attempts_away), "{} attempts in an hour", lane.attempts_away);
        let dropped: u64 =
            spool.dropped().iter().filter(|((class, _), _)| *class == lane.class).map(|(_, gone)| gone.records).sum();
        (lane.produced, lane.stored.len() as u64, dropped)
    });
    result.collect()
}

#[test]
fn an_hour_without_a_server_loses_nothing() {
    for (produced, stored, dropped) in run(64 << 20, 2_000, 3) {
        assert_eq!((stored, dropped), (produced, 0));
    }
}

#[test]
fn what_does_not_fit_the_budget_is_counted() {
    let result = run(1 << 20, 3_000, 4);
    for (produced, stored, dropped) in &result {
        assert_eq!(stored + dropped, *produced, "{result:?}");
    }
    assert!(result[0].2 + result[1].2 > 0, "{result:?}");
}
