//! Remedy against a simulated platform: a balancer, three hypervisors and their agents in virtual time, with a disk that keeps
//! exactly what the engine wants kept. The agents model the contract: at most one start per key, an inventory every ten seconds.

mod crash;
mod disk;
mod evacuation;
mod laws;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use petrel_agent::stream::protocol::{
    BalancerServer, Guest, Hypervisor, Inventory, Order, OrderAnswer, OrderKey, OrderOutcome, Owner,
};
use serde_json::{Map, Value, json};

use super::engine::{Engine, Memory};
use super::event::{Effect, Event, Objection, Word};
use super::fleet::Facts;
use super::load::load;
use super::run::{Outcome, Run, RunId};
use super::settings::{RawRemedy, Settings};
use crate::decide::alert::{Alert, AlertState, Basis, Level, PredictionNote};

/// One second of virtual time.
const SECOND: i64 = 1000;

/// The world outside of the engine.
struct Sim {
    engine: Engine,
    now: i64,
    facts: Facts,
    settings: Settings,
    runbooks: String,
    servers: Vec<BalancerServer>,
    hosts: Vec<Hypervisor>,
    /// Actions that agents allow.
    allowed: Vec<String>,
    /// Agents that neither report nor ask.
    mute: BTreeSet<String>,
    /// Parts of conditions that do not hold now.
    untrue: Vec<String>,
    /// What the platform answers instead of doing it, by action.
    answers: BTreeMap<String, OrderOutcome>,
    firing: Vec<Alert>,
    disk: Vec<Vec<Effect>>,
    delivered: Vec<OrderKey>,
    applied: Vec<(OrderKey, String)>,
    /// The server dies after so many commits: before what they let out leaves, or after.
    dies: Option<(usize, bool)>,
    journal: String,
}

const DRAIN: &str = r#"
runbook: drain
when: {alert: ['alertname="DiskWillFill"']}
mode: auto
cooldown: 10m
undo_when_resolved: true
guards: [{promql: 'free{instance="{{ labels.instance }}"} < 30', reason: there is room}]
steps:
  - action: haproxy.set_weight
    on: lb
    with: {backend: web, server: "{{ labels.instance }}", weight: 10}
    undo: true
  - action: haproxy.drain
    on: lb
    with: {backend: web, server: "{{ labels.instance }}"}
    verify: {promql: 'sessions{server="{{ labels.instance }}"} == 0', within: 30s}
    undo: true
"#;

const EVACUATE: &str = r#"
runbook: evacuate
when: {alert: ['alertname="DiskWillFill"']}
mode: auto
guards: [{promql: 'free < 30', reason: there is room, precursor: true}]
steps:
  - action: libvirt.evacuate
    with: {host: "{{ labels.instance }}"}
"#;

fn alert(instance: &str, predicted: bool, fired_at: i64) -> Alert {
    let labels = [("alertname", "DiskWillFill"), ("instance", instance)];
    Alert {
        fingerprint: format!("f-{instance}"),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        annotations: BTreeMap::new(),
        state: AlertState::Firing,
        level: Level::Warning,
        value: 1.0,
        active_at: fired_at,
        fired_at: Some(fired_at),
        resolved_at: None,
        generator_url: String::new(),
        prediction: predicted.then_some(PredictionNote { probability: 0.9, lead_seconds: Some(3600.0) }),
        basis: if predicted { Basis::Predicted } else { Basis::Measured },
    }
}

fn server(name: &str) -> BalancerServer {
    BalancerServer {
        backend: "web".to_owned(),
        server: name.to_owned(),
        status: "UP".to_owned(),
        weight: 100,
        sessions: 3,
        backend_active: 0,
    }
}

fn guest(name: &str, memory_gib: u64) -> Guest {
    Guest {
        uuid: format!("u-{name}"),
        name: name.to_owned(),
        state: "running".to_owned(),
        memory_bytes: memory_gib << 30,
        vcpus: 1,
        cpu_seconds_total: 0.0,
        owner: Owner::Petrel,
        obstacles: Vec::new(),
        migrating: false,
    }
}

fn hypervisor(name: &str, guests: Vec<Guest>) -> Hypervisor {
    Hypervisor {
        host: name.to_owned(),
        migration_uri: format!("qemu+tcp://{name}/system"),
        memory_bytes: 16 << 30,
        memory_bytes_available: 0,
        cpus: 8,
        cpu_model: "x86_64".to_owned(),
        carries_petrel: false,
        guests,
    }
}

