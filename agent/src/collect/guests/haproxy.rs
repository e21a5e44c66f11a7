//! HAProxy by its runtime API, with the names of its own Prometheus exporter: the process, frontends, backends and servers.
//!
//! It is read with the round, not beside it: what verifies an action on a server has to be a sample that was read after it.
//! HAProxy answers within a few milliseconds; one that hangs costs a round half a second. A value that HAProxy does not give has
//! no series, where the exporter says NaN; of the kinds of check results a server has a series for the one it has now.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{CollectConfig, CollectError, Collector, Family, Kind};
use super::haproxy_figures::{BACKEND, FRONTEND, Figure, PROCESS, SERVER, Whose, figures};
use crate::drive::{HaproxyConfig, HaproxySocket};
use crate::error_chain::chain;
use crate::haproxy::table::{columns, fields};
use crate::haproxy::{Runtime, RuntimeError};

/// What a round waits at most.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Where HAProxy's runtime API usually is.
const SOCKETS: [&str; 5] = [
    "run/haproxy/admin.sock",
    "run/haproxy/haproxy.sock",
    "run/haproxy.sock",
    "run/haproxy/info.sock",
    "var/lib/haproxy/stats",
];
/// Lines of the table that are told: frontends, backends and servers.
const LINES_MAX: usize = 5000;
/// The states that HAProxy's exporter tells servers apart by.
const STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];
/// Classes of HTTP answers, as in the names of the columns.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The collector.
pub(super) struct Haproxy {
    configured: Option<HaproxySocket>,
    usual: Vec<PathBuf>,
    lists: Lists,
}

/// The figures of everything that is told.
struct Lists {
    process: Vec<Figure>,
    frontend: Vec<Figure>,
    backend: Vec<Figure>,
    server: Vec<Figure>,
}

impl Lists {
    fn new() -> Lists {
        let [process, frontend, backend, server] = [PROCESS, FRONTEND, BACKEND, SERVER].map(figures);
        Lists { process, frontend, backend, server }
    }
}

impl Haproxy {
    pub(super) fn new(config: &CollectConfig) -> Haproxy {
        let configured = config.haproxy.as_ref().map(|HaproxyConfig { socket }| socket.clone());
        let usual = SOCKETS.iter().map(|socket| config.roots.rootfs.join(socket)).collect();
        Haproxy { configured, usual, lists: Lists::new() }
    }

    fn socket(&self) -> Result<HaproxySocket, CollectError> {
        let found = || self.usual.iter().find(|path| path.exists()).cloned().map(HaproxySocket::Unix);
        self.configured.clone().or_else(found).ok_or_else(|| CollectError::Absent { path: self.usual[0].clone() })
    }
}

impl Collector for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let runtime = Runtime::at(self.socket()?);
        let answer = runtime.ask("show info;show stat", ANSWER_WITHIN).and_then(|answer| read(&answer, &self.lists));
        let up = Family::new(Kind::Gauge, "haproxy_up", "Was the last scrape of HAProxy successful.");
        families.push(up.with(f64::from(u8::from(answer.is_ok()))));
        families.extend(answer.map_err(|error| CollectError::Asked(chain(&error)))?);
        Ok(())
    }
}

/// Frontends, backends or servers: their figures, and what stands in several series.
struct Part<'a> {
    figures: &'a [Figure],
    /// Where each figure's column is.
    places: Vec<Option<usize>>,
    families: Vec<Family>,
    status: Family,
    responses: Family,
}

