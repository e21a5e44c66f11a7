//! The functions of templates: Go's own and Prometheus'. One table; what is not in it is refused when a rule is loaded.

use std::cmp::Ordering;

use super::expand::Machine;
use super::value::Value;
use super::{Fault, TEXT_BYTES_MAX, format, humanize};

/// Memory that a regular expression of a template may take when compiled.
const REGEX_BYTES_MAX: usize = 1 << 18;

type Call = fn(&mut Machine<'_>, &[Value]) -> Result<Value, Fault>;

/// A function that templates may call.
pub(super) struct Function {
    /// Its name.
    pub(super) name: &'static str,
    /// Fewest and most arguments, the piped one included.
    arguments: (usize, usize),
    /// What it does; gets as many arguments as the line above allows.
    pub(super) call: Call,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    /// Whether it can be called with so many arguments.
    pub(super) fn takes(&self, count: usize) -> bool {
        (self.arguments.0..=self.arguments.1).contains(&count)
    }
}

const MANY: usize = 64;

const fn function(name: &'static str, arguments: (usize, usize), call: Call) -> Function {
    Function { name, arguments, call }
}

static FUNCTIONS: [Function; 36] = [
    function("and", (1, MANY), |_, a| Ok(a.iter().find(|v| !v.is_true()).unwrap_or(last(a)).clone())),
    function("or", (1, MANY), |_, a| Ok(a.iter().find(|v| v.is_true()).unwrap_or(last(a)).clone())),
    function("not", (1, 1), |_, a| Ok(Value::Bool(!a[0].is_true()))),
    function("eq", (2, MANY), |_, a| any_equal(a)),
    function("ne", (2, 2), |_, a| compare(a, |o| o != Ordering::Equal, true)),
    function("lt", (2, 2), |_, a| compare(a, |o| o == Ordering::Less, false)),
    function("le", (2, 2), |_, a| compare(a, |o| o != Ordering::Greater, false)),
    function("gt", (2, 2), |_, a| compare(a, |o| o == Ordering::Greater, false)),
    function("ge", (2, 2), |_, a| compare(a, |o| o != Ordering::Less, false)),
    function("len", (1, 1), |_, a| length(&a[0])),
    function("index", (2, 2), |_, a| index(&a[0], &a[1])),
    function("print", (0, MANY), |_, a| Ok(Value::Text(a.iter().map(ToString::to_string).collect()))),
    function("printf", (1, MANY), |_, a| format::printf(a).map(Value::Text)),
    function("humanize", (1, 1), |_, a| number(&a[0]).map(humanize::humanize).map(Value::Text)),
    function("humanize1024", (1, 1), |_, a| number(&a[0]).map(humanize::humanize1024).map(Value::Text)),
    function("humanizeDuration", (1, 1), |_, a| number(&a[0]).map(humanize::duration).map(Value::Text)),
    function("humanizePercentage", (1, 1), |_, a| number(&a[0]).map(humanize::percentage).map(Value::Text)),
    function("humanizeTimestamp", (1, 1), |_, a| timestamp(&a[0])),
    function("parseDuration", (1, 1), |_, a| parse_duration(text(&a[0])?)),
    function("title", (1, 1), |_, a| Ok(Value::Text(title(text(&a[0])?)))),
    function("toUpper", (1, 1), |_, a| Ok(Value::Text(text(&a[0])?.to_uppercase()))),
    function("toLower", (1, 1), |_, a| Ok(Value::Text(text(&a[0])?.to_lowercase()))),
    function("stripPort", (1, 1), |_, a| Ok(Value::Text(strip_port(text(&a[0])?).to_owned()))),
    function("stripDomain", (1, 1), |_, a| Ok(Value::Text(strip_domain(text(&a[0])?)))),
    function("match", (2, 2), |_, a| Ok(Value::Bool(regex(text(&a[0])?)?.is_match(text(&a[1])?)))),
    function("reReplaceAll", (3, 3), |_, a| replace_all(text(&a[0])?, text(&a[1])?, text(&a[2])?)),
    function("query", (1, 1), |machine, a| machine.query(text(&a[0])?)),
    function("first", (1, 1), |_, a| first(&a[0])),
    function("value", (1, 1), |_, a| match &a[0] {
        Value::Sample(found) => Ok(Value::Float(found.value)),
        other => Err(wrong("value", "a sample", other)),
    }),
    function("label", (2, 2), |_, a| label(text(&a[0])?, &a[1])),
    function("strvalue", (1, 1), |_, a| label("__value__", &a[0])),
    function("sortByLabel", (2, 2), |_, a| sort_by_label(text(&a[0])?, &a[1])),
    function("safeHtml", (1, 1), |_, a| Ok(a[0].clone())),
    function("externalURL", (0, 0), |machine, _| Ok(Value::Text(machine.external_url().to_owned()))),
    function("graphLink", (1, 1), |_, a| Ok(Value::Text(link(text(&a[0])?, 0)))),
    function("tableLink", (1, 1), |_, a| Ok(Value::Text(link(text(&a[0])?, 1)))),
];

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// A link to an expression, as a graph or as a table, in the form that Prometheus gives it.
fn link(expression: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", crate::rules::url_escaped(expression))
}

fn last(arguments: &[Value]) -> &Value {
    arguments.last().unwrap_or(&Value::Nothing)
}

fn wrong(function: &str, wanted: &str, got: &Value) -> Fault {
    Fault::Value(format!("{function} wants {wanted}, not {}", got.type_name()))
}

fn text(value: &Value) -> Result<&str, Fault> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(wrong("the function", "text", other)),
    }
}

