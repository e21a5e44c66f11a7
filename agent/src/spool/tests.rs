//! The spool against a model of it: lists in memory that lose nothing but what the rules say.

use std::collections::VecDeque;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const EPOCH: &str = "00112233445566778899aabbccddeeff";
const BUDGET: u64 = 1 << 20;

fn frozen(body: &[u8]) -> Frozen<'_> {
    Frozen { records: 1, state: body, body }
}

fn waiting(spool: &mut Spool, class: Class) -> Vec<(u64, Vec<u8>)> {
    // Reads everything by acknowledging, so callers open the spool anew if they need it afterwards.
    let mut out = Vec::new();
    while let Some(batch) = spool.front(class).unwrap() {
        out.push((batch.seq, batch.body.to_vec()));
        spool.acknowledge(class, batch.seq).unwrap();
    }
    out
}

/// The numbers of all that waits.
fn numbers(spool: &Spool, class: Class) -> Vec<u64> {
    spool.queues[index(class)].pending_numbers()
}

#[test]
fn numbers_epoch_and_state_survive_when_everything_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200u64 {
        let mut spool = Spool::open(dir.path(), 1 << 16, if round == 0 { EPOCH } else { "ff" }).unwrap();
        assert_eq!(spool.epoch(), EPOCH);
        let body = vec![round as u8; 3000];
        assert_eq!(spool.append(Class::Logs, &frozen(&body), 1).unwrap(), round + 1);
        let batch = spool.front(Class::Logs).unwrap().unwrap();
        assert_eq!((batch.seq, batch.body.as_ref(), batch.spooled_at), (round + 1, &body[..], 1));
        spool.acknowledge(Class::Logs, round + 1).unwrap();
        assert_eq!(spool.state(Class::Logs), &body[..]);
        assert!(spool.bytes() < 20_000, "acknowledged space comes back: {}", spool.bytes());
        // Losing the note of what was acknowledged sends again what is still there; it never gives a number twice.
        if round % 7 == 0 {
            fs::remove_file(dir.path().join("logs.acknowledged")).unwrap();
        }
    }
}

#[test]
fn the_budget_drops_oldest_metrics_then_logs_and_never_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 16, EPOCH).unwrap();
    let body = vec![7u8; 2000];
    for _ in 0..100 {
        spool.append(Class::Metrics, &frozen(&body), 1).unwrap();
    }
    assert!(spool.bytes() <= 1 << 16, "{}", spool.bytes());
    spool.append(Class::Answers, &frozen(b"answer"), 1).unwrap();
    let Dropped { batches, records } = spool.dropped()[&(Class::Metrics, DropReason::Budget)];
    assert_eq!((batches + spool.pending(Class::Metrics), records), (100, batches));
    let kept = numbers(&spool, Class::Metrics);
    let first = kept.iter().zip(1..).take_while(|(seq, n)| **seq == *n).count();
    assert!((1..=4).contains(&first), "the segment of the oldest, which may be on its way, stays: {kept:?}");
    assert_eq!(kept[first..], *(kept[first]..=100).collect::<Vec<u64>>(), "then the oldest go first");
    for _ in 0..100 {
        spool.append(Class::Logs, &frozen(&body), 1).unwrap();
    }
    assert_eq!(spool.pending(Class::Metrics), first as u64);
    assert!(spool.dropped()[&(Class::Logs, DropReason::Budget)].batches > 0);
    assert!(matches!(spool.append(Class::Metrics, &frozen(&body), 1), Err(AppendError::Full { .. })));
    assert_eq!(spool.dropped()[&(Class::Metrics, DropReason::Full)], Dropped { batches: 1, records: 1 });
    assert_eq!(waiting(&mut spool, Class::Answers), vec![(1, b"answer".to_vec())]);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _open = Spool::open(dir.path(), BUDGET, EPOCH).unwrap();
    let error = Spool::open(dir.path(), BUDGET, EPOCH).err().unwrap();
    assert!(error.to_string().contains("in use by another petrel-agent"), "{error}");
}

#[test]
fn a_batch_that_rotted_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), BUDGET, EPOCH).unwrap();
    for body in [b"one", b"two"] {
        spool.append(Class::Metrics, &frozen(body), 1).unwrap();
    }
    let path = dir.path().join("metrics-0000000000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|window| window == b"one").unwrap();
    bytes[at] = b'x';
    fs::write(&path, bytes).unwrap();
    assert_eq!(spool.front(Class::Metrics).unwrap().unwrap().seq, 2);
    assert_eq!(spool.dropped()[&(Class::Metrics, DropReason::Damaged)], Dropped { batches: 1, records: 1 });
}

/// One thing that happens to a spool.
#[derive(Debug, Clone)]
enum Step {
    Append {
        class: usize,
        bytes: usize,
    },
    Acknowledge {
        class: usize,
    },
    Restart,
    /// Power fails while a batch is written: only its first bytes are on disk.
    CrashInAppend {
        class: usize,
        bytes: usize,
        kept: prop::sample::Index,
    },
    /// The note of what was acknowledged was not on disk yet.
    LoseAcknowledged {
        class: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, 0..3000usize).prop_map(|(class, bytes)| Step::Append { class, bytes }),
        4 => (0..3usize).prop_map(|class| Step::Acknowledge { class }),
        1 => Just(Step::Restart),
        2 => (0..3usize, 0..3000usize, any::<prop::sample::Index>())
            .prop_map(|(class, bytes, kept)| Step::CrashInAppend { class, bytes, kept }),
        1 => (0..3usize).prop_map(|class| Step::LoseAcknowledged { class }),
    ]
}

