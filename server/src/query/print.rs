//! Writes an expression as PromQL that parses back to the same expression. It decides nothing.

use std::fmt::{Display, Formatter, Result, Write as _};

use crate::query::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, DurationExpr, DurationNode, Edges, Expr, Group, Grouping,
    Place, Selector, Subquery,
};
use crate::query::parse::literal::quoted;
use crate::series::{MatchOp, Matcher, NAME};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Expr::Number(value) => f.write_str(&number(*value)),
            Expr::Text(text) => f.write_str(&quoted(text)),
            Expr::Selector(selector) => write!(f, "{selector}"),
            Expr::Range(range) => {
                write_matchers(f, &range.selector)?;
                write!(f, "[{}]", written(range.range_ms, range.range_expr.as_ref()))?;
                write_edges(f, range.selector.edges)?;
                write_time(f, range.selector.at, range.selector.offset_ms, range.selector.offset_expr.as_ref())
            }
            Expr::Subquery(subquery) => write_subquery(f, subquery),
            Expr::Paren(inner) => write!(f, "({inner})"),
            Expr::Negate(inner) => write!(f, "-{inner}"),
            Expr::Call(call) => write_call(f, call),
            Expr::Aggregate(aggregate) => write_aggregate(f, aggregate),
            Expr::Binary(binary) => write_binary(f, binary),
        }
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write_matchers(f, self)?;
        write_edges(f, self.edges)?;
        write_time(f, self.at, self.offset_ms, self.offset_expr.as_ref())
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.node {
            DurationNode::Seconds { value, is_duration: true } => f.write_str(&seconds_text(*value)),
            DurationNode::Seconds { value, .. } => write!(f, "{value}"),
            DurationNode::Step => f.write_str("step()"),
            DurationNode::Range => f.write_str("range()"),
            DurationNode::Negate(inner) => write!(f, "-{inner}"),
            DurationNode::Paren(inner) => write!(f, "({inner})"),
            DurationNode::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationNode::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationNode::Binary(op, a, b) => write!(f, "{a} {op} {b}"),
        }
    }
}

fn seconds_text(seconds: f64) -> String {
    duration((seconds * 1000.0).round() as i64)
}

/// A duration as it was computed or is to be.
fn written(ms: i64, expr: Option<&DurationExpr>) -> String {
    expr.map_or_else(|| duration(ms), ToString::to_string)
}

fn write_edges(f: &mut Formatter<'_>, edges: Edges) -> Result {
    f.write_str(match edges {
        Edges::Open => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    })
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Display for AggregateOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Count => "count",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        })
    }
}

impl Display for BinaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Greater => ">",
            BinaryOp::Less => "<",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::LessEqual => "<=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        })
    }
}

/// A value as Prometheus writes it: shortest digits that read back the same, `NaN`, `+Inf`, `-Inf`.
pub fn number(value: f64) -> String {
    let mut out = String::new();
    write_number(&mut out, value);
    out
}

/// Appends what [`number`] gives.
pub fn write_number(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if (1e-5..1e15).contains(&size) || value == 0.0 {
        // Most values, and `zmij` writes them without exponent: the same digits as the standard library's, five times as fast.
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        out.push_str(text.strip_suffix(".0").unwrap_or(text));
    } else if (1e-6..1e21).contains(&size) {
        let _ = write!(out, "{value}");
    } else {
        out.push_str(&exponent(value));
    }
}

/// Go writes at least two digits of exponent, with a sign.
fn exponent(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text,
    }
}

/// A number as Go's `%g` writes it.
pub(super) fn general(value: f64) -> String {
    let power = format!("{value:e}").split_once('e').and_then(|(_, power)| power.parse::<i32>().ok());
    match power {
        Some(power) if value.is_finite() && !(-4..6).contains(&power) => exponent(value),
        Some(_) if value.is_finite() => format!("{value}"),
        _ => number(value),
    }
}

/// A number with two significant digits, as Go's `%.2g` writes it.
pub(super) fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    if rounded.is_finite() && rounded != 0.0 && !(1e-4..100.0).contains(&rounded.abs()) {
        exponent(rounded)
    } else {
        number(rounded)
    }
}

fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 6] =
        [(604_800_000, "w"), (86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut rest = ms.unsigned_abs();
    let mut text = if ms < 0 { "-".to_owned() } else { String::new() };
    for (unit_ms, unit) in UNITS {
        let many = rest / unit_ms.unsigned_abs();
        // Weeks only where they are the whole, as Prometheus prints them.
        if many > 0 && (unit != "w" || rest.is_multiple_of(unit_ms.unsigned_abs())) {
            text.push_str(&many.to_string());
            text.push_str(unit);
            rest -= many * unit_ms.unsigned_abs();
        }
    }
    text
}

fn write_matchers(f: &mut Formatter<'_>, selector: &Selector) -> Result {
    let name = selector.metric().filter(|name| is_name(name, true));
    f.write_str(name.unwrap_or_default())?;
    let rest: Vec<String> = selector
        .matchers
        .iter()
        .filter(|matcher| !(name.is_some() && matcher.name == NAME && matches!(matcher.op, MatchOp::Equal(_))))
        .map(matcher)
        .collect();
    if !rest.is_empty() || name.is_none() {
        write!(f, "{{{}}}", rest.join(","))?;
    }
    Ok(())
}

pub(super) fn matcher(matcher: &Matcher) -> String {
    let name = label(&matcher.name);
    match &matcher.op {
        MatchOp::Equal(value) => format!("{name}={}", quoted(value)),
        MatchOp::NotEqual(value) => format!("{name}!={}", quoted(value)),
        MatchOp::Regex(regex) => format!("{name}=~{}", quoted(pattern(regex.as_str()))),
        MatchOp::NotRegex(regex) => format!("{name}!~{}", quoted(pattern(regex.as_str()))),
    }
}

/// What the user wrote, without the anchors that `Matcher::regex` adds.
pub(super) fn pattern(anchored: &str) -> &str {
    anchored.strip_prefix("^(?s:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(anchored)
}

fn label(name: &str) -> String {
    if is_name(name, false) { name.to_owned() } else { quoted(name) }
}

/// Whether a name can stand unquoted; colons only in metric names.
pub(super) fn is_name(name: &str, colon: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn write_time(
    f: &mut impl std::fmt::Write,
    at: Option<At>,
    offset_ms: i64,
    offset_expr: Option<&DurationExpr>,
) -> Result {
    match at {
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        Some(At::Time(t)) => write!(f, " @ {:.3}", t as f64 / 1000.0)?,
        None => {}
    }
    match offset_expr {
        Some(expr) => write!(f, " offset {expr}")?,
        None if offset_ms != 0 => write!(f, " offset {}", duration(offset_ms))?,
        None => {}
    }
    Ok(())
}

fn write_subquery(f: &mut Formatter<'_>, subquery: &Subquery) -> Result {
    write!(f, "{}", subquery.expr)?;
    write_subquery_time(f, subquery)
}

/// What follows the expression of a subquery.
pub(super) fn write_subquery_time(f: &mut impl std::fmt::Write, subquery: &Subquery) -> Result {
    let step = subquery.step_ms.map(|ms| written(ms, subquery.step_expr.as_ref())).unwrap_or_default();
    write!(f, "[{}:{step}]", written(subquery.range_ms, subquery.range_expr.as_ref()))?;
    write_time(f, subquery.at, subquery.offset_ms, subquery.offset_expr.as_ref())
}

/// An argument of a call. The second of `info` has its name within the braces.
pub(super) fn argument(call: &Call, place: usize) -> String {
    match &call.args[place] {
        Expr::Selector(selector) if call.function == "info" && place == 1 => {
            format!("{{{}}}", selector.matchers.iter().map(matcher).collect::<Vec<_>>().join(","))
        }
        arg => arg.to_string(),
    }
}

fn write_call(f: &mut Formatter<'_>, call: &Call) -> Result {
    let args: Vec<String> = (0..call.args.len()).map(|place| argument(call, place)).collect();
    write!(f, "{}({})", call.function, args.join(", "))
}

/// An aggregation up to its arguments.
pub(super) fn aggregate_head(aggregate: &Aggregate) -> String {
    let Grouping { without, labels } = &aggregate.grouping;
    if *without || !labels.is_empty() {
        format!("{} {} ({}) ", aggregate.op, if *without { "without" } else { "by" }, names(labels))
    } else {
        aggregate.op.to_string()
    }
}

fn write_aggregate(f: &mut Formatter<'_>, aggregate: &Aggregate) -> Result {
    f.write_str(&aggregate_head(aggregate))?;
    match &aggregate.param {
        Some(param) => write!(f, "({param}, {})", aggregate.expr),
        None => write!(f, "({})", aggregate.expr),
    }
}

fn write_binary(f: &mut Formatter<'_>, binary: &Binary) -> Result {
    write!(f, "{} ", binary.lhs)?;
    write_operator(f, binary)?;
    write!(f, " {}", binary.rhs)
}

/// An operator with all that says how its operands meet.
pub(super) fn write_operator(f: &mut impl std::fmt::Write, binary: &Binary) -> Result {
    write!(f, "{}", binary.op)?;
    if binary.returns_bool {
        f.write_str(" bool")?;
    }
    let matching = &binary.matching;
    if matching.on || !matching.labels.is_empty() || matching.group != Group::OneToOne {
        write!(f, " {} ({})", if matching.on { "on" } else { "ignoring" }, names(&matching.labels))?;
    }
    match &matching.group {
        Group::OneToOne => {}
        Group::Left(include) => write!(f, " group_left ({})", names(include))?,
        Group::Right(include) => write!(f, " group_right ({})", names(include))?,
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => write!(f, " fill ({})", number(left)),
        (left, right) => {
            if let Some(value) = left {
                write!(f, " fill_left ({})", number(value))?;
            }
            right.map_or(Ok(()), |value| write!(f, " fill_right ({})", number(value)))
        }
    }
}

fn names(labels: &[String]) -> String {
    labels.iter().map(|name| label(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (0.1 + 0.2, "0.30000000000000004"),
            // Halfway between two of sixteen digits, at .25 and .75 exactly: the even one.
            (917_941_293_960_884.0 + 0.25, "917941293960884.2"),
            (917_941_293_960_884.0 + 0.75, "917941293960884.8"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (9.9e-7, "9.9e-07"),
            (1e15, "1000000000000000"),
            (1e16, "10000000000000000"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.5e-300, "-1.5e-300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        /// The standard library's digits may differ in the last place where two are equally near; these are then the even ones.
        #[test]
        fn numbers_are_the_shortest_that_read_back(
            value in prop_oneof![-1e22..1e22, -1e5..1e5, -1.0..1.0, (-1e9..1e9).prop_map(f64::round), any::<f64>()]
        ) {
            prop_assume!(f64::is_finite(value));
            let text = number(value);
            prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(f64::to_bits(value)));
            let digits = |text: &str| text.split('e').next().unwrap_or("").trim_matches(['-', '0', '.']).replace('.', "").len();
            prop_assert_eq!(digits(&text), digits(&format!("{value:e}")));
        }
    }
}
