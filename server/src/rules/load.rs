//! Reads and checks rule files: all problems at once, each with its place, and no rule in force unless all are sound.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use petrel_agent::units::Span;
use serde_saphyr::{Location, Spanned};

use super::file::{RawFile, RawGroup, RawRule};
use super::rule::{AlertRule, Group, Rule, RuleId, RuleKind, RuleSet};
use super::severity;
use super::template::Template;
use crate::series::Labels;

/// Something wrong in a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The file.
    pub file: PathBuf,
    /// What and where.
    pub finding: Finding,
}

/// What a check has to say about one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line, from 1 on; 0 where it is not known.
    pub line: u64,
    /// Column, from 1 on.
    pub column: u64,
    /// Whether the file is refused for it; otherwise it is a remark.
    pub fatal: bool,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "" } else { "remark: " };
        write!(f, "{}:{}: {kind}{}", self.line, self.column, self.message)
    }
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.finding)
    }
}

impl std::error::Error for RuleProblem {}

/// Reads rule files whole or not at all.
///
/// # Errors
/// All problems of all files, in their order.
pub fn load(files: &[(PathBuf, String)]) -> Result<RuleSet, Vec<RuleProblem>> {
    let (mut groups, mut problems) = (Vec::new(), Vec::new());
    for (path, text) in files {
        let mut reader = Reader::default();
        groups.extend(reader.file(&path.to_string_lossy(), text));
        let fatal = reader.findings.into_iter().filter(|finding| finding.fatal);
        problems.extend(fatal.map(|finding| RuleProblem { file: path.clone(), finding }));
    }
    if problems.is_empty() { Ok(RuleSet { groups }) } else { Err(problems) }
}

