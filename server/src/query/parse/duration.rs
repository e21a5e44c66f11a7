//! Durations that are computed: `[5m * 2]`, `offset -(1m)`, `[step()]`. After `offset` stands one operand only, so that
//! what follows it is arithmetic with the selector's values.

use crate::query::ast::{BinaryOp, DurationExpr, DurationNode};

use super::lex::{Kind, Token};
use super::literal::SECONDS_MAX;
use super::{ParseQueryError, Parser};

/// How tightly `* / %` bind, and unary signs with them.
const PRODUCT: u8 = 2;

fn operator(token: &Token<'_>) -> Option<(BinaryOp, u8)> {
    if token.kind != Kind::Operator {
        return None;
    }
    Some(match token.text {
        "+" => (BinaryOp::Add, 1),
        "-" => (BinaryOp::Sub, 1),
        "*" => (BinaryOp::Mul, PRODUCT),
        "/" => (BinaryOp::Div, PRODUCT),
        "%" => (BinaryOp::Mod, PRODUCT),
        "^" => (BinaryOp::Pow, 3),
        _ => return None,
    })
}

impl Parser<'_> {
    /// What stands in a range.
    pub(super) fn duration(&mut self, context: &str, expected: &str) -> Result<DurationExpr, ParseQueryError> {
        self.deeper(|parser| parser.duration_operands(0, context, expected))
    }

    fn duration_operands(&mut self, above: u8, context: &str, expected: &str) -> Result<DurationExpr, ParseQueryError> {
        let mut lhs = self.duration_operand(context, expected)?;
        let outside = self.depth;
        while let Some((op, binds)) = operator(&self.peek()).filter(|(_, binds)| *binds > above) {
            // Each operator is a level of the tree that the next one puts on top.
            self.depth += 1;
            let sign = self.take();
            let above = if op == BinaryOp::Pow { binds - 1 } else { binds };
            let rhs = self.deeper(|parser| parser.duration_operands(above, "", ""))?;
            let is_zero = matches!(rhs.node, DurationNode::Seconds { value: 0.0, .. });
            if is_zero && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                let what = if op == BinaryOp::Div { "division" } else { "modulo" };
                return Err(self.syntax(sign.at, &format!("{what} by zero")));
            }
            let place = (lhs.place.0, rhs.place.1);
            lhs = DurationExpr { node: DurationNode::Binary(op, Box::new(lhs), Box::new(rhs)), place };
        }
        self.depth = outside;
        Ok(lhs)
    }

    fn duration_operand(&mut self, context: &str, expected: &str) -> Result<DurationExpr, ParseQueryError> {
        let sign = self.peek();
        if !(sign.is("+") || sign.is("-")) {
            return self.duration_primary(context, expected);
        }
        self.take();
        let operand = self.deeper(|parser| parser.duration_operands(PRODUCT, "", ""))?;
        Ok(signed(&sign, operand))
    }

    /// What stands after `offset`: a literal, a call or parentheses, with an optional sign.
    pub(super) fn offset_duration(&mut self) -> Result<DurationExpr, ParseQueryError> {
        const CONTEXT: &str = "offset";
        const EXPECTED: &str = "number, duration, step(), or range()";
        let sign = self.peek();
        if !(sign.is("+") || sign.is("-")) {
            return self.duration_primary(CONTEXT, EXPECTED);
        }
        self.take();
        let operand = self.duration_primary(CONTEXT, EXPECTED)?;
        Ok(signed(&sign, operand))
    }

    fn duration_primary(&mut self, context: &str, expected: &str) -> Result<DurationExpr, ParseQueryError> {
        let token = self.peek();
        if matches!(token.kind, Kind::Number | Kind::Duration) {
            let value = self.number()?;
            if value.is_nan() || value.abs() > SECONDS_MAX {
                return Err(self.syntax(token.at, "duration out of range"));
            }
            let is_duration = token.kind == Kind::Duration;
            return Ok(self.from(&token, DurationNode::Seconds { value, is_duration }));
        }
        if token.is("(") {
            self.take();
            let inner = self.duration("", "")?;
            self.expect(")", "", "")?;
            // Around a literal they mean nothing, as in Prometheus.
            return Ok(match inner.node {
                DurationNode::Seconds { .. } => inner,
                _ => self.from(&token, DurationNode::Paren(Box::new(inner))),
            });
        }
        let word = token.text.to_ascii_lowercase();
        if !token.is_word() || !self.peek_after(1).is("(") {
            return Err(self.unexpected(context, expected));
        }
        match word.as_str() {
            "step" | "range" => {
                self.take();
                self.take();
                self.expect(")", "", "")?;
                Ok(self.from(&token, if word == "step" { DurationNode::Step } else { DurationNode::Range }))
            }
            "min" | "max" | "min_of" | "max_of" => {
                self.take();
                self.take();
                let lhs = Box::new(self.duration("", "")?);
                self.expect(",", "", "")?;
                let rhs = Box::new(self.duration("", "")?);
                self.expect(")", "", "")?;
                let is_min = word.starts_with("min");
                Ok(self.from(&token, if is_min { DurationNode::Min(lhs, rhs) } else { DurationNode::Max(lhs, rhs) }))
            }
            _ => Err(self.unexpected(context, expected)),
        }
    }

    /// A node that reaches from `token` to what was taken last.
    fn from(&self, token: &Token<'_>, node: DurationNode) -> DurationExpr {
        let last = self.tokens[self.next.saturating_sub(1)];
        DurationExpr { node, place: (token.at as u32, (last.at + last.text.len()) as u32) }
    }
}

fn signed(sign: &Token<'_>, operand: DurationExpr) -> DurationExpr {
    let place = (sign.at as u32, operand.place.1);
    match operand.node {
        DurationNode::Seconds { value, is_duration } => {
            let value = if sign.is("-") { -value } else { value };
            DurationExpr { node: DurationNode::Seconds { value, is_duration }, place }
        }
        _ if sign.is("-") => DurationExpr { node: DurationNode::Negate(Box::new(operand)), place },
        _ => operand,
    }
}
