//! Tests of bodies against a dictionary, through the router and with a real store, as an agent's sender drives them.

use axum::body::{Body as RequestBody, Bytes};
use axum::http::Request;
use petrel_agent::stream::delivery::Reply;
use petrel_agent::stream::dictionary::{Agreed, Dictionary, Outgoing};
use petrel_agent::stream::protocol::{HEADER_AGENT, HEADER_CLASS, HEADER_EPOCH, HEADER_SEQ};
use tower::ServiceExt as _;

use super::tests::{NOW, Server, limits, otlp, server_with};
use super::*;
use crate::query::source::{Source as _, TimeRange};

fn header_of(response: &Response) -> Option<u64> {
    response.headers().get(HEADER_DICTIONARY)?.to_str().unwrap().parse().ok()
}

/// Sends a body as it goes out; returns the status and the number that is offered.
async fn post(server: &Server, epoch: &str, seq: u64, (encoding, body): (&str, Bytes)) -> (u16, Option<u64>) {
    let request = Request::post("/v1/metrics")
        .header(HEADER_AGENT, "h1")
        .header(HEADER_EPOCH, epoch)
        .header(HEADER_CLASS, "metrics")
        .header(HEADER_SEQ, seq)
        .header("content-encoding", encoding)
        .body(RequestBody::from(body))
        .unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    (response.status().as_u16(), header_of(&response))
}

/// An agent's sender without its waits: `true` where the batch went against a dictionary and was taken.
async fn deliver(server: &Server, agreed: &mut Agreed, epoch: &str, seq: u64) -> bool {
    let frozen: Bytes = zstd::bulk::compress(&round(seq), 1).unwrap().into();
    let mut outgoing = agreed.prepare(&frozen);
    loop {
        let against = outgoing.is_against_dictionary;
        let sent = (if against { "dcz" } else { "zstd" }, outgoing.body.clone());
        let (status, offered) = post(server, epoch, seq, sent).await;
        if agreed.step(seq, outgoing, &Reply::Answered { status, retry_after: None }, offered) {
            outgoing = Outgoing::plain(&frozen);
            continue;
        }
        assert_eq!(status, 200);
        return against;
    }
}

fn round(seq: u64) -> Vec<u8> {
    let points: Vec<(i64, f64)> = (0..50).map(|n| (NOW - n * 1_000 - seq as i64, n as f64 * 0.1)).collect();
    otlp(&points)
}

#[tokio::test]
async fn batches_go_against_the_last_one_and_arrive_once_and_whole() {
    let server = server_with(limits());
    let mut agreed = Agreed::default();
    let mut against = Vec::new();
    for seq in 1..=4 {
        against.push(deliver(&server, &mut agreed, "e", seq).await);
    }
    assert_eq!(against, [false, true, true, true]);
    // A spool born anew: the server holds nothing of it.
    against.clear();
    for seq in 1..=5 {
        against.push(deliver(&server, &mut agreed, "f", seq).await);
    }
    assert_eq!(against, [false, false, true, true, true], "the second one rests after the miss");
    let all = TimeRange { from: 0, to: i64::MAX };
    let stored: usize = server.store.select(&[], all, 10_000).unwrap().iter().map(|one| one.samples.len()).sum();
    // The rounds' times differ by a millisecond; those of the second epoch are the first one's again, but for its last round.
    assert_eq!(stored, 5 * 50 + 5, "with five samples of up");
}

#[tokio::test]
async fn what_is_not_held_or_is_another_gets_a_409_and_stores_nothing() {
    let server = server_with(limits());
    let plain = |seq| ("zstd", Bytes::from(zstd::bulk::compress(&round(seq), 1).unwrap()));
    let against = |other: u64, seq| {
        ("dcz", Bytes::from(Dictionary::new(1, &round(other)).unwrap().compress(&round(seq)).unwrap()))
    };
    assert_eq!(post(&server, "e", 2, against(1, 2)).await, (409, None));
    assert_eq!(post(&server, "e", 1, plain(1)).await, (200, Some(1)));
    assert_eq!(post(&server, "e", 2, against(9, 2)).await, (409, None), "compressed against another body");
    assert_eq!(post(&server, "f", 2, against(1, 2)).await, (409, None), "of another epoch");
    let torn = ("dcz", against(1, 2).1.slice(..60));
    assert_eq!(post(&server, "e", 2, torn).await, (400, None));
    assert_eq!(post(&server, "e", 2, against(1, 2)).await, (200, Some(2)), "the dictionary is still held");
    assert_eq!(post(&server, "e", 2, against(2, 2)).await, (200, Some(2)), "sent twice, stored once");
    let all = TimeRange { from: 0, to: i64::MAX };
    let stored: usize = server.store.select(&[], all, 10_000).unwrap().iter().map(|one| one.samples.len()).sum();
    assert_eq!(stored, 2 * 50 + 2);
}

#[tokio::test]
async fn without_room_or_where_it_is_switched_off_nobody_is_offered_one() {
    for dictionaries_bytes_max in [0, 1_000] {
        let server = server_with(WriteLimits { dictionaries_bytes_max, ..limits() });
        let mut agreed = Agreed::default();
        for seq in 1..=3 {
            assert!(!deliver(&server, &mut agreed, "e", seq).await);
        }
    }
}

#[tokio::test]
async fn where_memory_is_scarce_dictionaries_go_first() {
    let server = server_with(limits());
    let mut agreed = Agreed::default();
    for (seq, is_tight, expected) in
        [(1, false, false), (2, false, true), (3, true, true), (4, true, false), (5, false, false)]
    {
        server.store.set_memory_tight(is_tight);
        assert_eq!(deliver(&server, &mut agreed, "e", seq).await, expected, "batch {seq}");
    }
}

#[tokio::test]
async fn an_agent_is_told_the_time_and_the_pace_and_its_clock_is_noted_once_a_round() {
    let server = server_with(limits());
    let send = |seq: u64, pending: u64, sent: i64| {
        let request = Request::post("/v1/metrics")
            .header(HEADER_AGENT, "h1")
            .header(HEADER_EPOCH, "e")
            .header(HEADER_CLASS, "metrics")
            .header(HEADER_SEQ, seq)
            .header("petrel-pending", pending)
            .header("petrel-time", sent);
        // All of this host's samples are refused: its clock is an hour ahead.
        server.router.clone().oneshot(request.body(RequestBody::from(otlp(&[(sent, 1.0)]))).unwrap())
    };
    for (seq, pending) in [(1, 2), (2, 1), (3, 0)] {
        let response = send(seq, pending, NOW + 3_600_000).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["petrel-time"], format!("{NOW},{NOW}"));
        // The test's clock stands still: nothing takes time, nobody waits.
        assert_eq!(response.headers()["petrel-pace"], "0");
        let said = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(String::from_utf8_lossy(&said).contains("more than 10 minutes ahead of the server's clock"));
    }
    let offset = "petrel_agent_clock_offset_seconds{instance=\"h1\", job=\"node\"} [3600.0]";
    assert_eq!(server.stored(), [offset]);
}
