//! systemd's units: the state of each service, socket, timer and target, asked of `systemctl`, which asks systemd. It never
//! starts or stops anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::systemd_answers::{Details, Unit, details, units, version};
use crate::collect::asked::{ask, present, refused};
use crate::collect::tables::{Column, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Units.
pub(super) struct Systemd {
    booted: PathBuf,
    is_own_root: bool,
    /// What hardly ever changes and costs systemd much to tell, and for how many readings it still holds.
    details: BTreeMap<String, Details>,
    readings_left: u32,
    version: Option<String>,
}

const EVERY: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(10);
/// Details are asked for anew after so many readings: each unit's are a message to systemd and back.
const DETAILS_HOLD: u32 = 10;
/// Most units that are told; a host of ours has about 150, one with a unit for each guest some hundreds more.
const UNITS_MAX: usize = 768;

const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];
/// Kinds that are not told: they come with devices, mounts, sessions and guests. As in node_exporter's default.
const KINDS_LEFT_OUT: [&str; 5] = ["automount", "device", "mount", "scope", "slice"];

const UNIT_STATE: Column = gauge("node_systemd_unit_state", "Systemd unit");
const SUMMARY: Column = gauge("node_systemd_units", "Summary of systemd unit states");
const RUNNING: Column =
    gauge("node_systemd_system_running", "Whether the system is operational (see 'systemctl is-system-running')");
const VERSION: Column = gauge("node_systemd_version", "Detected systemd version");
const LEFT_OUT: Column = gauge("petrel_systemd_units_left_out", "Units that are not told because there are too many.");
/// Takes one number out of a unit's details.
type Detail = fn(&Details) -> Option<f64>;

/// What is told of a unit beside its state, each from its details.
const DETAILS: [(Column, Detail); 4] = [
    (counter("node_systemd_service_restart_total", "Service unit count of Restart triggers"), |details| {
        details.restarts
    }),
    (
        counter("node_systemd_socket_accepted_connections_total", "Total number of accepted socket connections"),
        |details| details.accepted,
    ),
    (gauge("node_systemd_socket_current_connections", "Current number of socket connections"), |details| {
        details.connections
    }),
    (gauge("node_systemd_socket_refused_connections_total", "Total number of refused socket connections"), |details| {
        details.refused
    }),
];
const LIST: [&str; 6] = ["list-units", "--all", "--full", "--plain", "--no-legend", "--no-pager"];
const SHOW: [&str; 3] = ["show", "--no-pager", "--property=Id,Type,NRestarts,NAccepted,NConnections,NRefused"];

impl Systemd {
    pub(super) fn new(roots: &Roots) -> Systemd {
        Systemd {
            booted: roots.rootfs.join("run/systemd/system"),
            is_own_root: roots.rootfs.as_os_str() == "/",
            details: BTreeMap::new(),
            readings_left: 0,
            version: None,
        }
    }

    /// Asks for details when they are old, or a unit is new.
    fn refresh(&mut self, told: &[&Unit<'_>]) -> Result<(), CollectError> {
        let wanted = |unit: &&&Unit<'_>| matches!(unit.kind(), "service" | "socket");
        let names: Vec<&str> = told.iter().filter(wanted).map(|unit| unit.name).collect();
        let is_known = names.iter().all(|name| self.details.contains_key(*name));
        if self.readings_left > 0 && is_known || names.is_empty() {
            self.readings_left = self.readings_left.saturating_sub(1);
            return Ok(());
        }
        let arguments: Vec<&str> = SHOW.into_iter().chain(["--"]).chain(names.iter().copied()).collect();
        let said = ask("systemctl", &arguments, WITHIN)?;
        self.details = details(&said.out);
        // A unit that went away in between has none; it is not asked for again before they are old.
        for name in names {
            self.details.entry(name.to_owned()).or_default();
        }
        self.readings_left = DETAILS_HOLD;
        Ok(())
    }
}

impl Collector for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN * 4 }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.booted)?;
        if !self.is_own_root {
            return Err(CollectError::Absent { path: self.booted.clone() });
        }
        let said = ask("systemctl", &LIST, WITHIN)?;
        if !said.well() {
            return Err(refused("systemctl", &LIST, &said));
        }
        let units = units(&said.out);
        let mut told: Vec<&Unit<'_>> = units.iter().filter(|unit| is_told(unit)).collect();
        let left_out = told.len().saturating_sub(UNITS_MAX);
        told.truncate(UNITS_MAX);
        let refreshed = self.refresh(&told);
        families.extend(states(&units, &told, &self.details));
        families.push(LEFT_OUT.family().with(left_out as f64));
        let running = ask("systemctl", &["is-system-running"], WITHIN)?;
        families.push(RUNNING.family().with(f64::from(u8::from(running.out.trim() == "running"))));
        if self.version.is_none() {
            self.version = version(&ask("systemctl", &["--version"], WITHIN)?.out);
        }
        families.extend(self.version.as_deref().map(version_family));
        refreshed
    }
}

