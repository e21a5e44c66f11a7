//! The rim on a real `control.db`: what is kept, what a restart finds, what a failed write lets out (nothing).

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::*;
use crate::remedy::judge::tests::Held;
use crate::remedy::{MIGRATIONS, Remedy};
use crate::store::Mark;
use crate::store::control::{Control, Migration};
use crate::store::marks;
use petrel_agent::stream::protocol::Class;

struct Server {
    dir: tempfile::TempDir,
    remedy: Arc<Remedy>,
    control: Arc<Control>,
    now: i64,
}

impl Server {
    fn start(dir: tempfile::TempDir, now: i64) -> Server {
        let migrations: Vec<Migration> = MIGRATIONS.iter().copied().chain([marks::MIGRATION]).collect();
        let control = Arc::new(Control::open(&dir.path().join("control.db"), &migrations).unwrap());
        let text = DRAIN.replace("guards:", "min_history: 0s\nguards:").replace("sessions{", "free{");
        let runbooks = load(&[(PathBuf::from("r.yaml"), text)]).unwrap();
        let settings = RawRemedy::default().check().unwrap();
        let remedy = Remedy::open(control.clone(), runbooks, Facts::default(), settings, now).unwrap();
        let mut server = Server { dir, remedy, control, now };
        server.pass(31);
        server
    }

    fn restart(self) -> Server {
        let (dir, now) = (self.dir, self.now);
        drop((self.remedy, self.control));
        Server::start(dir, now)
    }

    fn source(&self) -> Held {
        Held::default().with("free", "web1", &[(self.now / 1000, 10.0)])
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            let mut servers = [server("web1"), server("web2")].to_vec();
            for one in &mut servers {
                one.backend_active = 2;
            }
            let allowed = vec!["haproxy.drain".to_owned(), "haproxy.set_weight".to_owned()];
            let agent = "lb".to_owned();
            let inventory =
                Inventory { agent, seen_at: self.now, allowed, balancer_servers: servers, ..Inventory::default() };
            assert_eq!(self.remedy.see(inventory, self.now).unwrap(), None);
            self.remedy.tick(&self.source(), self.now).unwrap();
        }
    }

    fn answer(&self, seq: u64, outcome: OrderOutcome) -> Vec<String> {
        let mark = Mark { agent: "lb".to_owned(), epoch: "e1".to_owned(), class: Class::Answers, seq };
        let key = OrderKey { run: 1, step: 0 };
        let (command, before) = (String::new(), Map::new());
        let answer = OrderAnswer { key, fencing_epoch: 1, at: self.now, outcome, command, before };
        self.remedy.answers(&mark, vec![answer], self.now).unwrap()
    }

    fn journal(&self) -> Vec<String> {
        let (_, lines) = self.remedy.run(1).unwrap().unwrap();
        lines.into_iter().map(|line| line.what).collect()
    }
}

fn started() -> Server {
    let mut server = Server::start(tempfile::tempdir().unwrap(), 0);
    server.remedy.reconcile(&[alert("web1", true, server.now)], &|_| false, server.now).unwrap();
    server.pass(1);
    server
}

#[test]
fn an_order_survives_a_restart_and_leaves_once() {
    let server = started();
    assert_eq!(server.journal(), ["planned", "ordered"]);
    let mut server = server.restart();
    let orders = server.remedy.pull("lb", server.now).unwrap();
    assert_eq!((orders.len(), orders[0].action.as_str()), (1, "haproxy.set_weight"));
    assert!(orders[0].ttl_ms < 60_000, "the time in the journal counts");
    assert_eq!(server.remedy.take_censored().into_iter().collect::<Vec<_>>(), ["host:web1"]);
    for _ in 0..2 {
        assert!(server.remedy.pull("lb", server.now).unwrap().is_empty());
        server = server.restart();
    }
    assert_eq!(server.journal(), ["planned", "ordered", "handed_out"]);
}

/// The agent's request hangs on this; the rest of its way is tested with the routes.
#[test]
fn an_order_wakes_its_agent() {
    let mut server = Server::start(tempfile::tempdir().unwrap(), 0);
    let wake = server.remedy.wake("lb");
    assert!(wake.notified().now_or_never().is_none());
    server.remedy.reconcile(&[alert("web1", true, server.now)], &|_| false, server.now).unwrap();
    server.pass(1);
    assert!(wake.notified().now_or_never().is_some());
}

#[test]
fn a_batch_of_answers_counts_once() {
    let server = started();
    server.remedy.pull("lb", server.now).unwrap();
    server.answer(1, OrderOutcome::Started);
    server.answer(1, OrderOutcome::Started);
    assert_eq!(server.journal().iter().filter(|kind| *kind == "answered").count(), 1);
    let server = server.restart();
    server.answer(1, OrderOutcome::Failed { reason: "again".to_owned() });
    assert_eq!(server.journal().iter().filter(|kind| *kind == "answered").count(), 1);
    server.answer(2, OrderOutcome::Failed { reason: "no such server".to_owned() });
    assert_eq!(server.remedy.snapshot(9).runs[0].state, "stopped");
}

#[test]
fn a_failed_write_lets_nothing_out_and_the_disk_counts() {
    let mut server = started();
    let break_it = "CREATE TRIGGER full BEFORE INSERT ON run_journal BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    server.control.write(|tx| tx.execute_batch(break_it)).unwrap();
    assert!(server.remedy.pull("lb", server.now).is_err());
    assert!(server.remedy.pull("lb", server.now).is_err());
    server.control.write(|tx| tx.execute_batch("DROP TRIGGER full")).unwrap();
    assert_eq!(server.remedy.pull("lb", server.now).unwrap().len(), 1);
    server.pass(1);
    assert_eq!(server.journal(), ["planned", "ordered", "handed_out"]);
}

#[test]
fn a_restored_database_holds_everything_under_a_new_epoch() {
    let server = started();
    server.control.write(|tx| crate::remedy::journal::restored(tx, 1_000)).unwrap();
    let server = server.restart();
    assert!(server.remedy.snapshot(0).held);
    assert!(server.remedy.pull("lb", server.now).unwrap().is_empty());
    let hold = Event::Hold { on: false, by: "kim".to_owned() };
    server.remedy.handle(hold, server.now).unwrap();
    let memory = server.control.read(crate::remedy::journal::load).unwrap();
    assert_eq!((memory.fencing_epoch, memory.held), (2, false));
    assert!(memory.run_next > 1_000_000);
}

#[test]
fn totals_are_samples_and_outlive_a_restart() {
    let server = started();
    server.remedy.pull("lb", server.now).unwrap();
    server.answer(1, OrderOutcome::Failed { reason: "no".to_owned() });
    let server = server.restart();
    let batch = server.remedy.tick(&server.source(), server.now + 60_000).unwrap();
    let stopped = batch.series.iter().find(|(labels, _)| labels.get("outcome") == Some("stopped")).unwrap();
    assert_eq!(
        (stopped.0.to_string(), stopped.1[0].v),
        (r#"petrel_runs_total{outcome="stopped", runbook="drain"}"#.to_owned(), 1.0)
    );
    assert!(batch.series.iter().any(|(labels, samples)| labels.get("outcome") == Some("done") && samples[0].v == 0.0));
}
