//! Runbook files: YAML, one runbook per document, taken whole or not at all. Every problem of every file is told with file, line
//! and column; nothing of a set with a problem enters the program.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use petrel_agent::units::Span;
use serde_saphyr::{Location, Spanned};

use super::action::Action;
use super::judge;
use super::raw::{RawGuard, RawRunbook, RawStep, RawTrigger, RawUndo, Scalar};
use super::runbook::{Guard, Is, Runbook, Step, Trigger, Undo, Verify};
use super::template::{Template, Use};
use crate::series::Matcher;

/// Longest file that is read, bytes; the longest runbook we know of has 6 KiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Steps of one runbook. More would be a program, not a runbook.
const STEPS_MAX: usize = 32;
/// Guards of one runbook: each is a query before every step.
const GUARDS_MAX: usize = 32;

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1 on; `None` where the file as a whole is meant.
    pub place: Option<(u64, u64)>,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Reads runbook files and, of folders, every `*.yaml` in them, in the order of names.
///
/// # Errors
/// Every problem of every file; then nothing is taken.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Runbook>, Vec<Problem>> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match yaml_files(path).and_then(|found| found.into_iter().map(read_file).collect::<Result<Vec<_>, _>>()) {
            Ok(found) => files.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    match load(&files) {
        Ok(runbooks) if problems.is_empty() => Ok(runbooks),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Problem {
    Problem { file: path.to_owned(), place: None, message: format!("cannot be read: {error}") }
}

/// The file itself, or of a folder every `*.yaml` and `*.yml` in it, in the order of names.
///
/// # Errors
/// The folder cannot be listed.
pub fn yaml_files(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| cannot_read(path, &error))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    files.sort();
    Ok(files)
}

fn read_file(path: PathBuf) -> Result<(PathBuf, String), Problem> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(cannot_read(&path, &error)),
    }
}

/// Every problem of one file by itself, for `petrel check`.
pub fn check(file: &Path, text: &str) -> Vec<Problem> {
    load(&[(file.to_owned(), text.to_owned())]).err().unwrap_or_default()
}

/// Checks files given as (name, text).
///
/// # Errors
/// Every problem of every file; then nothing is taken.
pub fn load(files: &[(PathBuf, String)]) -> Result<Vec<Runbook>, Vec<Problem>> {
    let mut check = Check { file: PathBuf::new(), problems: Vec::new() };
    let mut runbooks: Vec<Runbook> = Vec::new();
    for (file, text) in files {
        check.file.clone_from(file);
        for raw in check.parse(text) {
            let name_place = raw.runbook.referenced;
            let Some(runbook) = check.runbook(raw) else { continue };
            if runbooks.iter().any(|known| known.name == runbook.name) {
                check.problem(name_place, format!("runbook `{}` is defined twice; names are unique", runbook.name));
            }
            runbooks.push(runbook);
        }
    }
    if check.problems.is_empty() { Ok(runbooks) } else { Err(check.problems) }
}

/// Problems found so far, and the file they are in.
struct Check {
    file: PathBuf,
    problems: Vec<Problem>,
}

impl Check {
    fn parse(&mut self, text: &str) -> Vec<RawRunbook> {
        if text.len() > FILE_BYTES_MAX {
            let message = format!("has {} bytes; at most {FILE_BYTES_MAX} are read", text.len());
            self.problems.push(Problem { file: self.file.clone(), place: None, message });
            return Vec::new();
        }
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false;
        match serde_saphyr::from_multiple_with_options(text, options) {
            Ok(runbooks) => runbooks,
            Err(error) => {
                let place = error.location().map(|at| (at.line(), at.column()));
                let whole = error.to_string();
                // The position stands in front already.
                let message = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
                self.problems.push(Problem { file: self.file.clone(), place, message });
                Vec::new()
            }
        }
    }

    fn problem(&mut self, at: Location, message: String) {
        self.problems.push(Problem { file: self.file.clone(), place: Some((at.line(), at.column())), message });
    }

