//! Expressions: operators by precedence, parentheses, literals, calls and aggregations.

use crate::query::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, Group, Grouping, Matching, Place};

use super::lex::{Kind, Token};
use super::literal::{duration, number, unquote};
use super::{DEPTH_MAX, Node, ParseQueryError, Parser, Type, signature, types};

/// How tightly `* / % atan2` bind, and unary signs with them.
const PRODUCT: u8 = 5;

/// An operator between operands and how tightly it binds.
fn operator(token: &Token<'_>) -> Option<(BinaryOp, u8)> {
    if token.kind != Kind::Operator {
        return None;
    }
    Some(match token.text.to_ascii_lowercase().as_str() {
        "or" => (BinaryOp::Or, 1),
        "and" => (BinaryOp::And, 2),
        "unless" => (BinaryOp::Unless, 2),
        "==" => (BinaryOp::Equal, 3),
        "!=" => (BinaryOp::NotEqual, 3),
        ">" => (BinaryOp::Greater, 3),
        "<" => (BinaryOp::Less, 3),
        ">=" => (BinaryOp::GreaterEqual, 3),
        "<=" => (BinaryOp::LessEqual, 3),
        "+" => (BinaryOp::Add, 4),
        "-" => (BinaryOp::Sub, 4),
        "*" => (BinaryOp::Mul, PRODUCT),
        "/" => (BinaryOp::Div, PRODUCT),
        "%" => (BinaryOp::Mod, PRODUCT),
        "atan2" => (BinaryOp::Atan2, PRODUCT),
        "^" => (BinaryOp::Pow, 6),
        _ => return None,
    })
}

