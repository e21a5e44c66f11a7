//! What fits in a call and on both sides of an operator. The words of a misfit are those of Prometheus.

use crate::query::ast::{AggregateOp, BinaryOp, Expr, Group, Matching};
use crate::series::NAME;

use super::lex::Token;
use super::signature::{Signature, Type};
use super::{Node, Parser};

/// Whether an aggregation has a parameter before its vector.
pub(super) fn has_param(op: AggregateOp) -> bool {
    use AggregateOp::{Bottomk, CountValues, LimitRatio, Limitk, Quantile, Topk};
    matches!(op, Topk | Bottomk | CountValues | Quantile | Limitk | LimitRatio)
}

impl Parser<'_> {
    pub(super) fn check_type(&mut self, node: &Node, wanted: Type, place: &str) {
        if node.kind != wanted {
            let reason = format!("expected type {} {place}, got {}", wanted.documented(), node.kind.documented());
            self.mistyped(node.start, &reason);
        }
    }

    pub(super) fn check_call(&mut self, name: &Token<'_>, signature: &Signature, args: &[Node]) {
        let Signature { takes, variadic, .. } = *signature;
        let (function, got) = (name.text, args.len());
        let least = if variadic == 0 { takes.len() } else { takes.len() - 1 };
        let most = usize::try_from(variadic).map_or(usize::MAX, |more| least + more);
        if variadic == 0 && got != least {
            self.mistyped(name.at, &format!("expected {least} argument(s) in call to {function:?}, got {got}"));
        } else if got < least {
            let reason = format!("expected at least {least} argument(s) in call to {function:?}, got {got}");
            self.mistyped(name.at, &reason);
        } else if got > most {
            self.mistyped(name.at, &format!("expected at most {most} argument(s) in call to {function:?}, got {got}"));
        }
        if let ("info", Some(labels)) = (function, args.get(1)) {
            self.check_info(name, labels);
        }
        for (i, arg) in args.iter().enumerate() {
            if let Some(wanted) = takes.get(i).or(takes.last()) {
                self.check_type(arg, *wanted, &format!("in call to function {function:?}"));
            }
        }
    }

    /// The second argument of `info` is written as a selector without a name before its braces.
    fn check_info(&mut self, name: &Token<'_>, labels: &Node) {
        if labels.kind != Type::Vector {
            let got = labels.kind.documented();
            let reason = format!("expected type instant vector in call to function \"info\", got {got}");
            self.mistyped(name.at, &reason);
        }
        let named = !self.text[labels.start..].starts_with('{');
        match &labels.expr {
            Expr::Selector(selector) if named && selector.matchers.iter().any(|matcher| matcher.name == NAME) => {
                self.mistyped(labels.start, "expected label selectors only, got vector selector instead");
            }
            Expr::Selector(_) => {}
            _ => self.mistyped(labels.start, "expected label selectors only"),
        }
    }

    pub(super) fn check_binary(
        &mut self,
        sign: &Token<'_>,
        op: BinaryOp,
        (lhs, rhs): (&Node, &Node),
        returns_bool: bool,
        matching: &Matching,
    ) {
        let start = lhs.start;
        let scalar = lhs.kind == Type::Scalar || rhs.kind == Type::Scalar;
        let vectors = lhs.kind == Type::Vector && rhs.kind == Type::Vector;
        if returns_bool && !op.is_comparison() {
            self.mistyped(sign.at, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !returns_bool && lhs.kind == Type::Scalar && rhs.kind == Type::Scalar {
            self.mistyped(sign.at, "comparisons between scalars must use BOOL modifier");
        }
        if let Group::Left(include) | Group::Right(include) = &matching.group
            && let Some(twice) = matching.labels.iter().find(|label| matching.on && include.contains(label))
        {
            let reason = format!("label {twice:?} must not occur in ON and GROUP clause at once");
            self.mistyped(sign.at, &reason);
        }
        for side in [lhs, rhs] {
            if !matches!(side.kind, Type::Scalar | Type::Vector) {
                self.mistyped(side.start, "binary expression must contain only scalar and instant vector types");
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if !vectors && !matching.labels.is_empty() {
            self.mistyped(start, "vector matching only allowed between instant vectors");
        }
        if !vectors && fills {
            self.mistyped(start, "filling in missing series only allowed between instant vectors");
        }
        if vectors && op.is_set() && matching.group != Group::OneToOne {
            self.mistyped(start, &format!("no grouping allowed for \"{op}\" operation"));
        }
        if vectors && op.is_set() && fills {
            self.mistyped(start, "filling in missing series not allowed for set operators");
        }
        if scalar && op.is_set() {
            self.mistyped(start, &format!("set operator \"{op}\" not allowed in binary scalar expression"));
        }
    }
}
