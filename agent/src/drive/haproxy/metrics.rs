//! HAProxy's own statistics as series, with the names of its Prometheus exporter, read anew at every round: what verifies an
//! action must have been seen after it.

use super::tables::{Admin, Server};
use crate::collect::{Family, Kind};

/// The states that HAProxy's exporter tells servers apart by.
const STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];

/// Status, weight and sessions of every server.
pub fn families(servers: &[Server]) -> Vec<Family> {
    let mut status =
        Family::new(Kind::Gauge, "haproxy_server_status", "Current status of the service, per state label value.");
    let mut weight = Family::new(Kind::Gauge, "haproxy_server_weight", "Service weight.");
    let mut sessions =
        Family::new(Kind::Gauge, "haproxy_server_current_sessions", "Current number of active sessions.");
    for server in servers {
        let now = state(server);
        for word in STATES {
            let labels = [("proxy", server.backend.as_str()), ("server", server.name.as_str()), ("state", word)];
            status.push(&labels, f64::from(u8::from(word == now)));
        }
        let labels = [("proxy", server.backend.as_str()), ("server", server.name.as_str())];
        weight.push(&labels, server.weight as f64);
        sessions.push(&labels, server.sessions as f64);
    }
    vec![status, weight, sessions]
}

/// What operators decided comes first, as in HAProxy's status column.
fn state(server: &Server) -> &'static str {
    match server.admin {
        Admin::Maint => "MAINT",
        Admin::Drain => "DRAIN",
        Admin::Ready if server.status.starts_with("NOLB") => "NOLB",
        Admin::Ready if server.status.starts_with("UP") || server.status == "no check" => "UP",
        Admin::Ready => "DOWN",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::text::render;

    #[test]
    fn a_draining_server_says_so() {
        let server = |name: &str, status: &str, admin| Server {
            backend: "vms".to_owned(),
            name: name.to_owned(),
            status: status.to_owned(),
            weight: 100,
            weight_set: 100,
            sessions: 3,
            backup: false,
            admin,
        };
        let text = render(&families(&[server("a", "DRAIN", Admin::Drain), server("b", "UP 1/3", Admin::Ready)]));
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
        expect![[r#"
            haproxy_server_status{proxy="vms",server="a",state="DRAIN"} 1
            haproxy_server_status{proxy="vms",server="b",state="UP"} 1
            haproxy_server_weight{proxy="vms",server="a"} 100
            haproxy_server_weight{proxy="vms",server="b"} 100
            haproxy_server_current_sessions{proxy="vms",server="a"} 3
            haproxy_server_current_sessions{proxy="vms",server="b"} 3"#]]
        .assert_eq(&told.join("\n"));
    }
}
