//! The HAProxy driver against a real HAProxy on sockets of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_agent::collect::text::render;
use petrel_agent::collect::{Collectors, RawCollectConfig};
use petrel_agent::drive::{Act, DriveConfig, Executor, Haproxy, HaproxyConfig, HaproxySocket, Opening, Read, Watch};
use petrel_agent::stream::protocol::{Order, OrderOutcome};
use petrel_tests::process::{Process, wait_for};
use serde_json::{Value, json};

use crate::conformance::{Subject, carry_out, conforms, executor, order, refused};

/// A HAProxy with servers that are never connected to.
struct Balancer {
    _process: Process,
    folder: tempfile::TempDir,
}

impl Balancer {
    fn start() -> Balancer {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let config = format!(
            "global\n stats socket {place}/admin.sock mode 600 level admin\n\
             defaults\n mode http\n timeout connect 2s\n timeout client 2s\n timeout server 2s\n\
             frontend fe\n bind unix@{place}/front.sock\n default_backend vms\n\
             backend vms\n server a 127.0.0.1:9 weight 100\n server b 127.0.0.1:9 weight 50\n\
             \x20server c 127.0.0.1:9 backup\n server d 127.0.0.1:9 disabled\n\
             backend fixed\n balance static-rr\n server e 127.0.0.1:9\n server f 127.0.0.1:9\n"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-q", "-db", "-f"]).arg(&file);
        let balancer = Balancer { _process: Process::start(&mut command, &folder.path().join("log")), folder };
        wait_for("HAProxy to answer", Duration::from_secs(20), || balancer.driver().read().problems.is_empty());
        balancer
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn driver(&self) -> Haproxy {
        Haproxy::over(HaproxyConfig { socket: HaproxySocket::Unix(self.socket()) })
    }

    fn state(&self) -> String {
        let servers = self.driver().read().balancer_servers;
        let line = |server: &petrel_agent::stream::protocol::BalancerServer| {
            format!(
                "{}/{} {} {} of {}",
                server.backend, server.server, server.status, server.weight, server.backend_active
            )
        };
        servers.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn on_a(action: &str, step: u32, more: &Value) -> Order {
    let mut order = order(action, step, &json!({"backend": "vms", "server": "a"}));
    order.with.extend(more.as_object().unwrap().clone());
    order
}

/// A sample is read with its round: what is ordered is in the next one.
#[test]
fn figures_follow_an_order_at_once() {
    let balancer = Balancer::start();
    let haproxy = Some(HaproxyConfig { socket: HaproxySocket::Unix(balancer.socket()) });
    let drive = DriveConfig { haproxy, ..DriveConfig::default() };
    let mut collectors = Collectors::new(&RawCollectConfig::default().check().unwrap().beside(&drive));
    let state = |text: &str, state: &str| {
        let series = format!("haproxy_server_status{{proxy=\"vms\",server=\"a\",state=\"{state}\"}} 1");
        text.lines().any(|line| line == series)
    };
    let text = render(&collectors.collect());
    assert!(state(&text, "UP") && text.contains("haproxy_up 1\n"), "{text}");
    assert!(text.contains("haproxy_backend_agg_server_status{proxy=\"vms\",state=\"MAINT\"} 1\n"), "{text}");
    let driver: Arc<dyn Act> = Arc::new(balancer.driver());
    let folder = tempfile::tempdir().unwrap();
    let hands = executor("haproxy", &driver, "haproxy.drain", folder.path());
    assert_eq!(carry_out(&hands, on_a("haproxy.drain", 0, &json!({}))).outcome, OrderOutcome::Done);
    let text = render(&collectors.collect());
    assert!(state(&text, "DRAIN"), "{text}");
    drop(balancer);
    let text = render(&collectors.collect());
    assert!(text.contains("haproxy_up 0\n") && !text.contains("haproxy_server_status{"), "{text}");
}

#[test]
fn haproxy_conforms() {
    let balancer = Balancer::start();
    let nowhere = HaproxySocket::Unix(balancer.folder.path().join("nobody.sock"));
    for (action, more, extra) in [
        ("haproxy.drain", json!({}), None),
        ("haproxy.set_weight", json!({"weight": 7}), Some(("weight", json!(257), "0 to 256"))),
    ] {
        let mut wrong = vec![
            ("backend", json!("nowhere"), "no such backend"),
            ("server", json!("z"), "no such server"),
            ("server", json!("a; disable server vms/b"), "must be a name"),
            ("server", json!(1), "must be text"),
        ];
        wrong.extend(extra);
        conforms(&Subject {
            name: "haproxy",
            driver: Arc::new(balancer.driver()),
            blind: Arc::new(Haproxy::over(HaproxyConfig { socket: nowhere.clone() })),
            good: on_a(action, 0, &more),
            wrong,
            unmet: ("state", json!("drain")),
            state: &|| balancer.state(),
            undo_restores: true,
        });
    }
}

#[test]
fn the_last_active_server_and_maintenance_are_left_alone() {
    let balancer = Balancer::start();
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = Arc::new(balancer.driver());
    let hands = executor("haproxy", &driver, "haproxy.drain", folder.path());
    let on = |server: &str, step| order("haproxy.drain", step, &json!({"backend": "vms", "server": server}));
    assert_eq!(
        balancer.state(),
        "vms/a no check 100 of 2\nvms/b no check 50 of 2\nvms/c no check 1 of 2\nvms/d MAINT 1 of 2\n\
         fixed/e no check 1 of 2\nfixed/f no check 1 of 2"
    );
    assert_eq!(carry_out(&hands, on("a", 0)).outcome, OrderOutcome::Done);
    refused(&hands, on("b", 1), "no active server left");
    refused(&hands, on("d", 2), "in maintenance");
    // Nobody may bring a server back from maintenance either.
    let folder = tempfile::tempdir().unwrap();
    let hands = executor("haproxy", &driver, "haproxy.ready", folder.path());
    let ready = |server: &str, step| order("haproxy.ready", step, &json!({"backend": "vms", "server": server}));
    refused(&hands, ready("d", 3), "in maintenance");
    assert_eq!(carry_out(&hands, ready("a", 4)).outcome, OrderOutcome::Done);
    assert!(balancer.state().starts_with("vms/a no check 100 of 2"));
}

#[test]
fn haproxys_own_words_come_back() {
    let balancer = Balancer::start();
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = Arc::new(balancer.driver());
    let hands = executor("haproxy", &driver, "haproxy.set_weight", folder.path());
    let answer =
        carry_out(&hands, order("haproxy.set_weight", 0, &json!({"backend": "fixed", "server": "e", "weight": 7})));
    let OrderOutcome::Failed { reason } = &answer.outcome else { panic!("{answer:?}") };
    assert!(reason.contains("static LB algorithm"), "{reason}");
}

#[test]
fn a_hold_between_the_journal_and_the_command_still_holds() {
    let balancer = Balancer::start();
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = Arc::new(balancer.driver());
    let hands = executor("haproxy", &driver, "haproxy.drain", folder.path());
    let before = balancer.state();
    let Opening::Begun(prepared) = hands.open(on_a("haproxy.drain", 0, &json!({})), Instant::now()) else {
        panic!("it begins")
    };
    std::fs::write(folder.path().join("hold"), "").unwrap();
    let answer = hands.perform(&prepared, Watch::lasting(Duration::from_secs(20))).expect("nobody stops it");
    assert!(matches!(answer.outcome, OrderOutcome::Refused { .. }), "{answer:?}");
    assert_eq!(balancer.state(), before);
}

#[test]
fn what_a_crash_interrupts_is_told_by_the_state() {
    let balancer = Balancer::start();
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = Arc::new(balancer.driver());
    let again = || executor("haproxy", &driver, "haproxy.drain", folder.path());
    let resolve = |hands: &Executor| {
        let begun = hands.unfinished().remove(0);
        hands.resolve(&begun, Watch::lasting(Duration::from_secs(20))).expect("nobody stops it").outcome
    };
    // Died before the command, and after it.
    assert!(matches!(again().open(on_a("haproxy.drain", 0, &json!({})), Instant::now()), Opening::Begun(_)));
    assert!(matches!(resolve(&again()), OrderOutcome::Failed { .. }));
    let order = on_a("haproxy.drain", 1, &json!({}));
    assert!(matches!(again().open(order.clone(), Instant::now()), Opening::Begun(_)));
    driver.apply(&order, &driver.check(&order).unwrap(), &Watch::lasting(Duration::from_secs(20))).unwrap();
    assert_eq!(resolve(&again()), OrderOutcome::Done);
    assert!(again().unfinished().is_empty());
}
