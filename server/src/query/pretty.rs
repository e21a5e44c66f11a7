//! Lays a query out over several lines, as Prometheus does: what fits in a hundred characters stays on one line.

use crate::query::ast::Expr;
use crate::query::parse::{ParseQueryError, parse};
use crate::query::print::{aggregate_head, argument, write_operator, write_subquery_time};

/// Characters that fit on a line.
const WIDTH: usize = 100;

/// The query laid out over several lines where it is long.
///
/// # Errors
/// As [`parse`].
pub fn format(text: &str) -> Result<String, ParseQueryError> {
    Ok(laid_out(&parse(text)?, 0))
}

fn laid_out(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let line = expr.to_string();
    if line.len() <= WIDTH {
        return indent + &line;
    }
    match expr {
        Expr::Number(_) | Expr::Text(_) | Expr::Selector(_) | Expr::Range(_) => indent + &line,
        Expr::Paren(inner) => format!("{indent}(\n{}\n{indent})", laid_out(inner, level + 1)),
        Expr::Negate(inner) => format!("{indent}-{}", laid_out(inner, level).trim_start()),
        Expr::Subquery(subquery) => {
            let mut text = laid_out(&subquery.expr, level);
            // Writing to a string cannot fail.
            let _ = write_subquery_time(&mut text, subquery);
            text
        }
        Expr::Call(call) => {
            let arg = |place: usize| match &call.args[place] {
                Expr::Selector(_) => "  ".repeat(level + 1) + &argument(call, place),
                arg => laid_out(arg, level + 1),
            };
            let args: Vec<String> = (0..call.args.len()).map(arg).collect();
            format!("{indent}{}(\n{}\n{indent})", call.function, args.join(",\n"))
        }
        Expr::Aggregate(aggregate) => {
            let param = aggregate.param.as_deref().map(|param| laid_out(param, level + 1) + ",\n");
            let inner = laid_out(&aggregate.expr, level + 1);
            let head = aggregate_head(aggregate);
            format!("{indent}{head}(\n{}{inner}\n{indent})", param.unwrap_or_default())
        }
        Expr::Binary(binary) => {
            let mut operator = String::new();
            let _ = write_operator(&mut operator, binary);
            let (lhs, rhs) = (laid_out(&binary.lhs, level + 1), laid_out(&binary.rhs, level + 1));
            format!("{lhs}\n{indent}{operator}\n{rhs}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_queries_are_laid_out_over_lines() {
        let short = "sum  by(job)(rate(m_total{a='b'}[5m]))";
        assert_eq!(format(short).unwrap(), r#"sum by (job) (rate(m_total{a="b"}[5m]))"#);
        let long = "sum by (instance) (rate(node_network_receive_bytes_total{device!=\"lo\"}[5m])) / on (instance) \
                    group_left (rack) node_network_speed_bytes{device=\"eth0\"}";
        let want = "  sum by (instance) (rate(node_network_receive_bytes_total{device!=\"lo\"}[5m]))\n\
                    / on (instance) group_left (rack)\n  node_network_speed_bytes{device=\"eth0\"}";
        assert_eq!(format(long).unwrap(), want);
    }
}