impl<'a> Part<'a> {
    fn of((_, kind): Whose, figures: &'a [Figure], columns: &[&str]) -> Part<'a> {
        let place = |figure: &Figure| columns.iter().position(|column| *column == figure.key);
        Part {
            figures,
            places: figures.iter().map(place).collect(),
            families: figures.iter().map(Figure::family).collect(),
            status: Family::new(
                Kind::Gauge,
                format!("haproxy_{kind}_status"),
                "Current status of the service, per state label value.",
            ),
            responses: Family::new(
                Kind::Counter,
                format!("haproxy_{kind}_http_responses_total"),
                "Total number of HTTP responses.",
            ),
        }
    }

    fn add(&mut self, line: &[String], labels: &[(&'static str, &str)], classes: &[Option<usize>]) {
        let value = |place: Option<usize>| place.and_then(|at| line.get(at)?.parse::<f64>().ok());
        for ((figure, place), family) in self.figures.iter().zip(&self.places).zip(&mut self.families) {
            if let Some(value) = value(*place) {
                family.push(labels, value / figure.unit);
            }
        }
        for (class, place) in CLASSES.iter().zip(classes) {
            if let Some(count) = value(*place) {
                self.responses.push(&[labels, &[("code", class)]].concat(), count);
            }
        }
    }

    /// One series for each state, one of them 1.
    fn tell(&mut self, labels: &[(&'static str, &str)], states: &[&str], now: &str) {
        for state in states {
            self.status.push(&[labels, &[("state", state)]].concat(), f64::from(u8::from(*state == now)));
        }
    }

    fn into_families(self) -> impl Iterator<Item = Family> {
        [self.status].into_iter().chain(self.families).chain([self.responses])
    }
}

/// Reads the answers to `show info` and `show stat`, one after the other.
fn read(answer: &str, lists: &Lists) -> Result<Vec<Family>, RuntimeError> {
    let at = answer.find("# pxname,").unwrap_or(answer.len());
    let (info, table) = answer.split_at(at);
    let columns = columns(table)?;
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let needed =
        |name: &str| column(name).ok_or_else(|| RuntimeError::Unusable(format!("show stat has no column {name}")));
    let (proxy, service, kind, status) = (needed("pxname")?, needed("svname")?, needed("type")?, needed("status")?);
    let check = column("check_status");
    let classes = CLASSES.map(|class| column(&format!("hrsp_{class}")));
    let mut frontend = Part::of(FRONTEND, &lists.frontend, &columns);
    let mut backend = Part::of(BACKEND, &lists.backend, &columns);
    let mut server = Part::of(SERVER, &lists.server, &columns);
    let mut checks =
        Family::new(Kind::Gauge, "haproxy_server_check_status", "Status of last health check, per state label value.");
    let mut servers: BTreeMap<String, [u32; STATES.len()]> = BTreeMap::new();
    for line in table.lines().skip(1).filter(|line| !line.is_empty()).take(LINES_MAX) {
        let line = fields(line);
        let field = |at: usize| line.get(at).map_or("", String::as_str);
        let labels = [("proxy", field(proxy)), ("server", field(service))];
        match field(kind) {
            "0" => {
                frontend.add(&line, &labels[..1], &classes);
                // A frontend that is full is one that works.
                let now = if matches!(field(status), "OPEN" | "FULL") { "UP" } else { "DOWN" };
                frontend.tell(&labels[..1], &["DOWN", "UP"], now);
            }
            "1" => {
                backend.add(&line, &labels[..1], &classes);
                let now = if field(status).starts_with("UP") { "UP" } else { "DOWN" };
                backend.tell(&labels[..1], &["DOWN", "UP"], now);
                servers.entry(field(proxy).to_owned()).or_default();
            }
            "2" => {
                server.add(&line, &labels, &classes);
                let now = state(field(status));
                server.tell(&labels, &STATES, now);
                let counts = servers.entry(field(proxy).to_owned()).or_default();
                if let Some(count) = STATES.iter().zip(counts).find(|(state, _)| **state == now) {
                    *count.1 += 1;
                }
                // A check under way is marked by a star before the result of the last one.
                let result = check.map_or("", field).trim_start_matches(['*', ' ']);
                if !result.is_empty() {
                    checks.push(&[labels[0], labels[1], ("state", result)], 1.0);
                }
            }
            _ => {}
        }
    }
    let mut counted =
        Family::new(Kind::Gauge, "haproxy_backend_agg_server_status", "Backend's aggregated gauge of servers' status.");
    for (proxy, counts) in &servers {
        for (state, count) in STATES.iter().zip(counts) {
            counted.push(&[("proxy", proxy), ("state", state)], f64::from(*count));
        }
    }
    let mut families = process(info, &lists.process);
    families.extend(frontend.into_families());
    families.extend(backend.into_families().chain([counted]));
    families.extend(server.into_families().chain([checks]));
    Ok(families)
}

/// A server's state by its status: `UP 1/3`, `MAINT (via b/s)`, `no check` and the like.
fn state(status: &str) -> &'static str {
    let word = if status == "no check" { "UP" } else { status };
    STATES.into_iter().find(|state| word.starts_with(state)).unwrap_or("DOWN")
}

/// The process, from `show info`.
fn process(info: &str, figures: &[Figure]) -> Vec<Family> {
    let value = |wanted: &str| {
        let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value.trim())
    };
    let mut families = Vec::with_capacity(figures.len() + 1);
    if let Some(version) = value("Version") {
        let mut build = Family::new(Kind::Gauge, "haproxy_process_build_info", "Build info.");
        build.push(&[("version", version)], 1.0);
        families.push(build);
    }
    for figure in figures {
        if let Some(number) = value(figure.key).and_then(|text| text.parse::<f64>().ok()) {
            families.push(figure.family().with(number / figure.unit));
        }
    }
    families
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    drop(read(text, &Lists::new()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::text::render;

    /// What HAProxy's own exporter said at the same time.
    const EXPORTED: &str = include_str!("../../../testdata/haproxy-2.6.prom");

    fn recorded() -> String {
        let info = include_str!("../../../testdata/haproxy-2.6-info.txt");
        let table = include_str!("../../../testdata/haproxy-2.6-stat.csv");
        render(&read(&format!("{info}{table}"), &Lists::new()).unwrap())
    }

    /// Types of families that have a value, and series, without those that the exporter has more of and without values that
    /// changed between the two questions.
    fn comparable(text: &str) -> BTreeSet<String> {
        let more = ["_agg_check_status", "_agg_server_check_status", "haproxy_server_check_status"];
        let moving = ["haproxy_process_", "{proxy=\"metrics\"", "_seconds", "_rate"];
        let has = |line: &str, names: &[&str]| names.iter().any(|name| line.contains(name));
        let series: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.ends_with("NaN") && !has(line, &more)).collect();
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        let names: BTreeSet<String> = series.iter().map(|line| name(line)).collect();
        let types =
            text.lines().filter(|line| line.strip_prefix("# TYPE ").is_some_and(|rest| names.contains(&name(rest))));
        let still = series.iter().copied().filter(|line| !has(line, &moving));
        types.chain(still).map(str::to_owned).collect()
    }

    #[test]
    fn the_exporter_says_the_same() {
        let ours = recorded();
        let (told, exported) = (comparable(&ours), comparable(EXPORTED));
        // This HAProxy was built without zlib, of which the runtime API then says nothing and the exporter 0.
        let missing: Vec<&String> = exported.difference(&told).filter(|line| !line.contains("zlib")).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        let more: Vec<&String> = told.difference(&exported).collect();
        assert!(more.is_empty(), "{more:#?}");
        assert!(told.len() > 250, "{}", told.len());
        assert!(ours.contains("haproxy_server_check_status{proxy=\"vms\",server=\"a\",state=\"L7OK\"} 1\n"));
        assert!(ours.contains("haproxy_process_build_info{version=\"2.6.12-1+deb12u4\"} 1\n"));
        assert!(ours.contains("haproxy_server_check_duration_seconds{proxy=\"vms\",server=\"a\"} 0.00"));
    }

    #[test]
    fn states_of_servers() {
        for (status, told) in [
            ("UP 1/3", "UP"),
            ("no check", "UP"),
            ("DRAIN", "DRAIN"),
            ("MAINT (via b/s)", "MAINT"),
            ("NOLB", "NOLB"),
            ("DOWN 1/2", "DOWN"),
            ("", "DOWN"),
        ] {
            assert_eq!(state(status), told, "{status}");
        }
        let table = include_str!("../../../testdata/haproxy-show-stat.csv");
        let text = render(&read(table, &Lists::new()).unwrap());
        let ones: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("haproxy_server_status") && line.ends_with(" 1"))
            .map(|line| &line["haproxy_server_status{".len()..])
            .collect();
        assert_eq!(
            ones,
            [
                "proxy=\"vms\",server=\"a\",state=\"UP\"} 1",
                "proxy=\"vms\",server=\"b\",state=\"DRAIN\"} 1",
                "proxy=\"vms\",server=\"c\",state=\"UP\"} 1",
                "proxy=\"vms\",server=\"d\",state=\"MAINT\"} 1"
            ]
        );
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let told = read("Permission denied\n", &Lists::new()).unwrap_err().to_string();
        assert!(told.contains("did not give its table"), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(Name: x\n)?(# pxname,svname,type,status,hrsp_1xx\n)?(a,b,[012],UP,[0-9]\n|,|\"|.|\n){0,40}") {
            drop(read(&text, &Lists::new()));
        }
    }
}
