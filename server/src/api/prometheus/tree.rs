//! `parse_query`: a query as the tree that Prometheus 3 shows to query builders. It maps our expression node by node and
//! decides nothing.

use serde_json::{Value, json};

use crate::query::ast::{
    Aggregate, At, Binary, Call, DurationExpr, DurationNode, Edges, Expr, Group, Range, Selector, Subquery,
};
use crate::query::{self, Type};
use crate::series::{MatchOp, Matcher, NAME};

/// The tree of an expression.
pub(super) fn tree(expr: &Expr) -> Value {
    match expr {
        Expr::Number(value) => json!({ "type": "numberLiteral", "val": literal(*value) }),
        Expr::Text(text) => json!({ "type": "stringLiteral", "val": text }),
        Expr::Paren(inner) => json!({ "type": "parenExpr", "expr": tree(inner) }),
        Expr::Negate(inner) => json!({ "type": "unaryExpr", "op": "-", "expr": tree(inner) }),
        Expr::Selector(one) => selector("vectorSelector", one),
        Expr::Range(range) => of_range(range),
        Expr::Subquery(subquery) => of_subquery(subquery),
        Expr::Call(call) => of_call(call),
        Expr::Aggregate(aggregate) => of_aggregate(aggregate),
        Expr::Binary(binary) => of_binary(binary),
    }
}

/// Digits without an exponent, as Go's `'f'` writes them.
fn literal(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}

fn selector(kind: &str, selector: &Selector) -> Value {
    let name = selector.metric().unwrap_or_default();
    // Prometheus lists the name after the matchers in braces.
    let is_name =
        |matcher: &&Matcher| matcher.name == NAME && matches!(&matcher.op, MatchOp::Equal(value) if value == name);
    let (named, rest): (Vec<&Matcher>, Vec<&Matcher>) = selector.matchers.iter().partition(is_name);
    let matchers: Vec<Value> = rest.into_iter().chain(named).map(matcher).collect();
    let (timestamp, start_or_end) = at(selector.at);
    json!({
        "type": kind,
        "name": name,
        "offset": selector.offset_ms,
        "offsetExpr": computed(selector.offset_expr.as_ref()),
        "matchers": matchers,
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
        "anchored": selector.edges == Edges::Anchored,
        "smoothed": selector.edges == Edges::Smoothed,
    })
}

fn of_range(range: &Range) -> Value {
    let mut node = selector("matrixSelector", &range.selector);
    node["range"] = range.range_ms.into();
    node["rangeExpr"] = computed(range.range_expr.as_ref());
    node
}

/// A duration that is computed once the query's steps are known; its number of milliseconds is 0 until then.
fn computed(expr: Option<&DurationExpr>) -> Value {
    let Some(expr) = expr else { return Value::Null };
    let of = |op: &str, lhs: Option<&DurationExpr>, rhs: Option<&DurationExpr>| {
        let (lhs, rhs) = (computed(lhs), computed(rhs));
        json!({ "type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": false })
    };
    match &expr.node {
        DurationNode::Seconds { value, is_duration } => {
            json!({ "type": "numberLiteral", "val": literal(*value), "duration": is_duration })
        }
        DurationNode::Step => of("step", None, None),
        DurationNode::Range => of("range", None, None),
        DurationNode::Negate(inner) => of("-", None, Some(inner)),
        DurationNode::Paren(inner) => {
            let mut node = computed(Some(inner));
            node["wrapped"] = true.into();
            node
        }
        DurationNode::Min(a, b) => of("min_of", Some(a), Some(b)),
        DurationNode::Max(a, b) => of("max_of", Some(a), Some(b)),
        DurationNode::Binary(op, a, b) => of(&op.to_string(), Some(a), Some(b)),
    }
}

fn matcher(matcher: &Matcher) -> Value {
    let (op, value) = match &matcher.op {
        MatchOp::Equal(value) => ("=", value.as_str()),
        MatchOp::NotEqual(value) => ("!=", value.as_str()),
        MatchOp::Regex(regex) => ("=~", pattern(regex.as_str())),
        MatchOp::NotRegex(regex) => ("!~", pattern(regex.as_str())),
    };
    json!({ "name": matcher.name, "value": value, "type": op })
}