fn is_told(unit: &Unit<'_>) -> bool {
    unit.load == "loaded" && !KINDS_LEFT_OUT.contains(&unit.kind())
}

fn states(units: &[Unit<'_>], told: &[&Unit<'_>], details: &BTreeMap<String, Details>) -> Vec<Family> {
    let mut summary = SUMMARY.family();
    for state in STATES {
        let count = units.iter().filter(|unit| unit.active == state).count();
        summary.push(&[("state", state)], count as f64);
    }
    let mut states = UNIT_STATE.family();
    let mut more = DETAILS.map(|(column, _)| column.family());
    for unit in told {
        let known = details.get(unit.name);
        let kind = known.map(|known| known.kind.as_str()).unwrap_or_default();
        for state in STATES {
            let is_active = f64::from(u8::from(unit.active == state));
            states.push(&[("name", unit.name), ("state", state), ("type", kind)], is_active);
        }
        for (family, (_, of)) in more.iter_mut().zip(DETAILS) {
            if let Some(value) = known.and_then(of) {
                family.push(&[("name", unit.name)], value);
            }
        }
    }
    [summary, states].into_iter().chain(more).collect()
}

/// The value is the number with which the version begins.
fn version_family(version: &str) -> Family {
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
    let end = version.find(|letter| !is_number(letter)).unwrap_or(version.len());
    let mut parts = version[..end].splitn(3, '.');
    let number = [parts.next().unwrap_or_default(), parts.next().unwrap_or("0")].join(".");
    let mut family = VERSION.family();
    family.push(&[("version", version)], number.trim_end_matches('.').parse().unwrap_or_default());
    family
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::{text, trial};

    #[test]
    fn states_of_what_is_told() {
        let list = "\
libvirtd.service loaded active running libvirt daemon
ssh.socket loaded failed failed OpenSSH
gone.service not-found inactive dead gone.service
dev-sda.device loaded active plugged disk
";
        let units = units(list);
        let told: Vec<&Unit<'_>> = units.iter().filter(|unit| is_told(unit)).collect();
        let known = details(
            "Type=notify\nNRestarts=2\nId=libvirtd.service\n\nId=ssh.socket\nNAccepted=5\nNConnections=1\nNRefused=0\n",
        );
        let mut families = states(&units, &told, &known);
        families.push(version_family("252.39-1~deb12u2"));
        expect![[r#"
            node_systemd_units{state="active"} 2
            node_systemd_units{state="activating"} 0
            node_systemd_units{state="deactivating"} 0
            node_systemd_units{state="inactive"} 1
            node_systemd_units{state="failed"} 1
            node_systemd_unit_state{name="libvirtd.service",state="active",type="notify"} 1
            node_systemd_unit_state{name="libvirtd.service",state="activating",type="notify"} 0
            node_systemd_unit_state{name="libvirtd.service",state="deactivating",type="notify"} 0
            node_systemd_unit_state{name="libvirtd.service",state="inactive",type="notify"} 0
            node_systemd_unit_state{name="libvirtd.service",state="failed",type="notify"} 0
            node_systemd_unit_state{name="ssh.socket",state="active",type=""} 0
            node_systemd_unit_state{name="ssh.socket",state="activating",type=""} 0
            node_systemd_unit_state{name="ssh.socket",state="deactivating",type=""} 0
            node_systemd_unit_state{name="ssh.socket",state="inactive",type=""} 0
            node_systemd_unit_state{name="ssh.socket",state="failed",type=""} 1
            node_systemd_service_restart_total{name="libvirtd.service"} 2
            node_systemd_socket_accepted_connections_total{name="ssh.socket"} 5
            node_systemd_socket_current_connections{name="ssh.socket"} 1
            node_systemd_socket_refused_connections_total{name="ssh.socket"} 0
            node_systemd_version{version="252.39-1~deb12u2"} 252.39
        "#]]
        .assert_eq(&trial::series(&text::render(&families)));
    }
}