impl Sim {
    fn new(runbooks: &str) -> Sim {
        let settings = RawRemedy::default().check().unwrap();
        let facts = Facts::parse(
            std::path::Path::new("fleet.yaml"),
            "domains: [{name: r1, hosts: [h1]}, {name: r2, hosts: [h2, h3]}]",
        )
        .unwrap();
        let memory = Memory { fencing_epoch: 1, run_next: 1, ..Memory::default() };
        let words = ["haproxy.drain", "haproxy.set_weight", "haproxy.ready", "libvirt.migrate"];
        let mut sim = Sim {
            engine: Engine::new(settings.clone(), facts.clone(), memory, 0),
            now: 0,
            facts,
            settings,
            runbooks: runbooks.to_owned(),
            servers: vec![server("web1"), server("web2")],
            hosts: vec![
                hypervisor("h1", vec![guest("a", 2), guest("b", 3)]),
                hypervisor("h2", vec![]),
                hypervisor("h3", vec![]),
            ],
            allowed: words.map(str::to_owned).to_vec(),
            mute: BTreeSet::new(),
            untrue: Vec::new(),
            answers: BTreeMap::new(),
            firing: Vec::new(),
            disk: Vec::new(),
            delivered: Vec::new(),
            applied: Vec::new(),
            dies: None,
            journal: String::new(),
        };
        sim.take_runbooks();
        sim.pass(40);
        sim
    }

    fn take_runbooks(&mut self) {
        let runbooks = load(&[(PathBuf::from("r.yaml"), self.runbooks.clone())]).unwrap();
        self.engine.replace_runbooks(runbooks);
    }

    fn fire(&mut self, instance: &str, predicted: bool) {
        self.firing.push(alert(instance, predicted, self.now));
    }

    fn resolve(&mut self) {
        for alert in std::mem::take(&mut self.firing) {
            self.step(Event::AlertResolved { fingerprint: alert.fingerprint });
        }
    }

    fn say(&mut self, run: RunId, word: Word) -> Option<String> {
        let effects = self.step(Event::Word { run, word, by: "kim".to_owned(), reason: String::new() });
        super::service::rejection(&effects)
    }

    fn hold(&mut self, on: bool) {
        self.step(Event::Hold { on, by: "kim".to_owned() });
    }

