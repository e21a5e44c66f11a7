//! Checks against real servers, programs and name servers, good and bad.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::super::config::ProbesConfig;
use super::super::outcome::families;
use super::super::tests::{Authority, answered, head, section, serve, web};
use super::*;
use crate::collect::text;

fn checker(yaml: &str) -> Checker {
    let checks = section(&format!("- {{name: c, {yaml}}}"));
    let config = ProbesConfig::check(checks, Vec::new(), "h1", Duration::from_secs(10)).unwrap();
    Checker::new(&config.checks[0], Names::default(), StdRng::seed_from_u64(7))
}

async fn run(yaml: &str) -> Outcome {
    checker(yaml).run().await
}

/// `well`, or the reason.
fn end(outcome: &Outcome) -> &'static str {
    let end = outcome.failure.as_ref().map_or("well", |failure| failure.reason.as_str());
    assert_eq!(outcome.value(Measure::Success), Some(f64::from(u8::from(end == "well"))));
    end
}

#[tokio::test]
async fn tcp() {
    let greeter = serve(|mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_10\r\n").await;
        let mut word = [0; 4];
        if stream.read_exact(&mut word).await.is_ok() {
            let _ = stream.write_all(b"+PONG").await;
        }
        let _ = stream.read_u8().await;
    })
    .await;
    assert_eq!(end(&run(&format!("tcp: {{target: '{greeter}'}}")).await), "well");
    let outcome = run(&format!("tcp: {{target: '{greeter}', send: PING, expect: '^SSH-2[.](?s-u:.)*PONG'}}")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::IpProtocol)), ("well", Some(4.0)));
    let outcome = run(&format!("timeout: 300ms, tcp: {{target: '{greeter}', expect: FTP}}")).await;
    assert_eq!(end(&outcome), "timeout", "it may still come");
    let closer = serve(|mut stream| async move { drop(stream.write_all(b"no").await) }).await;
    let outcome = run(&format!("tcp: {{target: '{closer}', expect: yes}}")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::FailedByRegex)), ("content", Some(1.0)));
    let flood = serve(|mut stream| async move { while stream.write_all(&[b'x'; 8192]).await.is_ok() {} }).await;
    assert_eq!(end(&run(&format!("tcp: {{target: '{flood}', expect: yes}}")).await), "content");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(end(&run(&format!("tcp: {{target: '{free}'}}")).await), "connect");
    assert_eq!(end(&run(&format!("ip: '6', tcp: {{target: '{greeter}'}}")).await), "lookup");
}

#[tokio::test]
async fn http_status_body_and_redirects() {
    let server = web(|head| match head.split(' ').nth(1).unwrap() {
        "/circle" => answered("302 Found", "location: /circle\r\n", ""),
        "/moved" => answered("302 Found", "location: /\r\n", ""),
        "/teapot" => answered("418 I'm a teapot", "", "short and stout"),
        "/key" if head.contains("x-key: hunter2\r\n") => answered("200 OK", "", "with key"),
        _ => answered("200 OK", "", "all is well"),
    })
    .await;
    let at = |path: &str, more: &str| format!("http: {{url: 'http://{server}{path}', {more}}}");
    let outcome = run(&at("/moved", "body_matches: all is .ell")).await;
    assert_eq!(end(&outcome), "well");
    let values = [Measure::HttpStatus, Measure::HttpRedirects, Measure::HttpVersion, Measure::HttpBodyLength];
    assert_eq!(values.map(|measure| outcome.value(measure)), [Some(200.0), Some(1.0), Some(1.1), Some(11.0)]);
    assert_eq!(end(&run(&at("/", "body_matches: broken")).await), "content");
    assert_eq!(end(&run(&at("/", "body_not_matches: well")).await), "content");
    assert_eq!(end(&run(&at("/teapot", "")).await), "status");
    assert_eq!(end(&run(&at("/teapot", "status: [200, 418], body_matches: stout")).await), "well");
    assert_eq!(end(&run(&at("/moved", "redirects: 0, status: [302]")).await), "well");
    let outcome = run(&at("/circle", "redirects: 3")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::HttpRedirects)), ("redirect", Some(4.0)));

    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let with_key = format!("header_files: {{x-key: {}}}, body_matches: with key", key.display());
    assert_eq!(end(&run(&at("/key", &with_key)).await), "config", "there is no file");
    std::fs::write(&key, "hunter2\n").unwrap();
    assert_eq!(end(&run(&at("/key", &with_key)).await), "well");
    let elsewhere =
        web(move |_| answered("302 Found", &format!("location: http://{server}/key?hunter2\r\n"), "")).await;
    let outcome = run(&format!("http: {{url: 'http://{elsewhere}/', {with_key}}}")).await;
    let words = outcome.failure.clone().unwrap().words;
    assert!(end(&outcome) == "redirect" && words.contains("do not belong") && !words.contains("hunter2"), "{words}");
}