/// The aggregation of a word in lower case.
pub(super) fn aggregator(word: &str) -> Option<AggregateOp> {
    Some(match word {
        "sum" => AggregateOp::Sum,
        "avg" => AggregateOp::Avg,
        "count" => AggregateOp::Count,
        "min" => AggregateOp::Min,
        "max" => AggregateOp::Max,
        "group" => AggregateOp::Group,
        "stddev" => AggregateOp::Stddev,
        "stdvar" => AggregateOp::Stdvar,
        "topk" => AggregateOp::Topk,
        "bottomk" => AggregateOp::Bottomk,
        "count_values" => AggregateOp::CountValues,
        "quantile" => AggregateOp::Quantile,
        "limitk" => AggregateOp::Limitk,
        "limit_ratio" => AggregateOp::LimitRatio,
        _ => return None,
    })
}

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Node, ParseQueryError> {
        self.deeper(|parser| parser.operands(0))
    }

    /// Operands with operators that bind tighter than `above`.
    fn operands(&mut self, above: u8) -> Result<Node, ParseQueryError> {
        let mut lhs = self.operand()?;
        while let Some((op, binds)) = operator(&self.peek()).filter(|(_, binds)| *binds > above) {
            let sign = self.take();
            let (returns_bool, matching) = self.matching()?;
            // Only `^` groups to the right.
            let above = if op == BinaryOp::Pow { binds - 1 } else { binds };
            let rhs = self.deeper(|parser| parser.operands(above))?;
            self.check_binary(&sign, op, (&lhs, &rhs), returns_bool, &matching);
            let binary = Binary { op, lhs: Box::new(lhs.expr), rhs: Box::new(rhs.expr), returns_bool, matching };
            let both_scalar = lhs.kind == Type::Scalar && rhs.kind == Type::Scalar;
            let kind = if both_scalar { Type::Scalar } else { Type::Vector };
            let depth = lhs.depth.max(rhs.depth) + 1;
            lhs = within_depth(Node { expr: Expr::Binary(binary), start: lhs.start, kind, depth })?;
        }
        Ok(lhs)
    }

    /// One operand with its signs and what follows it.
    fn operand(&mut self) -> Result<Node, ParseQueryError> {
        let sign = self.peek();
        if !(sign.is("+") || sign.is("-")) {
            let node = self.primary()?;
            return self.modifiers(node);
        }
        self.take();
        let node = self.deeper(|parser| parser.operands(PRODUCT))?;
        if !matches!(node.kind, Type::Scalar | Type::Vector) {
            let kind = node.kind.documented();
            let reason =
                format!("unary expression only allowed on expressions of type scalar or instant vector, got {kind:?}");
            self.mistyped(sign.at, &reason);
        }
        let (expr, depth) = match node.expr {
            Expr::Number(value) => (Expr::Number(if sign.is("-") { -value } else { value }), 0),
            expr if sign.is("+") => (expr, node.depth),
            expr => (Expr::Negate(Box::new(expr)), node.depth + 1),
        };
        within_depth(Node { expr, start: sign.at, depth, ..node })
    }

    fn primary(&mut self) -> Result<Node, ParseQueryError> {
        let token = self.peek();
        let leaf = |expr, kind| Node { expr, start: token.at, kind, depth: 0 };
        match token.kind {
            Kind::Number | Kind::Duration => Ok(leaf(Expr::Number(self.number()?), Type::Scalar)),
            Kind::Text => Ok(leaf(Expr::Text(unquote(self.take().text)), Type::Text)),
            Kind::Sign if token.is("(") => {
                self.take();
                let inner = self.expression()?;
                self.expect(")", "", "")?;
                let depth = inner.depth + 1;
                within_depth(Node { expr: Expr::Paren(Box::new(inner.expr)), start: token.at, depth, ..inner })
            }
            Kind::Sign if token.is("{") => self.selector(None),
            Kind::Aggregator if self.starts_aggregation() => self.aggregation(),
            Kind::Identifier if self.peek_after(1).is("(") => self.call(),
            _ if token.is_word() && !is_reserved(&token) => {
                self.take();
                self.selector(Some(token))
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// The number or duration that comes next, in seconds where it is a duration.
    pub(super) fn number(&mut self) -> Result<f64, ParseQueryError> {
        let token = self.take();
        let value = if token.kind == Kind::Number { number(token.text) } else { duration(token.text) };
        value.map_err(|reason| self.syntax(token.at, &reason))
    }

    fn starts_aggregation(&self) -> bool {
        let next = self.peek_after(1);
        next.is("(") || next.is("by") || next.is("without")
    }

    fn aggregation(&mut self) -> Result<Node, ParseQueryError> {
        let token = self.take();
        let op = aggregator(&token.text.to_ascii_lowercase()).unwrap_or(AggregateOp::Sum);
        let mut grouping = self.grouping()?;
        if !self.peek().is("(") {
            return Err(self.unexpected("aggregation", ""));
        }
        let mut args = self.arguments(None)?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let has_param = types::has_param(op);
        let wanted = 1 + usize::from(has_param);
        if args.is_empty() {
            return Err(self.syntax(token.at, "no arguments for aggregate expression provided"));
        }
        let (Some(expr), true) = (args.pop(), args.len() + 1 == wanted) else {
            let got = args.len() + 1;
            let reason =
                format!("wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}");
            return Err(self.syntax(token.at, &reason));
        };
        let param = args.pop();
        self.check_type(&expr, Type::Vector, "in aggregation expression");
        if let Some(param) = &param {
            let wanted = if op == AggregateOp::CountValues { Type::Text } else { Type::Scalar };
            self.check_type(param, wanted, "in aggregation parameter");
        }
        let depth = param.as_ref().map_or(0, |param| param.depth).max(expr.depth) + 1;
        let aggregate = Aggregate {
            op,
            grouping: grouping.unwrap_or_default(),
            args_place: self.place(param.as_ref().map_or(expr.start, |param| param.start)),
            param: param.map(|param| Box::new(param.expr)),
            expr: Box::new(expr.expr),
        };
        within_depth(Node { expr: Expr::Aggregate(aggregate), start: token.at, kind: Type::Vector, depth })
    }

    /// `by (…)` or `without (…)`, if one is next.
    fn grouping(&mut self) -> Result<Option<Grouping>, ParseQueryError> {
        let without = self.peek().is("without");
        if !(without || self.peek().is("by")) {
            return Ok(None);
        }
        self.take();
        Ok(Some(Grouping { without, labels: self.labels()? }))
    }

    /// Labels in parentheses.
    fn labels(&mut self) -> Result<Vec<String>, ParseQueryError> {
        const CONTEXT: &str = "grouping opts";
        self.expect("(", CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        while !self.accept(")") {
            let token = self.peek();
            if token.kind == Kind::Text {
                labels.push(unquote(token.text));
            } else if token.is_word() {
                labels.push(token.text.to_owned());
            } else {
                return Err(self.unexpected(CONTEXT, "label"));
            }
            self.take();
            if let Some(label) = labels.last().filter(|label| !super::literal::is_label_name(label)) {
                let reason = format!("invalid label name for grouping: {}", super::literal::quoted(label));
                return Err(self.syntax(token.at, &reason));
            }
            if !self.accept(",") && !self.peek().is(")") {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
        Ok(labels)
    }

    fn call(&mut self) -> Result<Node, ParseQueryError> {
        let name = self.take();
        let args = self.arguments(Some(name.text))?;
        let Some(signature) = signature(name.text) else {
            let renamed = if name.text == "holt_winters" { ", which is now double_exponential_smoothing" } else { "" };
            return Err(self.syntax(name.at, &format!("unknown function with name {:?}{renamed}", name.text)));
        };
        self.check_call(&name, signature, &args);
        let depth = args.iter().map(|arg| arg.depth).max().unwrap_or(0) + 1;
        let args_places: Vec<Place> = args.iter().map(|arg| self.place(arg.start)).collect();
        let call = Call {
            function: name.text.to_owned(),
            args: args.into_iter().map(|arg| arg.expr).collect(),
            place: self.place(name.at),
            args_places,
        };
        within_depth(Node { expr: Expr::Call(call), start: name.at, kind: signature.returns, depth })
    }

    /// Expressions in parentheses, of a function or an aggregation.
    fn arguments(&mut self, function: Option<&str>) -> Result<Vec<Node>, ParseQueryError> {
        self.expect("(", "", "")?;
        let mut args = Vec::new();
        if self.accept(")") {
            return Ok(args);
        }
        loop {
            let outer = std::mem::replace(&mut self.is_info, function == Some("info") && args.len() == 1);
            let arg = self.expression();
            self.is_info = outer;
            args.push(arg?);
            let comma = self.peek();
            if self.accept(")") {
                return Ok(args);
            }
            self.expect(",", "", "")?;
            if self.peek().is(")") {
                return Err(self.syntax(comma.at, "trailing commas not allowed in function call args"));
            }
        }
    }

    /// What stands between a binary operator and its right operand.
    fn matching(&mut self) -> Result<(bool, Matching), ParseQueryError> {
        let returns_bool = self.accept("bool");
        let mut matching = Matching::default();
        if self.peek().is("on") || self.peek().is("ignoring") {
            matching.on = self.take().is("on");
            matching.labels = self.labels()?;
            let side = self.peek();
            if side.is("group_left") || side.is("group_right") {
                self.take();
                let include = if self.peek().is("(") { self.labels()? } else { Vec::new() };
                matching.group = if side.is("group_left") { Group::Left(include) } else { Group::Right(include) };
            }
        }
        while self.peek_after(1).is("(") {
            let word = self.peek();
            let (left, right) = (matching.fill_left.is_none(), matching.fill_right.is_none());
            if word.is("fill") && left && right {
                let value = self.fill_value()?;
                (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            } else if word.is("fill_left") && left {
                matching.fill_left = Some(self.fill_value()?);
            } else if word.is("fill_right") && right {
                matching.fill_right = Some(self.fill_value()?);
            } else {
                break;
            }
        }
        Ok((returns_bool, matching))
    }

    /// The number in the parentheses of `fill`, with an optional sign.
    fn fill_value(&mut self) -> Result<f64, ParseQueryError> {
        self.take();
        self.expect("(", "fill modifier", "\"(\"")?;
        let negative = self.peek().is("-");
        if negative || self.peek().is("+") {
            self.take();
        }
        if !matches!(self.peek().kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("fill modifier", "number"));
        }
        let value = self.number()?;
        self.expect(")", "fill modifier", "\")\"")?;
        Ok(if negative { -value } else { value })
    }
}

/// Words that can be no metric's name.
fn is_reserved(token: &Token<'_>) -> bool {
    ["bool", "on", "ignoring", "group_left", "group_right", "atan2"].iter().any(|word| token.is(word))
}

fn within_depth(node: Node) -> Result<Node, ParseQueryError> {
    if node.depth > DEPTH_MAX { Err(ParseQueryError::TooDeep) } else { Ok(node) }
}
