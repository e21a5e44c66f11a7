//! Scrapes of real servers, good and bad.

use std::sync::atomic::{AtomicU32, Ordering};

use expect_test::{Expect, expect};

use super::super::config::ProbesConfig;
use super::super::tests::{answered, section, serve, web};
use super::*;
use crate::collect::text;

fn scraper(yaml: &str) -> Scraper {
    let config =
        ProbesConfig::check(Vec::new(), section(&format!("- {{name: j, {yaml}}}")), "h1", Duration::from_secs(1));
    Scraper::new(&config.unwrap().targets[0], Names::default())
}

/// The text without what differs from run to run.
#[expect(clippy::needless_pass_by_value, reason = "expectations are written in place")]
fn check(scraped: &Scraped, expected: Expect) {
    let text = text::render(&scraped.families);
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("scrape_duration_seconds"));
    let failure = scraped.failure.iter().map(|failure| format!("{}: {}", failure.reason.as_str(), failure.words));
    expected.assert_eq(&lines.map(str::to_owned).chain(failure).map(|line| line + "\n").collect::<String>());
}

#[tokio::test]
async fn what_is_shown_is_taken_with_our_labels() {
    let server = web(|head| {
        assert!(head.contains("accept: application/openmetrics-text;"), "{head}");
        assert!(head.contains("x-prometheus-scrape-timeout-seconds: 1\r\n"), "{head}");
        let body = "# TYPE hits counter\nhits_total{instance=\"a\",site=\"x\",q=\"1\"} 5 1.5\nup 7\nhits_total{q=\"1\"} 6\nhits_total{q=\"1\"} 7\ngo_gc 1\n# EOF\n";
        answered("200 OK", "content-type: application/openmetrics-text; version=1.0.0\r\n", body)
    })
    .await;
    let mut scraper =
        scraper(&format!("interval: 1s, url: 'http://{server}/metrics', labels: {{site: here}}, drop: 'go_.*'"));
    let scraped = scraper.scrape().await;
    assert_eq!(scraped.doubles, 1);
    check(
        &scraped,
        expect![[r#"
            hits_total{exported_instance="a",exported_site="x",q="1",site="here"} 5
            hits_total{q="1",site="here"} 6
            up{site="here"} 1
            scrape_samples_scraped{site="here"} 5
            scrape_samples_post_metric_relabeling{site="here"} 2
            scrape_body_size_bytes{site="here"} 125
        "#]],
    );
    assert_eq!(scraped.families[0].kind, Kind::Counter);
}

#[tokio::test]
async fn a_scrape_that_fails_is_down_and_nothing_else() {
    let down =
        ["up 0", "scrape_samples_scraped 0", "scrape_samples_post_metric_relabeling 0", "scrape_body_size_bytes 0"];
    let cases = [
        ("500 Oh", "", "a 1\n", "status: answered 500 Internal Server Error, not 200 OK"),
        ("200 OK", "", "a 1\nb 2\nc 3\nd 4\n", "too_long: its metrics cannot be taken: line 4: more than 3 samples"),
        ("200 OK", "", "a 1\n<html>\n", "content: its metrics cannot be taken: line 2: expected a metric name"),
        (
            "200 OK",
            "content-type: application/openmetrics-text\r\n",
            "a 1\n",
            "content: its metrics cannot be taken: line 1: the text ends without `# EOF`; it was cut off",
        ),
    ];
    for (status, headers, body, words) in cases {
        let server = web(move |_| answered(status, headers, body)).await;
        let scraped = scraper(&format!("url: 'http://{server}/', samples_max: 3")).scrape().await;
        let text = text::render(&scraped.families);
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("scrape_duration"));
        assert_eq!(lines.collect::<Vec<_>>(), down);
        let failure = scraped.failure.unwrap();
        assert_eq!(format!("{}: {}", failure.reason.as_str(), failure.words), words);
    }
    let flood = serve(|mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = super::super::tests::head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'a'; 8192]).await.is_ok() {}
    })
    .await;
    let scraped = scraper(&format!("url: 'http://{flood}/', body_max: 64KiB")).scrape().await;
    assert_eq!(scraped.failure.unwrap().reason, Reason::TooLong);
}

#[tokio::test]
async fn a_secret_is_read_anew_and_a_series_that_goes_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let times = Arc::new(AtomicU32::new(0));
    let server = web(move |head| {
        let word = if times.fetch_add(1, Ordering::Relaxed) == 0 { "first" } else { "second" };
        if head.contains(&format!("authorization: Bearer {word}\r\n")) {
            answered("200 OK", "", &format!("seen{{word=\"{word}\"}} 1\nsame 1\n"))
        } else {
            answered("401 Unauthorized", "", "")
        }
    })
    .await;
    let yaml =
        format!("- {{name: j, interval: 1s, url: 'http://{server}/?t=x', bearer_token_file: {}}}", token.display());
    let config = ProbesConfig::check(Vec::new(), section(&yaml), "h1", Duration::from_secs(1)).unwrap();
    assert_eq!(config.targets[0].instance, format!("h1:{}", server.port()), "loopback is the agent's own");
    let (mut tasks, stop) = (tokio::task::JoinSet::new(), tokio_util::sync::CancellationToken::new());
    let rng = rand::SeedableRng::seed_from_u64(1);
    let board = super::super::start(config, crate::clock::wall(), rng, &mut tasks, &stop);
    let begun = Instant::now();
    let mut readings: Vec<Reading> = Vec::new();
    while readings.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let more = board.take_readings();
        if readings.is_empty() && !more.is_empty() {
            std::fs::write(&token, "second\n").unwrap();
        }
        readings.extend(more);
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    assert!(text::render(&readings[0].families).contains("seen{word=\"first\"} 1"));
    assert!(text::render(&readings[1].families).contains("seen{word=\"second\"} 1"));
    assert!(readings[1].at >= readings[0].at + 900 && &*readings[0].job == "j");
}