    fn runbook(&mut self, raw: RawRunbook) -> Option<Runbook> {
        let before = self.problems.len();
        let name = raw.runbook.value.clone();
        if name.is_empty() || name.len() > 128 {
            self.problem(raw.runbook.referenced, "a runbook's name has 1 to 128 bytes".to_owned());
        }
        if raw.steps.is_empty() || raw.steps.len() > STEPS_MAX {
            self.problem(
                raw.runbook.referenced,
                format!("`{name}` has {} steps; allowed are 1 to {STEPS_MAX}", raw.steps.len()),
            );
        }
        if raw.guards.len() > GUARDS_MAX {
            self.problem(
                raw.runbook.referenced,
                format!("`{name}` has {} guards; at most {GUARDS_MAX}", raw.guards.len()),
            );
        }
        let when = self.trigger(raw.when);
        let guards: Vec<Guard> = raw.guards.into_iter().filter_map(|guard| self.guard(guard)).collect();
        if raw.steps.iter().filter(|step| step.action.value == Action::LibvirtEvacuate.as_str()).count() > 1 {
            self.problem(raw.runbook.referenced, format!("`{name}` evacuates more than once; a run empties one host"));
        }
        let steps: Vec<Step> = raw.steps.into_iter().filter_map(|step| self.step(step)).collect();
        (self.problems.len() == before).then(|| Runbook {
            name,
            description: raw.description,
            when,
            mode: raw.mode,
            guards,
            cooldown_ms: raw.cooldown.as_ms(),
            min_history_ms: raw.min_history.as_ms(),
            approve_within_ms: raw.approve_within.as_ms(),
            on_failure: raw.on_failure,
            undo_when_resolved: raw.undo_when_resolved,
            steps,
        })
    }

    fn trigger(&mut self, raw: Spanned<RawTrigger>) -> Trigger {
        let at = raw.referenced;
        let raw = raw.value;
        if raw.alert.is_empty() && raw.level.is_none() && raw.probability.is_none() {
            self.problem(at, "`when` matches every alert; give `alert`, `level` or `probability`".to_owned());
        }
        if let Some(wrong) = raw.probability.as_ref().filter(|p| !(0.0..=1.0).contains(&p.value)) {
            self.problem(wrong.referenced, format!("`probability: {}` is not between 0 and 1", wrong.value));
        }
        let mut matchers = Vec::new();
        for written in raw.alert {
            match matcher(&written.value) {
                Ok(matcher) => matchers.push(matcher),
                Err(message) => self.problem(written.referenced, message),
            }
        }
        Trigger {
            matchers,
            level: raw.level,
            probability: raw.probability.map(|p| p.value),
            lead_seconds: raw.lead.map(|lead| lead.0.as_secs_f64()),
        }
    }

    fn guard(&mut self, raw: RawGuard) -> Option<Guard> {
        let promql = self.promql(&raw.promql);
        let is = match raw.is.as_ref().map(|is| (is.value.as_str(), is.referenced)) {
            None | Some(("true", _)) => Is::True,
            Some(("empty" | "false", _)) => Is::Empty,
            Some((word, at)) => {
                self.problem(at, format!("`is: {word}` is not known; write `true` or `empty`"));
                return None;
            }
        };
        let said = if is == Is::True { "is not true" } else { "is not empty" };
        let reason = if raw.reason.is_empty() { format!("`{}` {said}", raw.promql.value) } else { raw.reason };
        Some(Guard { promql: promql?, is, reason, precursor: raw.precursor })
    }

    fn step(&mut self, raw: RawStep) -> Option<Step> {
        let action = self.action(&raw.action)?;
        let on = raw.on.map(|on| self.template(&on.value, on.referenced, Use::Text));
        if on.is_none() && action != Action::LibvirtEvacuate {
            let message = format!("`{}` needs `on`: the agent that speaks to the load balancer", action.as_str());
            self.problem(raw.action.referenced, message);
        }
        let with = self.with(action, raw.with, raw.action.referenced);
        let verify = match raw.verify {
            Some(verify) => Some(Verify { promql: self.promql(&verify.promql)?, within_ms: verify.within.as_ms() }),
            None => None,
        };
        let undo = match raw.undo.map(|undo| (undo.value, undo.referenced)) {
            None | Some((RawUndo::Flag(false), _)) => Undo::Never,
            Some((_, at)) if action == Action::LibvirtEvacuate => {
                let message =
                    "an evacuation is not undone: guests that moved stay; bring them back by a run of its own";
                self.problem(at, message.to_owned());
                return None;
            }
            Some((RawUndo::Flag(true), _)) => Undo::Restore,
            Some((RawUndo::Do(undo), at)) => {
                let action = self.action(&undo.action)?;
                if action == Action::LibvirtEvacuate {
                    self.problem(at, "an evacuation cannot undo anything".to_owned());
                }
                Undo::Do(action, self.with(action, undo.with, undo.action.referenced)?)
            }
        };
        // A migration of a large guest under a bandwidth cap takes minutes; the runtime API of a balancer answers at once.
        let default_ms = if action == Action::LibvirtEvacuate { 600_000 } else { 30_000 };
        let timeout_ms = raw.timeout.map_or(default_ms, Span::as_ms);
        Some(Step { action, on: on.flatten(), with: with?, timeout_ms, verify, undo })
    }

