//! HAProxy by its runtime API: reads servers and their statistics; drains a server, makes it ready, sets its weight.
//! Never touches a server in maintenance, which is an operator's word, and never takes the last active server of a
//! backend away. Every change is read back before it counts as done.

mod tables;

use std::time::Duration;

use serde_json::json;

use self::tables::{Admin, Server, servers};
use super::arguments::{Arguments, meets, wrong};
use super::{Act, ActError, Checked, HaproxyConfig, Looked, Object, Read, Reading, Refusal, Watch};
use crate::error_chain::chain;
use crate::haproxy::{Runtime, RuntimeError};
use crate::stream::protocol::{BalancerServer, Order};

/// Actions of this driver.
pub const ACTIONS: [&str; 3] = ["haproxy.drain", "haproxy.ready", "haproxy.set_weight"];
/// The same, for an operator.
const KNOWN: &str = "haproxy.drain, haproxy.ready and haproxy.set_weight";
/// HAProxy's own limit.
const WEIGHT_MAX: u64 = 256;
/// HAProxy answers within milliseconds; one that does not within this is taken to hang.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The driver.
#[derive(Debug)]
pub struct Haproxy {
    runtime: Runtime,
}

/// What an order wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    State(Admin),
    Weight(u64),
    /// Backwards: both as they were.
    Restore {
        state: Admin,
        weight: u64,
    },
}

/// One order, read.
struct Task<'a> {
    backend: &'a str,
    server: &'a str,
    wish: Wish,
}

impl Haproxy {
    /// A driver of the HAProxy behind the configured socket. Connects when it is used.
    pub fn over(config: HaproxyConfig) -> Haproxy {
        Haproxy { runtime: Runtime::at(config.socket) }
    }

    fn servers(&self, within: Duration) -> Result<Vec<Server>, RuntimeError> {
        let statistics = self.runtime.ask("show stat", within)?;
        let states = self.runtime.ask("show servers state", within)?;
        servers(&statistics, &states)
    }

    /// Sends what the wish needs, then reads back.
    fn carry_out(&self, order: &Order, watch: &Watch) -> Result<(), ActError> {
        let task = task(order).map_err(|refusal| ActError::failed(refusal.to_string()))?;
        for command in task.commands() {
            let answer = self.runtime.ask(&command, within(watch)).map_err(|error| {
                // A command that was sent may have been obeyed even though no answer came.
                let reason = format!("{command}: {}", chain(&error));
                if error.was_sent() { ActError::Unknown { reason } } else { ActError::Failed { reason } }
            })?;
            // HAProxy says nothing when it obeys.
            if !answer.trim().is_empty() {
                return Err(ActError::failed(format!("HAProxy answered `{}` to {command}", answer.trim())));
            }
        }
        let servers = self.servers(within(watch)).map_err(|error| ActError::Unknown {
            reason: format!("the change was sent and could not be read back: {}", chain(&error)),
        })?;
        match servers.iter().find(|server| server.is(task.backend, task.server)) {
            Some(server) if task.wish.is_met(server) => Ok(()),
            Some(server) => Err(ActError::failed(format!(
                "HAProxy took the command, yet {}/{} is {} with weight {}",
                task.backend,
                task.server,
                server.admin.word(),
                server.weight_set
            ))),
            None => Err(ActError::failed(format!("{}/{} has vanished", task.backend, task.server))),
        }
    }
}

impl Read for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn read(&self) -> Reading {
        match self.servers(ANSWER_WITHIN) {
            Ok(servers) => Reading { balancer_servers: balancer_servers(&servers), ..Reading::default() },
            Err(error) => Reading { problems: vec![chain(&error)], ..Reading::default() },
        }
    }
}

impl Act for Haproxy {
    fn check(&self, order: &Order) -> Result<Checked, Refusal> {
        let task = task(order)?;
        let servers = self.servers(ANSWER_WITHIN).map_err(|error| Refusal::driver(chain(&error)))?;
        if !servers.iter().any(|server| server.backend == task.backend) {
            return Err(wrong("backend", format!("is `{}`, and HAProxy has no such backend", task.backend)));
        }
        let found = servers
            .iter()
            .find(|server| server.is(task.backend, task.server))
            .ok_or_else(|| wrong("server", format!("is `{}`, and {} has no such server", task.server, task.backend)))?;
        meets(&order.expect, &found.facts())?;
        if found.admin == Admin::Maint {
            return Err(Refusal::driver(format!(
                "{}/{} is in maintenance, which only an operator ends",
                task.backend, task.server
            )));
        }
        let others =
            servers.iter().filter(|server| server.backend == task.backend && !server.is(task.backend, task.server));
        if task.wish.takes_away() && others.filter(|server| server.is_active()).count() == 0 {
            return Err(Refusal::driver(format!(
                "{} would have no active server left without {}",
                task.backend, task.server
            )));
        }
        let before = json!({ "state": found.admin.word(), "weight": found.weight_set });
        Ok(Checked { command: task.commands().join("; "), before: object(before) })
    }

