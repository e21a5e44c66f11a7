//! `parse_query`: a query as the tree that Prometheus 3 shows to query builders. It maps our expression node by node and
//! decides nothing.

use serde_json::{Value, json};

use crate::query::ast::{Aggregate, At, Binary, Call, Edges, Expr, Group, Selector, Subquery};
use crate::query::{self, Type};
use crate::series::{MatchOp, Matcher, NAME};

/// The tree of an expression.
pub(super) fn tree(expr: &Expr) -> Value {
    match expr {
        Expr::Number(value) => json!({ "type": "numberLiteral", "val": literal(*value) }),
        Expr::Text(text) => json!({ "type": "stringLiteral", "val": text }),
        Expr::Paren(inner) => json!({ "type": "parenExpr", "expr": tree(inner) }),
        Expr::Negate(inner) => json!({ "type": "unaryExpr", "op": "-", "expr": tree(inner) }),
        Expr::Selector(one) => selector("vectorSelector", one, None),
        Expr::Range(range) => selector("matrixSelector", &range.selector, Some(range.range_ms)),
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

fn selector(kind: &str, selector: &Selector, range_ms: Option<i64>) -> Value {
    let name = selector.metric().unwrap_or_default();
    // Prometheus lists the name after the matchers in braces.
    let is_name =
        |matcher: &&Matcher| matcher.name == NAME && matches!(&matcher.op, MatchOp::Equal(value) if value == name);
    let (named, rest): (Vec<&Matcher>, Vec<&Matcher>) = selector.matchers.iter().partition(is_name);
    let matchers: Vec<Value> = rest.into_iter().chain(named).map(matcher).collect();
    let (timestamp, start_or_end) = at(selector.at);
    let mut node = json!({
        "type": kind,
        "name": name,
        "offset": selector.offset_ms,
        "matchers": matchers,
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
        "anchored": selector.edges == Edges::Anchored,
        "smoothed": selector.edges == Edges::Smoothed,
    });
    if let Some(range_ms) = range_ms {
        node["range"] = range_ms.into();
    }
    node
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
        "offset": subquery.offset_ms,
        "step": subquery.step_ms.unwrap_or(0),
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
                r#"{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}"#
            ]],
        );
        check(
            r#"foo{a=~"b.*",c!="d"} offset 5m @ end()"#,
            &expect![[
                r#"{"anchored":false,"matchers":[{"name":"a","type":"=~","value":"b.*"},{"name":"c","type":"!=","value":"d"},{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":300000,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"vectorSelector"}"#
            ]],
        );
        check(
            "rate(foo[1m] @ 2)",
            &expect![[
                r#"{"args":[{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"range":60000,"smoothed":false,"startOrEnd":null,"timestamp":2000,"type":"matrixSelector"}],"func":{"argTypes":["matrix"],"name":"rate","returnType":"vector","variadic":0},"type":"call"}"#
            ]],
        );
        check(
            "vector(1)[1h:5m]",
            &expect![[
                r#"{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"range":3600000,"startOrEnd":null,"step":300000,"timestamp":null,"type":"subquery"}"#
            ]],
        );
        check(
            "topk by (a) (3, foo)",
            &expect![[
                r#"{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"foo"}],"name":"foo","offset":0,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"grouping":["a"],"op":"topk","param":{"type":"numberLiteral","val":"3"},"type":"aggregation","without":false}"#
            ]],
        );
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