    fn action(&mut self, raw: &Spanned<String>) -> Option<Action> {
        let action = Action::parse(&raw.value);
        if action.is_none() {
            self.problem(raw.referenced, format!("unknown action `{}`; known are {}", raw.value, Action::known()));
        }
        action
    }

    fn with(
        &mut self,
        action: Action,
        raw: BTreeMap<String, Spanned<Scalar>>,
        at: Location,
    ) -> Option<Vec<(String, Template)>> {
        if let Err(error) = action.check_names(&raw.keys().collect::<Vec<_>>()) {
            self.problem(at, error.to_string());
            return None;
        }
        let (mut with, mut constant) = (Vec::new(), Vec::new());
        for (name, written) in raw {
            let template = self.template(&written.value.0, written.referenced, Use::Text)?;
            if !written.value.0.contains("{{") && !written.value.0.contains("{%") {
                constant.push((name.clone(), written.value.0, written.referenced));
            }
            with.push((name, template));
        }
        for (name, text, at) in constant {
            // The others stand in for themselves as `1`, which is a name as well as a number.
            let others =
                with.iter().filter(|(other, _)| *other != name).map(|(other, _)| (other.clone(), "1".to_owned()));
            let others: Vec<(String, String)> = others.collect();
            let texts: Vec<(String, String)> = others.into_iter().chain([(name, text)]).collect();
            if let Err(error) = action.check_values(&texts) {
                self.problem(at, error.to_string());
            }
        }
        Some(with)
    }

    fn template(&mut self, text: &str, at: Location, used_as: Use) -> Option<Template> {
        Template::parse(text, used_as).map_err(|error| self.problem(at, error.to_string())).ok()
    }

    fn promql(&mut self, written: &Spanned<String>) -> Option<Template> {
        let template = self.template(&written.value, written.referenced, Use::PromQl)?;
        if let Some(Err(said)) = template.render_stand_in().map(|text| judge::check(&text)) {
            self.problem(written.referenced, format!("`{}` is not PromQL: {said}", written.value));
            return None;
        }
        Some(template)
    }
}

