//! Computes the durations that are written as expressions, before anything is evaluated: what they depend on, the query's
//! steps and its range, is known by then. It leaves the text's form in the tree.

use std::borrow::Cow;

use crate::query::ast::{BinaryOp, DurationExpr, DurationNode, Expr};
use crate::query::error::QueryError;
use crate::query::parse::literal::SECONDS_MAX;

/// What durations may depend on, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Distance of the steps, 0 for a query at one time.
    pub(super) step_s: f64,
    /// From the first step to the last.
    pub(super) range_s: f64,
}

/// The expression with all durations computed.
///
/// # Errors
/// A range or step is not above zero, or a value is out of range.
pub(super) fn resolve(expr: &Expr, context: Context) -> Result<Cow<'_, Expr>, QueryError> {
    if !has_computed(expr) {
        return Ok(Cow::Borrowed(expr));
    }
    let mut resolved = expr.clone();
    set(&mut resolved, context)?;
    Ok(Cow::Owned(resolved))
}

fn has_computed(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::Text(_) => false,
        Expr::Selector(selector) => selector.offset_expr.is_some(),
        Expr::Range(range) => range.range_expr.is_some() || range.selector.offset_expr.is_some(),
        Expr::Subquery(subquery) => {
            subquery.range_expr.is_some()
                || subquery.step_expr.is_some()
                || subquery.offset_expr.is_some()
                || has_computed(&subquery.expr)
        }
        Expr::Paren(inner) | Expr::Negate(inner) => has_computed(inner),
        Expr::Call(call) => call.args.iter().any(has_computed),
        Expr::Aggregate(aggregate) => {
            aggregate.param.as_deref().is_some_and(has_computed) || has_computed(&aggregate.expr)
        }
        Expr::Binary(binary) => has_computed(&binary.lhs) || has_computed(&binary.rhs),
    }
}

fn set(expr: &mut Expr, context: Context) -> Result<(), QueryError> {
    match expr {
        Expr::Number(_) | Expr::Text(_) => {}
        Expr::Selector(selector) => compute(&mut selector.offset_ms, selector.offset_expr.as_ref(), context, true)?,
        Expr::Range(range) => {
            let selector = &mut range.selector;
            compute(&mut selector.offset_ms, selector.offset_expr.as_ref(), context, true)?;
            compute(&mut range.range_ms, range.range_expr.as_ref(), context, false)?;
        }
        Expr::Subquery(subquery) => {
            compute(&mut subquery.offset_ms, subquery.offset_expr.as_ref(), context, true)?;
            let mut step_ms = subquery.step_ms.unwrap_or(0);
            compute(&mut step_ms, subquery.step_expr.as_ref(), context, false)?;
            subquery.step_ms = subquery.step_ms.map(|_| step_ms);
            compute(&mut subquery.range_ms, subquery.range_expr.as_ref(), context, false)?;
            set(&mut subquery.expr, context)?;
        }
        Expr::Paren(inner) | Expr::Negate(inner) => set(inner, context)?,
        Expr::Call(call) => call.args.iter_mut().try_for_each(|arg| set(arg, context))?,
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &mut aggregate.param {
                set(param, context)?;
            }
            set(&mut aggregate.expr, context)?;
        }
        Expr::Binary(binary) => {
            set(&mut binary.lhs, context)?;
            set(&mut binary.rhs, context)?;
        }
    }
    Ok(())
}

fn compute(
    ms: &mut i64,
    expr: Option<&DurationExpr>,
    context: Context,
    may_be_negative: bool,
) -> Result<(), QueryError> {
    let Some(expr) = expr else {
        return Ok(());
    };
    let seconds = seconds(expr, context)?;
    if seconds <= 0.0 && !may_be_negative {
        return Err(wrong(expr, "duration must be greater than 0"));
    }
    if seconds.is_nan() || seconds.abs() > SECONDS_MAX {
        return Err(wrong(expr, "duration is out of range"));
    }
    *ms = (seconds * 1000.0) as i64;
    Ok(())
}

fn seconds(expr: &DurationExpr, context: Context) -> Result<f64, QueryError> {
    Ok(match &expr.node {
        DurationNode::Seconds { value, .. } => *value,
        DurationNode::Step => context.step_s,
        DurationNode::Range => context.range_s,
        DurationNode::Negate(inner) => -seconds(inner, context)?,
        DurationNode::Paren(inner) => seconds(inner, context)?,
        DurationNode::Min(a, b) => seconds(a, context)?.min(seconds(b, context)?),
        DurationNode::Max(a, b) => seconds(a, context)?.max(seconds(b, context)?),
        DurationNode::Binary(op, a, b) => {
            let (a, b) = (seconds(a, context)?, seconds(b, context)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => return Err(wrong(expr, "division by zero")),
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => return Err(wrong(expr, "modulo by zero")),
                BinaryOp::Mod => a % b,
                _ => a.powf(b),
            }
        }
    })
}

fn wrong(expr: &DurationExpr, reason: &'static str) -> QueryError {
    QueryError::Duration { start: expr.place.0, end: expr.place.1, reason }
}