#[derive(Default, Clone)]
struct Model {
    waiting: VecDeque<(u64, Vec<u8>)>,
    given: u64,
    state: Vec<u8>,
}

fn last_segment(dir: &Path, class: Class) -> PathBuf {
    let mut names: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.to_string_lossy().contains(&format!("/{}-", class.as_str())));
    names.into_iter().max().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let reopen = || Spool::open(dir.path(), BUDGET, EPOCH).unwrap();
        let mut spool = reopen();
        let mut models: [Model; 3] = Default::default();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { class, bytes } => {
                    let body = vec![n as u8; bytes];
                    let seq = spool.append(Class::ALL[class], &frozen(&body), n as i64).unwrap();
                    let model = &mut models[class];
                    prop_assert!(seq > model.given, "{} after {}", seq, model.given);
                    (model.given, model.state) = (seq, body.clone());
                    model.waiting.push_back((seq, body));
                }
                Step::Acknowledge { class } => {
                    if let Some((seq, _)) = models[class].waiting.pop_front() {
                        spool.acknowledge(Class::ALL[class], seq).unwrap();
                    }
                }
                Step::Restart => {
                    drop(spool);
                    spool = reopen();
                }
                Step::CrashInAppend { class, bytes, kept } => {
                    drop(spool);
                    let path = last_segment(dir.path(), Class::ALL[class]);
                    let mut file = fs::read(&path).unwrap();
                    let seq = models[class].given + 1;
                    let frame = segment::BatchFrame { seq, spooled_at: 0, records: 1, state: b"torn", body: &vec![1; bytes] }.encode();
                    file.extend_from_slice(&frame[..kept.index(frame.len())]);
                    fs::write(&path, file).unwrap();
                    spool = reopen();
                }
                Step::LoseAcknowledged { class } => {
                    drop(spool);
                    let _ = fs::remove_file(dir.path().join(format!("{}.acknowledged", Class::ALL[class].as_str())));
                    spool = reopen();
                    // Some that were acknowledged may wait again, in front of the others and unchanged in number.
                    let class = Class::ALL[class];
                    while let Some(batch) = spool.front(class).unwrap() {
                        let model = &models[index(class)];
                        if model.waiting.front().is_some_and(|(seq, _)| *seq <= batch.seq) { break; }
                        prop_assert!(batch.seq <= model.given);
                        spool.acknowledge(class, batch.seq).unwrap();
                    }
                }
            }
            for class in Class::ALL {
                let model = &models[index(class)];
                let front = spool.front(class).unwrap().map(|batch| (batch.seq, batch.body.to_vec()));
                prop_assert_eq!(front.as_ref(), model.waiting.front());
                prop_assert_eq!(spool.pending(class), model.waiting.len() as u64);
                prop_assert_eq!(spool.state(class), &model.state[..]);
            }
        }
        for class in Class::ALL {
            let expected: Vec<_> = models[index(class)].waiting.iter().cloned().collect();
            prop_assert_eq!(waiting(&mut spool, class), expected);
        }
    }
}

/// An agent that is killed again and again, a server whose answers are lost, and a budget that is too small: each batch is stored once or
/// counted once.
#[test]
fn what_the_budget_drops_is_counted_once_through_kills_and_lost_answers() {
    let mut rng = StdRng::seed_from_u64(5);
    let dir = tempfile::tempdir().unwrap();
    let (mut produced, mut refused, mut mark, mut stored) = ([0u64; 3], [0u64; 3], [0u64; 3], [0u64; 3]);
    for _ in 0..120 {
        let mut spool = Spool::open(dir.path(), 1 << 16, EPOCH).unwrap();
        for _ in 0..rng.gen_range(1..60) {
            let class = [Class::Logs, Class::Metrics][rng.gen_range(0..2)];
            let at = index(class);
            if rng.gen_bool(0.75) {
                let body = vec![3; rng.gen_range(0..5_000)];
                produced[at] += 2;
                match spool.append(class, &Frozen { records: 2, state: b"s", body: &body }, 1) {
                    Ok(_) => {}
                    Err(AppendError::Full { .. }) => refused[at] += 2,
                    Err(error) => panic!("{error}"),
                }
                assert!(spool.bytes() <= 1 << 16, "{}", spool.bytes());
            } else if let Some(batch) = spool.front(class).unwrap() {
                if batch.seq > mark[at] {
                    (mark[at], stored[at]) = (batch.seq, stored[at] + 2);
                }
                if rng.gen_bool(0.5) {
                    spool.acknowledge(class, batch.seq).unwrap();
                }
            }
        }
        // The note is written, and the file stays: what a kill between the two leaves.
        if rng.gen_bool(0.3) {
            let kept = spool.queues[index(Class::Metrics)].names();
            let copies: Vec<_> =
                kept.iter().map(|name| (name.clone(), fs::read(dir.path().join(name)).unwrap())).collect();
            let _ = spool.queues[index(Class::Metrics)].drop_oldest_segment().unwrap();
            for (name, bytes) in copies {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
    }
    let mut spool = Spool::open(dir.path(), 1 << 16, EPOCH).unwrap();
    for class in [Class::Logs, Class::Metrics] {
        let at = index(class);
        stored[at] += waiting(&mut spool, class).iter().filter(|(seq, _)| *seq > mark[at]).count() as u64 * 2;
        let dropped = |reason| spool.dropped().get(&(class, reason)).map_or(0, |dropped| dropped.records);
        assert!(dropped(DropReason::Budget) > 100, "the budget was met");
        assert_eq!(dropped(DropReason::Full), refused[at]);
        assert_eq!(stored[at] + dropped(DropReason::Budget) + refused[at], produced[at], "{class:?}");
        assert_eq!(dropped(DropReason::Damaged), 0);
    }
}