/// Reads `name="value"` with any of the four operators; the quotes may be left out.
fn matcher(text: &str) -> Result<Matcher, String> {
    let wrong =
        || format!("`{text}` is not a matcher; write for example alertname=\"HostDown\" or instance=~\"web.*\"");
    let at = text.find(['=', '!']).ok_or_else(wrong)?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let operators = ["=~", "!~", "!=", "="];
    let operator = operators.into_iter().find(|operator| rest.starts_with(operator)).ok_or_else(wrong)?;
    let value = rest[operator.len()..].trim();
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    let name_starts_well = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if !name.bytes().next().is_some_and(name_starts_well)
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        return Err(wrong());
    }
    let regex = |negated| {
        Matcher::regex(name, value, negated)
            .map_err(|error| format!("`{text}`: the expression does not compile: {error}"))
    };
    match operator {
        "=~" => regex(false),
        "!~" => regex(true),
        "!=" => Ok(Matcher { name: name.to_owned(), op: crate::series::MatchOp::NotEqual(value.to_owned()) }),
        _ => Ok(Matcher::equal(name, value)),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::runbook::OnFailure;
    use super::*;

    fn check(text: &str, want: &Expect) {
        let lines: Vec<String> = match load(&[(PathBuf::from("a.yaml"), text.to_owned())]) {
            Ok(runbooks) => runbooks.iter().map(|book| format!("{} {}", book.name, book.mode.as_str())).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        let said: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        want.assert_eq(&said);
    }

    const GOOD: &str = r#"
runbook: drain
when:
  alert: ['alertname="DiskFull"', 'instance=~"web.*"', job!~x]
  probability: 0.8
  lead: 6h
mode: auto
guards:
  - promql: 'up{instance="{{ labels.instance }}"} == 1'
    is: true
  - promql: 'free{instance="{{ labels.instance }}"} > 9'
    is: empty
    reason: there is room
    precursor: true
steps:
  - action: haproxy.set_weight
    on: lb
    with: {backend: web, server: "{{ labels.instance }}", weight: 10}
    verify: {promql: 'vector(1)', within: 30s}
    undo: true
  - action: haproxy.drain
    on: lb
    with: {backend: web, server: "{{ labels.instance }}"}
    undo: {action: haproxy.ready, with: {backend: web, server: "{{ labels.instance }}"}}
"#;

    #[test]
    fn a_runbook_is_read_with_its_defaults() {
        check(
            GOOD,
            &expect![[r"
            drain auto
        "]],
        );
        let runbook = load(&[(PathBuf::from("a.yaml"), GOOD.to_owned())]).unwrap().remove(0);
        assert_eq!(
            (runbook.cooldown_ms, runbook.min_history_ms, runbook.on_failure),
            (3_600_000, 3_600_000, OnFailure::Stop)
        );
        assert!(runbook.has_precursor() && runbook.guards[1].is == Is::Empty);
        assert!(matches!(runbook.steps[0].undo, Undo::Restore) && matches!(runbook.steps[1].undo, Undo::Do(..)));
    }

    #[test]
    fn mode_is_shadow_unless_said_otherwise() {
        check(
            "runbook: e\nwhen: {level: critical}\nsteps: [{action: libvirt.evacuate, with: {host: '{{ labels.instance }}'}}]\n",
            &expect![[r"
                e shadow
            "]],
        );
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let bad = r#"
runbook: bad
when: {}
guards:
  - promql: 'sum(up'
  - promql: 'up == {{ label.x }}'
    is: maybe
steps:
  - action: haproxy.reboot
  - action: haproxy.drain
    with: {backend: web}
  - action: haproxy.set_weight
    on: "{{ labels.x"
    with: {backend: web, server: web1, weight: 900}
  - action: libvirt.evacuate
    with: {host: h1}
    undo: true
"#;
        check(
            bad,
            &expect![[r"
                a.yaml:3:7: `when` matches every alert; give `alert`, `level` or `probability`
                a.yaml:5:13: `sum(up` is not PromQL: 1:7: parse error: unclosed left parenthesis
                a.yaml:6:13: template names `label`; there is only alert, labels, annotations, plan
                a.yaml:7:9: `is: maybe` is not known; write `true` or `empty`
                a.yaml:9:13: unknown action `haproxy.reboot`; known are haproxy.drain, haproxy.set_weight, haproxy.ready, libvirt.evacuate
                a.yaml:10:13: `haproxy.drain` needs `on`: the agent that speaks to the load balancer
                a.yaml:10:13: `haproxy.drain` needs `server` in `with`
                a.yaml:13:9: template cannot be read: syntax error: unexpected end of input, expected end of variable block (in <string>:1)
                a.yaml:14:48: `weight: 900` is not a whole number from 0 to 256
                a.yaml:17:11: an evacuation is not undone: guests that moved stay; bring them back by a run of its own
            "]],
        );
    }

    #[test]
    fn unknown_keys_are_refused_and_nothing_is_taken() {
        let second = format!("{GOOD}---\nrunbook: other\nwhen: {{level: info}}\nstep: []\n");
        check(
            &second,
            &expect![[r"
            a.yaml:28:1: unknown field `step`, expected one of runbook, description, when, mode, guards, cooldown, min_history, approve_within, on_failure, undo_when_resolved, steps
        "]],
        );
        let twice = format!("{GOOD}---{GOOD}");
        check(
            &twice,
            &expect![[r"
            a.yaml:26:10: runbook `drain` is defined twice; names are unique
        "]],
        );
        check(
            "runbook: x\nmode: bold\n",
            &expect![[r"
            a.yaml:2:7: unknown variant `bold`, expected one of shadow, approve, auto
        "]],
        );
        check(
            "runbook: [\n",
            &expect![[r"
            a.yaml:1:10: expected string scalar
        "]],
        );
    }
}
