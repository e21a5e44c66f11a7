//! Tests of the streams of deltas: what is committed, what is not, and the bound.

use super::super::total::Sum;
use super::*;

const NOW: Timestamp = 1_700_000_000_000;
const LIMITS: StreamLimits = StreamLimits { series_max: 3, stale_after_ms: 300_000 };

fn during(second: u64) -> During {
    let nanos = |second: u64| NOW as u64 * 1_000_000 + second * 1_000_000_000;
    During { start: nanos(second), end: nanos(second + 1) }
}

fn one(value: f64) -> Amount {
    Amount::Number(Sum::of(value))
}

fn value(added: Result<(Stream, Added), DeltaError>) -> f64 {
    let Amount::Number(sum) = added.unwrap().0.total else { unreachable!() };
    sum.value()
}

#[test]
fn what_was_not_committed_did_not_happen() {
    let streams = Arc::new(Streams::new(LIMITS));
    let mut first = Changes::new(&streams, NOW);
    assert_eq!(value(first.add(1, during(0), one(1.0), None)), 1.0);
    first.commit();
    let mut refused = Changes::new(&streams, NOW);
    assert_eq!(value(refused.add(1, during(1), one(2.0), None)), 3.0);
    assert_eq!(value(refused.add(1, during(2), one(4.0), None)), 7.0, "within a request it did");
    drop(refused);
    let mut again = Changes::new(&streams, NOW);
    assert_eq!(value(again.add(1, during(1), one(2.0), None)), 3.0);
    again.commit();
    let mut twice = Changes::new(&streams, NOW);
    assert_eq!(twice.add(1, during(1), one(2.0), None).unwrap_err(), DeltaError::Dropped(Dropped::Old));
}

#[test]
fn there_is_room_for_so_many_series() {
    let streams = Arc::new(Streams::new(LIMITS));
    let mut first = Changes::new(&streams, NOW);
    let mut other = Changes::new(&streams, NOW);
    first.add(1, during(0), one(1.0), None).unwrap();
    first.add(2, during(0), one(1.0), None).unwrap();
    other.add(3, during(0), one(1.0), None).unwrap();
    let full = DeltaError::Limit { series_max: 3 };
    assert_eq!(first.add(4, during(0), one(1.0), None).unwrap_err(), full);
    // What a request that failed had taken is there for others.
    drop(other);
    first.add(4, during(0), one(1.0), None).unwrap();
    first.commit();
    let mut next = Changes::new(&streams, NOW + 1_000);
    assert_eq!(value(next.add(1, during(1), one(1.0), None)), 2.0, "what is known goes on");
    assert_eq!(next.add(5, during(1), one(1.0), None).unwrap_err(), full);
    next.end(2);
    next.commit();
    let mut last = Changes::new(&streams, NOW + 2_000);
    last.add(5, during(2), one(1.0), None).unwrap();
    assert_eq!(last.add(6, during(2), one(1.0), None).unwrap_err(), full);
    drop(last);
    assert_eq!(streams.kept().series, 2);
    // The stale make room, and begin anew.
    let mut late = Changes::new(&streams, NOW + 400_000);
    for id in 7..10 {
        late.add(id, during(400), one(1.0), None).unwrap();
    }
    late.commit();
    let kept = streams.kept();
    assert_eq!((kept.series, kept.streams.len()), (3, 3));
}

#[test]
fn a_stale_stream_begins_anew() {
    let streams = Arc::new(Streams::new(LIMITS));
    for (at, expected) in [(0, 1.0), (300, 2.0), (601, 1.0)] {
        let mut changes = Changes::new(&streams, NOW + at * 1_000);
        assert_eq!(value(changes.add(1, during(at as u64), one(1.0), None)), expected, "at {at} s");
        changes.commit();
        assert_eq!(streams.kept().series, 1);
    }
}

#[test]
fn a_clock_that_was_ahead_once_keeps_no_stream_for_ever() {
    let streams = Arc::new(Streams::new(LIMITS));
    let mut ahead = Changes::new(&streams, NOW + 86_400_000);
    ahead.add(1, during(0), one(1.0), None).unwrap();
    ahead.commit();
    let mut back = Changes::new(&streams, NOW);
    for id in 2..5 {
        back.add(id, during(1), one(1.0), None).unwrap();
    }
    back.commit();
    assert_eq!(streams.kept().streams.len(), 3);
}