    /// One event: kept on disk first; the server may die right there.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.engine.step(event, self.now);
        let kept: Vec<Effect> =
            effects.iter().filter(|one| super::journal::is_worth_keeping(std::slice::from_ref(one))).cloned().collect();
        if !kept.is_empty() {
            for effect in &kept {
                if let Effect::Journal(entry) = effect {
                    let step = entry.step.map_or(String::new(), |step| format!(" {step}"));
                    self.journal.extend([entry.kind.as_str(), &step, ": ", &entry.text, "\n"]);
                }
            }
            self.disk.push(kept);
            if let Some((_, after)) = self.dies.filter(|(commits, _)| *commits == self.disk.len()) {
                self.dies = None;
                self.restart();
                return if after { effects } else { Vec::new() };
            }
        }
        effects
    }

    /// What a new process makes of the disk.
    fn restart(&mut self) {
        let mut memory = Memory { fencing_epoch: 1, run_next: 1, ..Memory::default() };
        let mut runs: BTreeMap<RunId, Run> = BTreeMap::new();
        for effect in self.disk.iter().flatten() {
            match effect {
                Effect::RunChanged(run) => drop(runs.insert(run.id, (**run).clone())),
                Effect::HoldChanged(on) => memory.held = *on,
                Effect::DutyChanged { host, note: Some(note) } => {
                    drop(memory.duties.insert(host.clone(), note.clone()));
                }
                Effect::DutyChanged { host, note: None } => drop(memory.duties.remove(host)),
                Effect::AgentHeard { agent, at } => drop(memory.heard.insert(agent.clone(), *at)),
                _ => {}
            }
        }
        memory.run_next = runs.keys().max().map_or(1, |last| last + 1);
        memory.runs = runs.into_values().collect();
        self.engine = Engine::new(self.settings.clone(), self.facts.clone(), memory, self.now);
        self.take_runbooks();
    }

    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            for alert in self.firing.clone() {
                self.step(Event::AlertFiring { alert: Box::new(alert), silenced: false });
            }
            if self.now % (10 * SECOND) == 0 {
                self.report();
            }
            self.judge();
            for agent in ["lb", "h1", "h2", "h3"] {
                self.pull(agent);
            }
        }
    }

    fn report(&mut self) {
        let active = self.servers.iter().filter(|one| one.status == "UP" && one.weight > 0).count();
        for one in &mut self.servers {
            one.backend_active = u32::try_from(active).unwrap();
        }
        for host in &mut self.hosts {
            let used: u64 = host.guests.iter().map(|guest| guest.memory_bytes).sum();
            host.memory_bytes_available = host.memory_bytes - used;
        }
        let base = |agent: &str, sim: &Sim| Inventory {
            agent: agent.to_owned(),
            seen_at: sim.now,
            allowed: sim.allowed.clone(),
            ..Inventory::default()
        };
        let balancer = Inventory { balancer_servers: self.servers.clone(), ..base("lb", self) };
        let hosts = self.hosts.clone().into_iter();
        let mut all: Vec<Inventory> =
            hosts.map(|host| Inventory { hypervisors: vec![host.clone()], ..base(&host.host, self) }).collect();
        all.push(balancer);
        for inventory in all {
            if !self.mute.contains(&inventory.agent) {
                self.step(Event::Inventory(Box::new(inventory)));
            }
        }
    }

    fn judge(&mut self) {
        for _ in 0..6 {
            let effects = self.step(Event::Tick);
            for effect in effects {
                let Effect::Evaluate(question) = effect else { continue };
                let wrong = question
                    .conditions
                    .iter()
                    .find(|condition| self.untrue.iter().any(|part| condition.promql.contains(part.as_str())));
                let verdict = wrong.map_or(Ok(()), |wrong| Err(Objection { reason: wrong.reason.clone() }));
                self.step(Event::Judged { question, verdict });
            }
        }
    }

    fn pull(&mut self, agent: &str) {
        if self.mute.contains(agent) {
            return;
        }
        let effects = self.step(Event::Pulled { agent: agent.to_owned() });
        for effect in effects {
            let Effect::Deliver(order) = effect else { continue };
            assert!(order.ttl_ms > 0 && !self.delivered.contains(&order.key), "{:?} left twice", order.key);
            self.delivered.push(order.key);
            self.answer(agent, &order, OrderOutcome::Started, Map::new());
            let (outcome, before) = self.apply(&order);
            self.answer(agent, &order, outcome, before);
        }
    }

    fn answer(&mut self, agent: &str, order: &Order, outcome: OrderOutcome, before: Map<String, Value>) {
        let answer = OrderAnswer {
            key: order.key,
            fencing_epoch: order.fencing_epoch,
            at: self.now,
            outcome,
            command: String::new(),
            before,
        };
        // Answers are sent again until they are acknowledged: a server that died over one gets it again.
        let before = self.dies;
        self.step(Event::Answer { agent: agent.to_owned(), answer: answer.clone() });
        if before != self.dies {
            self.step(Event::Answer { agent: agent.to_owned(), answer });
        }
    }

    fn apply(&mut self, order: &Order) -> (OrderOutcome, Map<String, Value>) {
        if let Some(outcome) = self.answers.get(&order.action) {
            return (outcome.clone(), Map::new());
        }
        self.applied.push((order.key, order.action.clone()));
        let text = |name: &str| order.with.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if order.action == "libvirt.migrate" {
            let (uuid, to) = (text("guest_uuid"), text("destination_host"));
            // The driver refuses what it does not know.
            let known = ["bandwidth_mib_s", "destination_host", "destination_uri", "guest_uuid"];
            assert_eq!(order.with.keys().collect::<Vec<_>>(), known);
            assert!(order.with["bandwidth_mib_s"].as_u64().unwrap() > 0, "a migration has a cap");
            let from = self.hosts.iter_mut().find(|host| host.guests.iter().any(|guest| guest.uuid == uuid)).unwrap();
            let at = from.guests.iter().position(|guest| guest.uuid == uuid).unwrap();
            let moved = from.guests.remove(at);
            self.hosts.iter_mut().find(|host| host.host == to).unwrap().guests.push(moved);
            return (OrderOutcome::Done, Map::new());
        }
        let name = text("server");
        let one = self.servers.iter_mut().find(|one| one.server == name).unwrap();
        let state = if one.status == "UP" { "ready" } else { "drain" };
        let before = json!({"state": state, "weight": one.weight});
        match (order.action.as_str(), &order.undo_of) {
            (_, Some(answer)) => {
                one.weight = u32::try_from(answer.before["weight"].as_u64().unwrap()).unwrap();
                one.status = if answer.before["state"] == "ready" { "UP" } else { "DRAIN" }.to_owned();
            }
            ("haproxy.drain", None) => "DRAIN".clone_into(&mut one.status),
            ("haproxy.ready", None) => "UP".clone_into(&mut one.status),
            (_, None) => one.weight = u32::try_from(order.with["weight"].as_u64().unwrap()).unwrap(),
        }
        (OrderOutcome::Done, before.as_object().cloned().unwrap())
    }

    fn run(&self) -> &Run {
        self.engine.runs().last().expect("a run was planned")
    }

    fn outcome(&self) -> Option<Outcome> {
        self.run().outcome()
    }

    fn reason(&self) -> String {
        super::view::RunView::from(self.run()).reason
    }

    fn balancer(&self) -> String {
        let words = self.servers.iter().map(|one| format!("{} {} {}", one.server, one.status, one.weight));
        words.collect::<Vec<_>>().join(" ")
    }

    fn guests(&self) -> String {
        let names =
            |host: &Hypervisor| host.guests.iter().map(|guest| guest.name.clone()).collect::<Vec<_>>().join(",");
        let words = self.hosts.iter().map(|host| format!("{}:{}", host.host, names(host)));
        words.collect::<Vec<_>>().join(" ")
    }
}
