//! HAProxy's two tables, `show stat` and `show servers state`, read by their header names: columns come and go between
//! versions. A server that is in one table and not in the other makes the reading fail rather than guess.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::Object;
use crate::haproxy::RuntimeError;
use crate::haproxy::table::{columns, fields, not_a_table};

/// One server line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Backend name.
    pub backend: String,
    /// Server name.
    pub name: String,
    /// Status word, for example `UP`, `DOWN 1/2`, `MAINT (via b/s)`.
    pub status: String,
    /// Effective weight.
    pub weight: u64,
    /// Weight as it was set.
    pub weight_set: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Whether it is a backup server.
    pub backup: bool,
    /// What operators have it do.
    pub admin: Admin,
}

/// The administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// In service.
    Ready,
    /// Keeps its sessions and takes no others.
    Drain,
    /// Out of service.
    Maint,
}

/// Bits of `srv_admin_state` that mean maintenance: forced, inherited, by configuration, by name resolution (two).
const MAINT_BITS: u64 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;
/// Bits that mean draining: forced, inherited.
const DRAIN_BITS: u64 = 0x08 | 0x10;

impl Admin {
    /// HAProxy's word.
    pub fn word(self) -> &'static str {
        match self {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maint => "maint",
        }
    }

    fn of(bits: u64) -> Admin {
        if bits & MAINT_BITS != 0 {
            Admin::Maint
        } else if bits & DRAIN_BITS != 0 {
            Admin::Drain
        } else {
            Admin::Ready
        }
    }
}

impl Server {
    /// Whether it is this server.
    pub fn is(&self, backend: &str, name: &str) -> bool {
        self.backend == backend && self.name == name
    }

    /// Whether it takes new sessions. Backup servers do not count: they serve only when the others have failed.
    pub fn is_active(&self) -> bool {
        let up = self.status == "UP" || self.status.starts_with("UP ") || self.status == "no check";
        up && self.admin == Admin::Ready && self.weight > 0 && !self.backup
    }

    /// What an order may expect of it.
    pub fn facts(&self) -> Object {
        let facts = json!({
            "state": self.admin.word(), "status": self.status, "weight": self.weight_set, "active": self.is_active(),
        });
        match facts {
            serde_json::Value::Object(facts) => facts,
            _ => Object::new(),
        }
    }
}

/// The servers of all backends, in HAProxy's order.
///
/// # Errors
/// When a table lacks a column that is needed, or they do not fit together.
pub fn servers(statistics: &str, states: &str) -> Result<Vec<Server>, RuntimeError> {
    let states = admin_states(states)?;
    let columns = columns(statistics)?;
    let column = |name: &str| {
        let at = columns.iter().position(|column| *column == name);
        at.ok_or_else(|| RuntimeError::Unusable(format!("show stat has no column {name}")))
    };
    let (backend, name, kind) = (column("pxname")?, column("svname")?, column("type")?);
    let (status, weight, backup, sessions) = (column("status")?, column("weight")?, column("bck")?, column("scur")?);
    let mut servers = Vec::new();
    for line in statistics.lines().skip(1).filter(|line| !line.is_empty()) {
        let fields = fields(line);
        let field = |at: usize| fields.get(at).map_or("", String::as_str);
        // 0 frontend, 1 backend, 2 server, 3 listener.
        if field(kind) != "2" {
            continue;
        }
        let (backend, name) = (field(backend).to_owned(), field(name).to_owned());
        let (admin, weight_set) = *states
            .get(&(backend.clone(), name.clone()))
            .ok_or_else(|| RuntimeError::Unusable(format!("show servers state does not name {backend}/{name}")))?;
        servers.push(Server {
            status: field(status).to_owned(),
            weight: number(field(weight))?,
            weight_set,
            sessions: number(field(sessions))?,
            backup: field(backup) == "1",
            admin,
            backend,
            name,
        });
    }
    Ok(servers)
}

/// Administrative state and set weight, by backend and server.
type AdminStates = BTreeMap<(String, String), (Admin, u64)>;

/// Reads `show servers state`.
fn admin_states(text: &str) -> Result<AdminStates, RuntimeError> {
    let mut columns: Option<Vec<&str>> = None;
    let mut states = BTreeMap::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            columns = Some(header.split(' ').collect());
            continue;
        }
        // Before the header stands the version of the format.
        let Some(columns) = &columns else { continue };
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let field = |name: &str| {
            let at = columns.iter().position(|column| *column == name);
            at.and_then(|at| fields.get(at).copied())
                .ok_or_else(|| RuntimeError::Unusable(format!("show servers state has no {name} in `{line}`")))
        };
        let key = (field("be_name")?.to_owned(), field("srv_name")?.to_owned());
        states.insert(key, (Admin::of(number(field("srv_admin_state")?)?), number(field("srv_uweight")?)?));
    }
    if columns.is_none() {
        return Err(not_a_table("show servers state"));
    }
    Ok(states)
}

fn number(text: &str) -> Result<u64, RuntimeError> {
    text.parse().map_err(|_| RuntimeError::Unusable(format!("`{text}` is not a number")))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    const STATISTICS: &str = include_str!("../../../testdata/haproxy-show-stat.csv");
    const STATES: &str = include_str!("../../../testdata/haproxy-servers-state.txt");

    fn check(statistics: &str, states: &str, expected: &Expect) {
        let said = match servers(statistics, states) {
            Ok(servers) => servers.iter().fold(String::new(), |mut text, server| {
                let active = if server.is_active() { ", active" } else { "" };
                writeln!(
                    text,
                    "{}/{} {} {} weight {} of {}, {} sessions{active}",
                    server.backend,
                    server.name,
                    server.status,
                    server.admin.word(),
                    server.weight,
                    server.weight_set,
                    server.sessions
                )
                .unwrap();
                text
            }),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn tables_of_haproxy_2_6_are_read() {
        check(
            STATISTICS,
            STATES,
            &expect![[r"
                vms/a UP ready weight 100 of 100, 0 sessions, active
                vms/b DRAIN drain weight 50 of 50, 3 sessions
                vms/c no check ready weight 1 of 1, 0 sessions
                vms/d MAINT maint weight 1 of 1, 0 sessions
            "]],
        );
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        check(
            "Permission denied\n\n",
            STATES,
            &expect![
                "HAProxy's answer cannot be used: show stat did not give its table; is the socket's level at least operator?"
            ],
        );
        check(
            STATISTICS,
            "\n",
            &expect![
                "HAProxy's answer cannot be used: show servers state did not give its table; is the socket's level at least operator?"
            ],
        );
        check(
            &STATISTICS.replace(",weight,", ",w,"),
            STATES,
            &expect!["HAProxy's answer cannot be used: show stat has no column weight"],
        );
        check(
            STATISTICS,
            &STATES.replace(" b ", " bb "),
            &expect!["HAProxy's answer cannot be used: show servers state does not name vms/b"],
        );
        check(
            STATISTICS,
            &STATES.replace(" 8 50 ", " x 50 "),
            &expect!["HAProxy's answer cannot be used: `x` is not a number"],
        );
    }
}