#[tokio::test]
async fn http_bodies_without_end_and_without_haste() {
    let head_only = b"HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n";
    let flood = serve(move |mut stream| async move {
        let _ = head(&mut stream).await;
        let _ = stream.write_all(head_only).await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    })
    .await;
    let outcome = run(&format!("http: {{url: 'http://{flood}', body_matches: y, body_max: 1MiB}}")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::HttpContentLength)), ("too_long", Some(4e9)));
    assert_eq!(end(&run(&format!("http: {{url: 'http://{flood}'}}")).await), "well", "nobody asked for its body");
    let drip = serve(move |mut stream| async move {
        let _ = head(&mut stream).await;
        let _ = stream.write_all(head_only).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let outcome = run(&format!("timeout: 300ms, http: {{url: 'http://{drip}', body_matches: y}}")).await;
    assert_eq!(end(&outcome), "timeout");
    assert!(outcome.value(Measure::Duration).unwrap() < 5.0);
    let babble = serve(|mut stream| async move { drop(stream.write_all(b"SSH-2.0-x\r\n").await) }).await;
    assert_eq!(end(&run(&format!("http: {{url: 'http://{babble}'}}")).await), "protocol");
}

#[tokio::test]
async fn certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let others = Authority::new(tempfile::tempdir().unwrap().path());
    let (good, late) = (ours.web("127.0.0.1", 2098).await, ours.web("127.0.0.1", 2020).await);
    let (wrong_name, foreign) = (ours.web("web1.example", 2098).await, others.web("127.0.0.1", 2098).await);
    let ask = |server: SocketAddr, tls: &str| format!("http: {{url: 'https://{server}/', tls: {{{tls}}}}}");
    let ca = format!("ca_file: {}", ours.file.display());
    let mut checker = checker(&ask(good, &ca));
    for _ in 0..2 {
        let outcome = checker.run().await;
        assert_eq!(end(&outcome), "well", "{:?}", outcome.failure);
        let end = outcome.value(Measure::CertificateEnd);
        assert_eq!((end, outcome.value(Measure::HttpTls)), (Some(4_070_822_400.0), Some(1.0)), "each run sees it");
    }
    let outcome = run(&ask(late, &ca)).await;
    assert_eq!((end(&outcome), outcome.value(Measure::CertificateEnd)), ("tls", Some(1_609_372_800.0)));
    assert_eq!(end(&run(&ask(wrong_name, &ca)).await), "tls");
    assert_eq!(end(&run(&ask(wrong_name, &format!("{ca}, server_name: web1.example"))).await), "well");
    assert_eq!(end(&run(&ask(foreign, &ca)).await), "tls");
    let outcome = run(&ask(late, "insecure: true")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::CertificateEnd)), ("well", Some(1_609_372_800.0)));
    assert_eq!(end(&run(&ask(good, "ca_file: /nonexistent/ca.pem")).await), "config");
}

/// A name server: what it is asked, as a whole message, goes to `answer`, which says what it sends back.
async fn name_server(answer: impl Fn(u32, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut datagram, mut times) = ([0; 512], 0);
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            times += 1;
            for message in answer(times, &datagram[..length]) {
                socket.send_to(&message, from).await.unwrap();
            }
        }
    });
    address
}

/// The question, answered with an address for each byte.
fn resolved(question: &[u8], flags: [u8; 2], addresses: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags);
    message[7] = addresses.len() as u8;
    for last in addresses {
        message.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, *last]);
    }
    message
}