/// What `petrel check` says of a rule file: what `load` would refuse, and remarks on what is allowed but hardly meant.
pub fn check(path: &Path, text: &str) -> Vec<Finding> {
    let mut reader = Reader::default();
    reader.file(&path.to_string_lossy(), text);
    reader.findings
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn refuse(&mut self, at: Location, message: String) {
        self.findings.push(Finding { line: at.line(), column: at.column(), fatal: true, message });
    }

    fn remark(&mut self, at: Location, message: String) {
        self.findings.push(Finding { line: at.line(), column: at.column(), fatal: false, message });
    }

    fn file(&mut self, file: &str, text: &str) -> Vec<Group> {
        // A file with comments only is a file without groups.
        let raw: Option<RawFile> = match serde_saphyr::from_str(text) {
            Ok(raw) => raw,
            Err(error) => {
                let at = error.location().unwrap_or(Location::UNKNOWN);
                let message = first_line(&error.without_snippet().to_string());
                // The place stands in front of every finding already.
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what).to_owned();
                self.refuse(at, message);
                return Vec::new();
            }
        };
        let mut names = HashSet::new();
        let mut groups = Vec::new();
        for group in raw.unwrap_or_default().groups {
            if group.name.value.is_empty() {
                self.refuse(group.name.referenced, "group name is empty; give it one".to_owned());
            } else if !names.insert(group.name.value.clone()) {
                let message = format!("group `{}` stands twice in this file; rename one", group.name.value);
                self.refuse(group.name.referenced, message);
            }
            groups.push(self.group(file, group));
        }
        groups
    }

    fn group(&mut self, file: &str, raw: RawGroup) -> Group {
        let interval_ms = raw.interval.as_ref().map(|text| self.span("interval", text));
        if interval_ms == Some(0) {
            let at = raw.interval.as_ref().map_or(Location::UNKNOWN, |text| text.referenced);
            self.refuse(at, "interval is 0; write for example 1m, or leave it out".to_owned());
        }
        let query_offset_ms = raw.query_offset.as_ref().map_or(0, |text| self.span("query_offset", text));
        self.label_names("label", &raw.labels);
        let mut seen: HashMap<RuleId, Vec<String>> = HashMap::new();
        let mut rules = Vec::new();
        for rule in raw.rules {
            let at = rule.alert.as_ref().or(rule.record.as_ref()).map_or(rule.expr.referenced, |name| name.referenced);
            let Some(mut rule) = self.rule(file, &raw.name.value, &raw.labels, rule) else { continue };
            let same = seen.entry(rule.id.clone()).or_default();
            if same.contains(&rule.expr) {
                self.refuse(
                    at,
                    format!("rule `{}` stands twice in this group, with the same labels and expr", rule.name),
                );
            }
            same.push(rule.expr.clone());
            // The same name and labels with another expression is allowed in Prometheus; the count tells them apart.
            if same.len() > 1 {
                rule.id = RuleId::from_text(&format!("{}#{}", rule.id, same.len()));
            }
            rules.push(rule);
        }
        Group {
            file: file.to_owned(),
            name: raw.name.value,
            interval_ms,
            query_offset_ms,
            limit: raw.limit.unwrap_or(0),
            rules,
        }
    }

    fn rule(
        &mut self,
        file: &str,
        group: &str,
        group_labels: &BTreeMap<String, Spanned<String>>,
        raw: RawRule,
    ) -> Option<Rule> {
        let before = self.findings.iter().filter(|finding| finding.fatal).count();
        let name = self.name(&raw)?;
        let metrics = self.expression(&raw.expr);
        self.label_names("label", &raw.labels);
        self.label_names("annotation", &raw.annotations);
        let mut labels = group_labels.clone();
        labels.extend(raw.labels.clone());
        let id = identity(file, group, &name, &labels);
        let kind = if raw.record.is_some() { self.record(&raw, &labels) } else { self.alert(&raw, &labels) };
        let after = self.findings.iter().filter(|finding| finding.fatal).count();
        (before == after).then_some(Rule { id, name, expr: raw.expr.value, metrics, kind })
    }

    fn name(&mut self, raw: &RawRule) -> Option<String> {
        let (name, pattern) = match (&raw.record, &raw.alert) {
            (Some(record), None) => (record, "letters, digits, `_` and `:`"),
            (None, Some(alert)) => (alert, ""),
            (Some(record), Some(_)) => {
                self.refuse(record.referenced, "a rule has either `record` or `alert`, not both".to_owned());
                return None;
            }
            (None, None) => {
                self.refuse(raw.expr.referenced, "a rule needs `record` or `alert`".to_owned());
                return None;
            }
        };
        let sound = if pattern.is_empty() { !name.value.is_empty() } else { is_metric_name(&name.value) };
        if !sound {
            let allowed = if pattern.is_empty() { "it must not be empty" } else { pattern };
            self.refuse(name.referenced, format!("`{}` is not a name: {allowed}", name.value));
            return None;
        }
        Some(name.value.clone())
    }

    fn record(&mut self, raw: &RawRule, labels: &BTreeMap<String, Spanned<String>>) -> RuleKind {
        for (key, value) in [("for", &raw.hold), ("keep_firing_for", &raw.keep_firing_for)] {
            if let Some(value) = value {
                self.refuse(value.referenced, format!("`{key}` belongs to alerting rules; this one records"));
            }
        }
        if let Some(text) = raw.annotations.values().next() {
            self.refuse(text.referenced, "`annotations` belong to alerting rules; this one records".to_owned());
        }
        RuleKind::Record { labels: Labels::new(labels.iter().map(|(name, text)| (name.as_str(), text.value.as_str()))) }
    }

    fn alert(&mut self, raw: &RawRule, labels: &BTreeMap<String, Spanned<String>>) -> RuleKind {
        if let Some(text) = labels.get("severity")
            && !text.value.contains("{{")
            && severity::level_of(&text.value).is_none()
        {
            let known = "page, critical, P1, error, high, warning, P2, P3, info, none or emergency";
            let message = format!("severity `{}` is not known and counts as warning; known are {known}", text.value);
            self.remark(text.referenced, message);
        }
        if let Some(text) = labels.get(severity::LEVEL_LABEL)
            && !text.value.contains("{{")
            && !["info", "warning", "critical", "emergency"].contains(&text.value.as_str())
        {
            let message = format!("level `{}` is not one of info, warning, critical, emergency", text.value);
            self.refuse(text.referenced, message);
        }
        RuleKind::Alert(AlertRule {
            hold_ms: raw.hold.as_ref().map_or(0, |text| self.span("for", text)),
            keep_firing_ms: raw.keep_firing_for.as_ref().map_or(0, |text| self.span("keep_firing_for", text)),
            labels: self.templates(labels),
            annotations: self.templates(&raw.annotations),
        })
    }

    fn templates(&mut self, texts: &BTreeMap<String, Spanned<String>>) -> Vec<(String, Template)> {
        let mut templates = Vec::new();
        for (name, text) in texts {
            match Template::parse(&text.value) {
                Ok(template) => templates.push((name.clone(), template)),
                Err(error) => self.refuse(text.referenced, format!("`{name}`: {error}")),
            }
        }
        templates
    }

    fn span(&mut self, key: &str, text: &Spanned<String>) -> i64 {
        match text.value.parse::<Span>() {
            Ok(span) => span.as_ms(),
            Err(error) => {
                self.refuse(text.referenced, format!("`{key}`: {error}"));
                0
            }
        }
    }

    fn label_names(&mut self, what: &str, texts: &BTreeMap<String, Spanned<String>>) {
        for (name, text) in texts {
            if !is_label_name(name) || name == crate::series::NAME {
                let allowed = "letters, digits and `_`, not a digit first, not `__name__`";
                self.refuse(text.referenced, format!("`{name}` is not a {what} name: {allowed}"));
            }
        }
    }

    /// The metrics that a sound expression reads.
    fn expression(&mut self, text: &Spanned<String>) -> Vec<String> {
        match crate::query::parse(&text.value) {
            Ok(expr) => {
                let names = expr.selectors().into_iter().filter_map(|selector| selector.metric().map(str::to_owned));
                let sorted: BTreeSet<String> = names.collect();
                sorted.into_iter().collect()
            }
            Err(error) => {
                self.refuse(text.referenced, format!("`expr`: {}", first_line(&error.to_string())));
                Vec::new()
            }
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// File, group, name and labels as written.
fn identity(file: &str, group: &str, name: &str, labels: &BTreeMap<String, Spanned<String>>) -> RuleId {
    let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}={:?}", text.value)).collect();
    RuleId::from_text(&format!("{file};{group};{name};{}", labels.join(",")))
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> String {
        check(Path::new("r.yaml"), text).iter().fold(String::new(), |all, finding| all + &finding.to_string() + "\n")
    }

    #[test]
    fn a_file_of_prometheus_is_read_unchanged() {
        let text = r#"
groups:
- name: example
  interval: 30s
  query_offset: 10s
  limit: 5
  labels: { team: storage }
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: { tier: one }
  - alert: Down
    expr: up == 0 and job:up:sum < 3
    for: 5m
    keep_firing_for: 1m30s
    labels: { severity: page, team: "{{ $labels.job }}" }
    annotations:
      summary: "{{ $labels.instance }} is down"
  - alert: Down
    expr: absent(up)
    labels: { severity: page }
"#;
        let set = load(&[(PathBuf::from("a.yaml"), text.to_owned())]).unwrap();
        let group = &set.groups[0];
        assert_eq!((group.interval_ms, group.query_offset_ms, group.limit), (Some(30_000), 10_000, 5));
        let RuleKind::Record { labels } = &group.rules[0].kind else { panic!() };
        assert_eq!(labels.to_string(), r#"{team="storage", tier="one"}"#);
        let down = group.rules[1].alert().unwrap();
        assert_eq!((down.hold_ms, down.keep_firing_ms, down.labels.len()), (300_000, 90_000, 2));
        assert_eq!(down.labels[1].1.text(), "{{ $labels.job }}");
        assert_eq!(group.rules[1].metrics, ["job:up:sum", "up"]);
        assert_ne!(group.rules[1].id, group.rules[2].id);
        assert!(load(&[(PathBuf::from("empty.yaml"), "# nothing yet\n".to_owned())]).unwrap().groups.is_empty());
    }

    #[test]
    fn all_problems_are_told_with_their_places() {
        let text = r#"groups:
- name: a
  interval: 0s
  rules:
  - alert: A
    expr: up ==
    for: soon
    labels: { "1x": y, severity: whatever }
    annotations: { summary: "{{ nope }}" }
  - record: "x y"
    expr: up
  - record: x
    expr: up
    for: 1m
    annotations: { a: b }
  - expr: up
  - alert: B
    expr: up
  - alert: B
    expr: up
- name: a
"#;
        let expected = expect_test::expect![[r"
            3:13: interval is 0; write for example 1m, or leave it out
            6:11: `expr`: 1:6: parse error: unexpected end of input
            8:21: `1x` is not a label name: letters, digits and `_`, not a digit first, not `__name__`
            8:34: remark: severity `whatever` is not known and counts as warning; known are page, critical, P1, error, high, warning, P2, P3, info, none or emergency
            7:10: `for`: `soon` is not a duration; write for example 30s, 5m, 1h30m or 15d
            9:29: `summary`: at byte 3 of the template: function `nope` is not known; Prometheus' template functions are allowed, except define and template
            10:13: `x y` is not a name: letters, digits, `_` and `:`
            14:10: `for` belongs to alerting rules; this one records
            15:23: `annotations` belong to alerting rules; this one records
            16:11: a rule needs `record` or `alert`
            19:12: rule `B` stands twice in this group, with the same labels and expr
            21:9: group `a` stands twice in this file; rename one
        "]];
        expected.assert_eq(&findings(text));
        assert!(load(&[(PathBuf::from("a.yaml"), text.to_owned())]).is_err());
    }

    #[test]
    fn unknown_keys_and_broken_yaml_are_refused_with_their_places() {
        let expected = expect_test::expect![[r"
            5:5: unknown field `expression`, expected one of record, alert, expr, for, keep_firing_for, labels, annotations
            3:13: expected string scalar
            1:1: unknown field `group`, expected one of groups
            3:10: invalid u64
        "]];
        expected.assert_eq(
            &[
                findings("groups:\n- name: a\n  rules:\n  - alert: A\n    expression: up\n"),
                findings("groups:\n- name: a\n  interval: [1\n"),
                findings("group: []\n"),
                findings("groups:\n- name: a\n  limit: many\n"),
            ]
            .concat(),
        );
    }

    #[test]
    fn one_bad_file_refuses_all() {
        let good = (PathBuf::from("good.yaml"), "groups: [{name: a, rules: [{alert: A, expr: up}]}]".to_owned());
        let bad = (PathBuf::from("bad.yaml"), "groups: [{name: a, rules: [{alert: A, expr: up(}]}]".to_owned());
        let problems = load(&[good, bad]).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("bad.yaml:1:"), "{}", problems[0]);
    }
}