/// What the user wrote, without the anchors that `Matcher::regex` adds.
fn pattern(anchored: &str) -> &str {
    anchored.strip_prefix("^(?s:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(anchored)
}

/// A fixed time, or the word for an end of the range.
fn at(at: Option<At>) -> (Value, Value) {
    match at {
        None => (Value::Null, Value::Null),
        Some(At::Start) => (Value::Null, "start".into()),
        Some(At::End) => (Value::Null, "end".into()),
        Some(At::Time(t)) => (t.into(), Value::Null),
    }
}

fn of_subquery(subquery: &Subquery) -> Value {
    let (timestamp, start_or_end) = at(subquery.at);
    json!({
        "type": "subquery",
        "expr": tree(&subquery.expr),
        "range": subquery.range_ms,
        "rangeExpr": computed(subquery.range_expr.as_ref()),
        "offset": subquery.offset_ms,
        "offsetExpr": computed(subquery.offset_expr.as_ref()),
        "step": subquery.step_ms.unwrap_or(0),
        "stepExpr": computed(subquery.step_expr.as_ref()),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn of_call(call: &Call) -> Value {
    let known = query::signature(&call.function);
    let words = |kinds: &[Type]| kinds.iter().map(|kind| kind.short()).collect::<Vec<_>>();
    json!({
        "type": "call",
        "func": {
            "name": call.function,
            "argTypes": known.map(|known| words(known.takes)).unwrap_or_default(),
            "variadic": known.map_or(0, |known| known.variadic),
            "returnType": known.map_or(Type::Vector, |known| known.returns).short(),
        },
        "args": call.args.iter().map(tree).collect::<Vec<_>>(),
    })
}

fn of_aggregate(aggregate: &Aggregate) -> Value {
    json!({
        "type": "aggregation",
        "op": aggregate.op.to_string(),
        "expr": tree(&aggregate.expr),
        "param": aggregate.param.as_deref().map(tree),
        "grouping": aggregate.grouping.labels,
        "without": aggregate.grouping.without,
    })
}

fn of_binary(binary: &Binary) -> Value {
    let matching = (!is_scalar(&binary.lhs) && !is_scalar(&binary.rhs)).then(|| {
        let matching = &binary.matching;
        let (card, include) = match &matching.group {
            _ if binary.op.is_set() => ("many-to-many", &[][..]),
            Group::OneToOne => ("one-to-one", &[][..]),
            Group::Left(include) => ("many-to-one", include.as_slice()),
            Group::Right(include) => ("one-to-many", include.as_slice()),
        };
        json!({
            "card": card,
            "labels": matching.labels,
            "on": matching.on,
            "include": include,
            "fillValues": { "lhs": matching.fill_left, "rhs": matching.fill_right },
        })
    });
    json!({
        "type": "binaryExpr",
        "op": binary.op.to_string(),
        "lhs": tree(&binary.lhs),
        "rhs": tree(&binary.rhs),
        "matching": matching,
        "bool": binary.returns_bool,
    })
}

/// Whether an expression is one number at each time; between such there is nothing to match.
fn is_scalar(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) => true,
        Expr::Paren(inner) | Expr::Negate(inner) => is_scalar(inner),
        Expr::Binary(binary) => is_scalar(&binary.lhs) && is_scalar(&binary.rhs),
        Expr::Call(call) => query::signature(&call.function).is_some_and(|known| known.returns == Type::Scalar),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::query::parse;

    fn check(promql: &str, want: &Expect) {
        want.assert_eq(&tree(&parse(promql).unwrap()).to_string());
    }

    #[test]
    fn each_kind_of_node_has_the_shape_that_query_builders_read() {
        check("1.5", &expect![[r#"{"type":"numberLiteral","val":"1.5"}"#]]);
        check(
            "-foo",
            &expect![[
                r#"{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}"#
            ]],
        );
        check(
            r#"foo{a=~"b.*",c!="d"} offset 5m @ end()"#,
            &expect![[
                r#"{"anchored":false,"matchers":[{"name":"a","type":"=~","value":"b.*"},{"name":"c","type":"!=","value":"d"},{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":300000,"offsetExpr":null,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"vectorSelector"}"#
            ]],
        );
        check(
            "rate(foo[1m] @ 2)",
            &expect![[
                r#"{"args":[{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"offsetExpr":null,"range":60000,"rangeExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":2000,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"}"#
            ]],
        );
        check(
            "vector(1)[1h:5m]",
            &expect![[
                r#"{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"offsetExpr":null,"range":3600000,"rangeExpr":null,"startOrEnd":null,"step":300000,"stepExpr":null,"timestamp":null,"type":"subquery"}"#
            ]],
        );
        check(
            "topk by (a) (3, foo)",
            &expect![[
                r#"{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"grouping":["a"],"op":"topk","param":{"type":"numberLiteral","val":"3"},"type":"aggregation","without":false}"#
            ]],
        );
    }

    #[test]
    fn computed_durations_stand_as_trees_beside_a_zero() {
        let tree = tree(&parse("foo[(5m + step()) * 2:max_of(1m, 30)] offset -range()").unwrap());
        let parts = ["range", "rangeExpr", "step", "stepExpr", "offset", "offsetExpr"].map(|key| tree[key].to_string());
        let number = |text: &str| {
            let is_duration = text.len() > 1 && text != "30";
            format!(r#"{{"duration":{is_duration},"type":"numberLiteral","val":"{text}"}}"#)
        };
        let of = |op: &str, lhs: &str, rhs: &str, wrapped: bool| {
            format!(r#"{{"lhs":{lhs},"op":"{op}","rhs":{rhs},"type":"durationExpr","wrapped":{wrapped}}}"#)
        };
        let step = of("step", "null", "null", false);
        let sum = of("+", &number("300"), &step, true);
        assert_eq!(parts[..2], ["0".to_owned(), of("*", &sum, &number("2"), false)]);
        assert_eq!(parts[2..4], ["0".to_owned(), of("max_of", &number("60"), &number("30"), false)]);
        assert_eq!(parts[4..], ["0".to_owned(), of("-", "null", &of("range", "null", "null", false), false)]);
        assert_eq!(super::tree(&parse("foo[5m]").unwrap())["rangeExpr"], Value::Null);
    }

    #[test]
    fn only_vectors_are_matched() {
        let matching = |promql: &str| tree(&parse(promql).unwrap())["matching"].to_string();
        assert_eq!(matching("foo > bool 1"), "null");
        assert_eq!(matching("time() - (2)"), "null");
        assert_eq!(
            matching("foo * on (a) group_left (b) bar"),
            r#"{"card":"many-to-one","fillValues":{"lhs":null,"rhs":null},"include":["b"],"labels":["a"],"on":true}"#
        );
        assert_eq!(
            matching("foo and bar"),
            r#"{"card":"many-to-many","fillValues":{"lhs":null,"rhs":null},"include":[],"labels":[],"on":false}"#
        );
    }
}