    fn apply(&self, order: &Order, _: &Checked, watch: &Watch) -> Result<(), ActError> {
        self.carry_out(order, watch)
    }

    fn undo(&self, order: &Order, _: &Checked, watch: &Watch) -> Result<(), ActError> {
        self.carry_out(order, watch)
    }

    fn progress(&self, order: &Order, checked: &Checked) -> Looked {
        let unknown = |reason: String| Looked::Unknown { reason };
        let task = match task(order) {
            Ok(task) => task,
            Err(refusal) => return unknown(refusal.to_string()),
        };
        let servers = match self.servers(ANSWER_WITHIN) {
            Ok(servers) => servers,
            Err(error) => return unknown(chain(&error)),
        };
        let Some(server) = servers.iter().find(|server| server.is(task.backend, task.server)) else {
            return unknown(format!("{}/{} is gone", task.backend, task.server));
        };
        let before = json!({ "state": server.admin.word(), "weight": server.weight_set });
        if task.wish.is_met(server) {
            Looked::Done
        } else if object(before) == checked.before {
            Looked::NotStarted
        } else {
            unknown(format!(
                "{}/{} is {} with weight {}, neither as before nor as ordered",
                task.backend,
                task.server,
                server.admin.word(),
                server.weight_set
            ))
        }
    }
}

impl Wish {
    fn is_met(self, server: &Server) -> bool {
        match self {
            Wish::State(state) => server.admin == state,
            Wish::Weight(weight) => server.weight_set == weight,
            Wish::Restore { state, weight } => server.admin == state && server.weight_set == weight,
        }
    }

    /// Whether the server takes no new sessions once the wish is met.
    fn takes_away(self) -> bool {
        match self {
            Wish::State(state) => state != Admin::Ready,
            Wish::Weight(weight) => weight == 0,
            Wish::Restore { state, weight } => state != Admin::Ready || weight == 0,
        }
    }
}

impl Task<'_> {
    fn commands(&self) -> Vec<String> {
        let name = format!("{}/{}", self.backend, self.server);
        let state = |state: Admin| format!("set server {name} state {}", state.word());
        let weight = |weight: u64| format!("set server {name} weight {weight}");
        match self.wish {
            Wish::State(wanted) => vec![state(wanted)],
            Wish::Weight(wanted) => vec![weight(wanted)],
            // The weight first: a server must not take sessions at a weight that was meant for its absence.
            Wish::Restore { state: wanted, weight: number } => vec![weight(number), state(wanted)],
        }
    }
}

/// Reads an order's arguments.
fn task(order: &Order) -> Result<Task<'_>, Refusal> {
    let mut with = Arguments::of(&order.with);
    let (backend, server) = (name(&mut with, "backend")?, name(&mut with, "server")?);
    let forwards = match order.action.as_str() {
        "haproxy.drain" => Wish::State(Admin::Drain),
        "haproxy.ready" => Wish::State(Admin::Ready),
        "haproxy.set_weight" => Wish::Weight(with.number("weight", 0..=WEIGHT_MAX)?),
        _ => return Err(Refusal::UnknownAction { action: order.action.clone(), known: KNOWN }),
    };
    with.end()?;
    let wish = match &order.undo_of {
        None => forwards,
        Some(answer) => restore(&answer.before)?,
    };
    Ok(Task { backend, server, wish })
}

fn restore(before: &Object) -> Result<Wish, Refusal> {
    let mut before = Arguments::of(before);
    let state = match before.text("state")? {
        "ready" => Admin::Ready,
        "drain" => Admin::Drain,
        other => return Err(wrong("state", format!("was `{other}`, which this driver does not bring back"))),
    };
    let weight = before.number("weight", 0..=WEIGHT_MAX)?;
    before.end()?;
    Ok(Wish::Restore { state, weight })
}

/// A name that cannot be mistaken for more than one word of a command.
fn name<'a>(with: &mut Arguments<'a>, key: &'static str) -> Result<&'a str, Refusal> {
    let name = with.text(key)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(wrong(key, "must be a name as HAProxy allows them: letters, digits, - _ . :"));
    }
    Ok(name)
}

fn balancer_servers(servers: &[Server]) -> Vec<BalancerServer> {
    let active =
        |backend: &str| servers.iter().filter(|server| server.backend == backend && server.is_active()).count();
    let line = |server: &Server| BalancerServer {
        backend: server.backend.clone(),
        server: server.name.clone(),
        status: server.status.clone(),
        weight: u32::try_from(server.weight).unwrap_or(u32::MAX),
        sessions: server.sessions,
        backend_active: u32::try_from(active(&server.backend)).unwrap_or(u32::MAX),
    };
    servers.iter().map(line).collect()
}

fn within(watch: &Watch) -> Duration {
    watch.left().min(ANSWER_WITHIN)
}

fn object(value: serde_json::Value) -> Object {
    match value {
        serde_json::Value::Object(object) => object,
        _ => Object::new(),
    }
}
