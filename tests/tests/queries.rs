//! Queries through the real door: what is sent over a real socket is evaluated, stopped and counted as the guide says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use petrel_tests::left_out;
use petrel_tests::petrel::Server;
use petrel_tests::process::wait_for;
use petrel_tests::tree::files;

/// Runs for minutes: at each of its steps it sorts the 43,200 values of a window.
const LONG: &str = "query=quantile_over_time(0.5,vector(time())%5B12h:1s%5D)&start=0&end=11000&step=1";
/// What stopping may take on a busy machine; evaluations look whether to go on within milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// The value of one of the server's own metrics, 0 where it was not counted yet.
fn own(server: &Server, metric: &str) -> u64 {
    let metrics = server.metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
    value.unwrap_or(0)
}

fn active(server: &Server) -> u64 {
    own(server, "petrel_queries_active")
}

/// Sends a request and gives the socket that its answer will come from.
fn send(server: &Server, path: &str) -> TcpStream {
    let host = server.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(host).expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("the server reads");
    socket
}

#[test]
fn a_query_ends_when_its_client_leaves_and_makes_room_for_the_next() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "query: { concurrent_max: 1 }\n");
    let leaver = send(&server, &format!("/api/v1/query_range?{LONG}"));
    wait_for("the query to run", SOON, || active(&server) == 1);
    let waiter = send(&server, "/api/v1/query?query=1");
    drop(leaver);
    wait_for("the query to be stopped", SOON, || {
        own(&server, "petrel_queries_total{outcome=\"canceled\"}") == 1 && active(&server) == 0
    });
    let mut answer = String::new();
    waiter.set_read_timeout(Some(SOON)).expect("not zero");
    (&waiter).read_to_string(&mut answer).expect("the next query gets its turn");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"success\""), "{answer}");
}

#[test]
fn a_client_that_leaves_while_it_waits_for_its_turn_takes_no_turn() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "query: { concurrent_max: 1, queue_timeout: 1m }\n");
    let long = format!("/api/v1/query_range?{LONG}");
    let first = send(&server, &long);
    wait_for("the query to run", SOON, || active(&server) == 1);
    // Some are gone before the server has read what they ask, and are never counted.
    wait_for("ten that left to be counted", SOON, || {
        drop(send(&server, &long));
        own(&server, "petrel_queries_total{outcome=\"canceled\"}") >= 10
    });
    // Ten may wait. Had those that left kept their places, none of these would get one; the last may still be about to leave.
    let waiting: Vec<TcpStream> = (0..8).map(|_| send(&server, "/api/v1/query?query=1")).collect();
    drop(first);
    for mut waiter in waiting {
        let mut answer = String::new();
        waiter.set_read_timeout(Some(SOON)).expect("not zero");
        waiter.read_to_string(&mut answer).expect("each gets its turn");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(own(&server, "petrel_queries_total{outcome=\"refused\"}"), 0);
}

#[test]
fn time_is_over_for_a_query_after_the_configs_or_the_requests_timeout() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "query: { timeout: 700ms }\n");
    for (more, told) in [("", "700ms"), ("&timeout=100ms", "100ms"), ("&timeout=1h", "700ms")] {
        let begin = Instant::now();
        let mut socket = send(&server, &format!("/api/v1/query_range?{LONG}{more}"));
        let mut answer = String::new();
        socket.set_read_timeout(Some(SOON)).expect("not zero");
        socket.read_to_string(&mut answer).expect("the time is over");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"errorType\":\"timeout\""), "{answer}");
        assert!(answer.contains(told) && begin.elapsed() < SOON, "{answer}");
    }
    wait_for("the queries to be counted", SOON, || {
        own(&server, "petrel_queries_total{outcome=\"timeout\"}") == 3 && active(&server) == 0
    });
    assert_eq!(own(&server, "petrel_query_limits_total{limit=\"timeout\"}"), 3);
}

/// The query of a line of a script: what follows `at TIME` or `step DURATION`.
fn query_of(line: &str) -> Option<&str> {
    let line = line.trim();
    let after = |word: &str| line.split_once(word).and_then(|(_, rest)| rest.trim_start().split_once(' '));
    let (_, query) = match line.split_once(' ')? {
        (first, rest) if first.starts_with("eval") && rest.trim_start().starts_with("range") => after(" step ")?,
        (first, rest) if first.starts_with("eval") && rest.trim_start().starts_with("instant") => after(" at ")?,
        _ => return None,
    };
    Some(query.trim())
}

#[test]
fn a_query_that_was_laid_out_is_the_same_query() {
    let sources = files("server/src/query/scenarios").into_iter();
    let own = sources.filter(|source| source.path.extension().is_some_and(|end| end == "test"));
    let mut scripts: Vec<String> = own.map(|source| source.text).collect();
    let own = scripts.len();
    if let Some(data) = left_out::shared("data/promqltest", "queries: layout of Prometheus' scripts") {
        let entries = std::fs::read_dir(data).expect("the folder is there").flatten();
        scripts.extend(entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()));
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "");
    let ask = |path: &str, query: &str| server.ask(path, &[("query", query)]);
    let mut compared = 0;
    for query in scripts.iter().flat_map(|script| script.lines()).filter_map(query_of) {
        let tree = ask("/api/v1/parse_query", query);
        let laid_out = ask("/api/v1/format_query", query);
        assert_eq!(tree["status"], laid_out["status"], "{query}: {tree} {laid_out}");
        let Some(laid_out) = laid_out["data"].as_str() else { continue };
        assert_eq!(ask("/api/v1/parse_query", laid_out), tree, "{query} became\n{laid_out}");
        assert_eq!(ask("/api/v1/format_query", laid_out)["data"], laid_out, "{query}");
        compared += 1;
    }
    println!("{compared} queries of {} scripts", scripts.len());
    assert!(own >= 8 && compared >= 150, "{compared} queries of {own} scripts");
}