#[tokio::test]
async fn dns() {
    let good = name_server(|_, question| {
        let mut forged = resolved(question, [0x81, 0x80], &[66]);
        forged[0] ^= 1;
        vec![forged, b"noise".to_vec(), resolved(question, [0x81, 0x80], &[1, 2])]
    })
    .await;
    let ask = |server: SocketAddr, more: &str| format!("dns: {{name: web1.example, server: '{server}', {more}}}");
    let outcome = run(&ask(good, "answers: [192.0.2.2]")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::DnsAnswers)), ("well", Some(2.0)), "{:?}", outcome.failure);
    assert_eq!(end(&run(&ask(good, "answers: [192.0.2.2, 192.0.2.66]")).await), "content");
    let nothing = name_server(|_, question| vec![resolved(question, [0x81, 0x83], &[])]).await;
    let outcome = run(&ask(nothing, "")).await;
    assert!(end(&outcome) == "status" && outcome.failure.unwrap().words.contains("NXDOMAIN"));
    let empty = name_server(|_, question| vec![resolved(question, [0x81, 0x80], &[])]).await;
    assert_eq!(end(&run(&ask(empty, "")).await), "content");
    let forgetful = name_server(|times, question| match times {
        1 => Vec::new(),
        _ => vec![resolved(question, [0x81, 0x80], &[1])],
    })
    .await;
    assert_eq!(end(&run(&ask(forgetful, "")).await), "well", "a lost datagram is sent again");
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outcome = run(&format!("timeout: 200ms, {}", ask(silent.local_addr().unwrap(), ""))).await;
    assert_eq!(end(&outcome), "timeout");
}

#[tokio::test]
async fn dns_answers_that_are_too_long_come_by_tcp() {
    let streams = serve(|mut stream| async move {
        let length = stream.read_u16().await.unwrap();
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        let answer = resolved(&question, [0x81, 0x80], &(0..200).collect::<Vec<u8>>());
        stream.write_u16(answer.len() as u16).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    })
    .await;
    let datagrams = UdpSocket::bind(streams).await.unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut datagram).await {
            datagrams.send_to(&resolved(&datagram[..length], [0x83, 0x80], &[]), from).await.unwrap();
        }
    });
    let outcome = run(&format!("dns: {{name: web1.example, server: '{streams}', answers: [192.0.2.199]}}")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::DnsAnswers)), ("well", Some(200.0)), "{:?}", outcome.failure);
}

#[tokio::test]
async fn exec() {
    let sh = |script: &str, more: &str| format!("exec: {{command: [/bin/sh, -c, '{script}'], {more}}}");
    assert_eq!(end(&run(&sh("exit 0", "")).await), "well");
    let outcome = run(&sh("echo DISK WARNING; exit 1", "")).await;
    assert_eq!((end(&outcome), outcome.value(Measure::ExitCode)), ("status", Some(1.0)));
    assert_eq!(outcome.failure.unwrap().words, "exited with 1: DISK WARNING");
    assert_eq!(end(&run(&sh("exit 1", "exit: [0, 1]")).await), "well");
    let outcome = run(&sh("echo \"OK|load1=0.5;5;10 free=7GB\"", "perfdata: true")).await;
    let written = text::render(&families(&[("load", "/bin/sh", &outcome)]));
    assert!(
        written.contains(r#"petrel_check_perfdata{check="load",target="/bin/sh",label="free",unit="GB"} 7"#),
        "{written}"
    );
    assert_eq!(end(&run("exec: {command: [/nonexistent/check]}").await), "config");
    let outcome = run(&format!("timeout: 300ms, {}", sh("sleep 600 & sleep 600 & wait", ""))).await;
    assert_eq!(end(&outcome), "timeout");
    assert!(outcome.value(Measure::Duration).unwrap() < 5.0, "it is killed with its children");
    let outcome = run(&format!("timeout: 1s, {}", sh("cat /dev/zero", "perfdata: true"))).await;
    assert_eq!(end(&outcome), "timeout");
    assert_eq!(end(&run(&sh("head -c 50000000 /dev/zero", "")).await), "well", "a flood is read and thrown away");
}

/// While one check hangs, another goes on: each has a task of its own.
#[tokio::test]
async fn a_check_that_hangs_delays_no_other() {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    let quick = web(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        answered("200 OK", "", "")
    })
    .await;
    let slow = serve(|mut stream| async move { drop(stream.read_u64().await) }).await;
    let hangs =
        (0..100).map(|n| format!("- {{name: slow{n}, interval: 1s, timeout: 1s, http: {{url: 'http://{slow}'}}}}\n"));
    let yaml =
        format!("{}- {{name: quick, interval: 1s, http: {{url: 'http://{quick}'}}}}\n", hangs.collect::<String>());
    let config = ProbesConfig::check(section(&yaml), Vec::new(), "h1", Duration::from_secs(10)).unwrap();
    let (mut tasks, stop) = (tokio::task::JoinSet::new(), tokio_util::sync::CancellationToken::new());
    let rng = StdRng::seed_from_u64(1);
    let board = super::super::start(config, crate::clock::wall(), rng, &mut tasks, &stop);
    let begun = Instant::now();
    while asked.load(Ordering::Relaxed) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "asked {asked:?} times");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let written = text::render(&board.families());
    assert!(written.contains("probe_success{check=\"quick\""), "{written}");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}