fn number(value: &Value) -> Result<f64, Fault> {
    value.as_number().ok_or_else(|| wrong("the function", "a number", value))
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        // Go refuses to compare an integer with a float; a rule that would fail there may as well work here.
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            a.as_number()?.partial_cmp(&b.as_number()?)
        }
        _ => None,
    }
}

fn compare(a: &[Value], holds: fn(Ordering) -> bool, unordered: bool) -> Result<Value, Fault> {
    let comparable = matches!(
        (&a[0], &a[1]),
        (Value::Text(_), Value::Text(_))
            | (Value::Bool(_), Value::Bool(_))
            | (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_))
    );
    if !comparable {
        return Err(Fault::Value(format!("{} and {} cannot be compared", a[0].type_name(), a[1].type_name())));
    }
    // Only NaN is left without an order: it differs from everything.
    Ok(Value::Bool(order(&a[0], &a[1]).map_or(unordered, holds)))
}

fn any_equal(a: &[Value]) -> Result<Value, Fault> {
    for other in &a[1..] {
        if compare(&[a[0].clone(), other.clone()], |o| o == Ordering::Equal, false)? == Value::Bool(true) {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn length(value: &Value) -> Result<Value, Fault> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Map(map) => map.len(),
        Value::Vector(vector) => vector.len(),
        other => return Err(wrong("len", "text, labels or a query's answer", other)),
    };
    Ok(Value::Int(length as i64))
}

fn index(value: &Value, key: &Value) -> Result<Value, Fault> {
    match (value, key) {
        (Value::Map(map), Value::Text(name)) => Ok(Value::Text(map.get(name).cloned().unwrap_or_default())),
        (Value::Vector(vector), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| vector.get(at))
            .map(|found| Value::Sample(Box::new(found.clone())))
            .ok_or_else(|| Fault::Value(format!("index {at} is out of range"))),
        _ => Err(wrong("index", "labels and a name, or a query's answer and a number", value)),
    }
}

fn first(value: &Value) -> Result<Value, Fault> {
    match value {
        Value::Vector(vector) => vector
            .first()
            .map(|found| Value::Sample(Box::new(found.clone())))
            .ok_or_else(|| Fault::Value("first() called on vector with no elements".to_owned())),
        other => Err(wrong("first", "a query's answer", other)),
    }
}

fn label(name: &str, value: &Value) -> Result<Value, Fault> {
    match value {
        Value::Sample(found) => Ok(Value::Text(found.labels.get(name).cloned().unwrap_or_default())),
        other => Err(wrong("label", "a sample", other)),
    }
}

fn sort_by_label(name: &str, value: &Value) -> Result<Value, Fault> {
    let Value::Vector(vector) = value else { return Err(wrong("sortByLabel", "a query's answer", value)) };
    let mut sorted = vector.clone();
    sorted.sort_by(|a, b| a.labels.get(name).cmp(&b.labels.get(name)));
    Ok(Value::Vector(sorted))
}

fn regex(pattern: &str) -> Result<regex::Regex, Fault> {
    regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| Fault::Value(format!("`{pattern}` is not a regular expression: {error}")))
}

/// Text and replacement multiply, so the text is held to the length of a template.
fn replace_all(pattern: &str, replacement: &str, text: &str) -> Result<Value, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::Exhausted(TEXT_BYTES_MAX, "bytes of text in reReplaceAll"));
    }
    Ok(Value::Text(regex(pattern)?.replace_all(text, replacement).into_owned()))
}

fn timestamp(value: &Value) -> Result<Value, Fault> {
    let seconds = number(value)?;
    let shown = humanize::timestamp(seconds);
    shown.map(Value::Text).ok_or_else(|| Fault::Value(format!("{seconds} is not a time")))
}

fn parse_duration(text: &str) -> Result<Value, Fault> {
    let span: petrel_agent::units::Span = text.parse().map_err(|error| Fault::Value(format!("{error}")))?;
    Ok(Value::Float(span.0.as_secs_f64()))
}

/// The first letter of every word in upper case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || matches!(c, '_' | '\'');
    }
    out
}

fn strip_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name.trim_start_matches('[').trim_end_matches(']')
        }
        _ => host,
    }
}

fn strip_domain(host: &str) -> String {
    let name = strip_port(host);
    if name.parse::<std::net::IpAddr>().is_ok() {
        return host.to_owned();
    }
    let short = name.split('.').next().unwrap_or(name);
    format!("{short}{}", &host[name.len().min(host.len())..])
}
