//! Rounds into a spool that refuses some of them.

use petrel_models::Timestamp;

use super::told::tests::reading;
use super::*;
use crate::logs::RawLogsConfig;
use crate::spool::{Frozen, Spool};

const BUDGET: u64 = 1 << 16;

fn rounds(spool: Spool) -> Rounds {
    let clock: Clock = Arc::new(|| 7 as Timestamp);
    let logs = LogTails::new(
        &RawLogsConfig { enabled: false, ..RawLogsConfig::default() }.check().unwrap(),
        None,
        Arc::clone(&clock),
    )
    .counts();
    Rounds {
        agent: "h1".into(),
        spool: SharedSpool::new(spool),
        counters: Arc::default(),
        logs,
        beats: BeatBoards::default(),
        probes: ProbeBoard::default(),
        limits: Limits::default(),
        clock,
    }
}

/// The oldest batch that waits, uncompressed.
async fn front(rounds: &Rounds) -> Vec<u8> {
    let batch = rounds.spool.with(|spool| spool.front(Class::Metrics)).await.unwrap().unwrap();
    rounds.spool.with(move |spool| spool.acknowledge(Class::Metrics, batch.seq)).await.unwrap();
    zstd::stream::decode_all(&batch.body[..]).unwrap()
}

#[tokio::test]
async fn what_a_refused_round_ends_the_next_one_ends_again() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = rounds(Spool::open(dir.path(), BUDGET, "aa").unwrap());
    let mut lost = 0;
    let told = rounds.keep(Told::default(), vec![reading(None, &["goes", "stays"])], &mut lost).await;
    front(&rounds).await;
    // Log lines have the whole budget: samples are refused.
    let fill = |spool: &mut Spool| {
        let body = vec![7; (BUDGET - spool.bytes() - 64) as usize];
        spool.append(Class::Logs, &Frozen { records: 1, state: &[], body: &body }, 1).unwrap()
    };
    let lines = rounds.spool.with(fill).await;
    let told = rounds.keep(told, vec![reading(None, &["stays"])], &mut lost).await;
    assert_eq!(lost, 1);
    rounds.spool.with(move |spool| spool.acknowledge(Class::Logs, lines)).await.unwrap();
    rounds.keep(told, vec![reading(None, &["stays"])], &mut lost).await;
    assert_eq!(lost, 0);
    let body = front(&rounds).await;
    assert!(body.windows(4).any(|name| name == b"goes"), "the server is told that the series ended");
}
