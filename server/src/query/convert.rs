//! From text to our own tree: bounds first, then the parser, then a translation that refuses what the evaluator does not
//! do. Nothing of the parser's types leaves this file, and no text makes it panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_AVG, T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_DIV, T_EQLC, T_GROUP, T_GTE, T_GTR, T_LAND,
    T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MAX, T_MIN, T_MOD, T_MUL, T_NEQ, T_POW, T_QUANTILE,
    T_STDDEV, T_STDVAR, T_SUB, T_SUM, T_TOPK, TokenType,
};
use promql_parser::parser::{self as parsed, VectorMatchCardinality};

use crate::query::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Expr, Group, Grouping, Matching, Place, Range, Selector,
    Subquery,
};
use crate::query::scan::{DEPTH_MAX, DURATION_S_MAX, scan};
use crate::series::{Matcher, NAME, Timestamp};

/// Longest text of a query: dashboards' longest are a few KiB.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Why a text is no query.
#[derive(Debug, thiserror::Error)]
pub enum ParseQueryError {
    /// Too long.
    #[error("query has {bytes} bytes, at most {TEXT_BYTES_MAX} are read; split it or use recording rules")]
    TooLong {
        /// Length.
        bytes: usize,
    },
    /// Too deep.
    #[error(
        "query nests more than {DEPTH_MAX} brackets and operators; split it, or use a matcher with =~ in place of many `or`"
    )]
    TooDeep,
    /// Not PromQL. The words are the parser's.
    #[error("parse error: {reason}")]
    Syntax {
        /// What the parser says.
        reason: String,
    },
    /// A regular expression does not compile.
    #[error("parse error: regular expression of label {label} does not compile")]
    Regex {
        /// Label that is matched.
        label: String,
        /// Where it fails.
        #[source]
        source: regex::Error,
    },
    /// PromQL that Petrel does not evaluate.
    #[error("parse error: {what} is not supported")]
    Unsupported {
        /// The construct.
        what: String,
    },
}

/// Parses PromQL.
///
/// # Errors
/// The text is too long, too deep or no PromQL.
pub fn parse(text: &str) -> Result<Expr, ParseQueryError> {
    let (tree, places) = checked(text)?;
    let mut converter = Converter { places: places.into_iter() };
    converter.expr(&tree)
}

/// The text as the parser lays it out, over several lines where it is long.
///
/// # Errors
/// As [`parse`].
pub fn format(text: &str) -> Result<String, ParseQueryError> {
    Ok(checked(text)?.0.prettify())
}

/// The parser's tree, and where the calls in it stand.
fn checked(text: &str) -> Result<(parsed::Expr, Vec<(Place, Place)>), ParseQueryError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ParseQueryError::TooLong { bytes: text.len() });
    }
    let scan = scan(text);
    if scan.depth > DEPTH_MAX {
        return Err(ParseQueryError::TooDeep);
    }
    if scan.too_long {
        return Err(ParseQueryError::Syntax { reason: "duration out of range".to_owned() });
    }
    // The parser panics on durations that it cannot hold. The scan keeps away what is known; a panic must not end the
    // task of whoever asks.
    let tree = catch_unwind(AssertUnwindSafe(|| parsed::parse(text)))
        .unwrap_or_else(|_| Err("a number or duration is out of range".to_owned()));
    match (tree, scan.unknown) {
        (Ok(tree), _) => Ok((tree, scan.places(text))),
        (Err(_), Some(unknown)) => Err(unsupported(unknown)),
        (Err(reason), None) => Err(ParseQueryError::Syntax { reason: scan.reason(text).unwrap_or(reason) }),
    }
}

struct Converter<P> {
    /// Places of calls and aggregations in the order of the text, which is the order in which they are converted.
    places: P,
}

impl<P: Iterator<Item = (Place, Place)>> Converter<P> {
    fn expr(&mut self, expr: &parsed::Expr) -> Result<Expr, ParseQueryError> {
        Ok(match expr {
            parsed::Expr::NumberLiteral(literal) => Expr::Number(literal.val),
            parsed::Expr::StringLiteral(literal) => Expr::Text(literal.val.clone()),
            parsed::Expr::Paren(paren) => Expr::Paren(Box::new(self.expr(&paren.expr)?)),
            parsed::Expr::Unary(unary) => Expr::Negate(Box::new(self.expr(&unary.expr)?)),
            parsed::Expr::VectorSelector(selector) => Expr::Selector(convert_selector(selector)?),
            parsed::Expr::MatrixSelector(matrix) => {
                Expr::Range(Range { selector: convert_selector(&matrix.vs)?, range_ms: milliseconds(matrix.range)? })
            }
            parsed::Expr::Subquery(subquery) => Expr::Subquery(self.subquery(subquery)?),
            parsed::Expr::Call(call) => Expr::Call(self.call(call)?),
            parsed::Expr::Aggregate(aggregate) => Expr::Aggregate(self.aggregate(aggregate)?),
            parsed::Expr::Binary(binary) => Expr::Binary(self.binary(binary)?),
            parsed::Expr::Extension(_) => return Err(unsupported("an extension of the parser")),
        })
    }

    fn subquery(&mut self, subquery: &parsed::SubqueryExpr) -> Result<Subquery, ParseQueryError> {
        Ok(Subquery {
            expr: Box::new(self.expr(&subquery.expr)?),
            range_ms: milliseconds(subquery.range)?,
            step_ms: subquery.step.map(milliseconds).transpose()?,
            offset_ms: offset(subquery.offset.as_ref())?,
            at: subquery.at.as_ref().map(convert_at).transpose()?,
        })
    }

    fn call(&mut self, call: &parsed::Call) -> Result<Call, ParseQueryError> {
        let (place, args_place) = self.next_place();
        let function = call.func.name.to_owned();
        if !super::functions::is_known(&function) {
            return Err(unsupported(&format!("function {function}")));
        }
        let args = call.args.args.iter().map(|arg| self.expr(arg)).collect::<Result<_, _>>()?;
        Ok(Call { function, args, place, args_place })
    }

    fn aggregate(&mut self, aggregate: &parsed::AggregateExpr) -> Result<Aggregate, ParseQueryError> {
        let (_, args_place) = self.next_place();
        let grouping = match &aggregate.modifier {
            None => Grouping::default(),
            Some(parsed::LabelModifier::Include(labels)) => Grouping { without: false, labels: labels.labels.clone() },
            Some(parsed::LabelModifier::Exclude(labels)) => Grouping { without: true, labels: labels.labels.clone() },
        };
        let param = aggregate.param.as_ref().map(|param| self.expr(param)).transpose()?;
        Ok(Aggregate {
            op: aggregate_op(aggregate.op)?,
            grouping,
            param: param.map(Box::new),
            expr: Box::new(self.expr(&aggregate.expr)?),
            args_place,
        })
    }

    fn binary(&mut self, binary: &parsed::BinaryExpr) -> Result<Binary, ParseQueryError> {
        Ok(Binary {
            op: binary_op(binary.op)?,
            lhs: Box::new(self.expr(&binary.lhs)?),
            rhs: Box::new(self.expr(&binary.rhs)?),
            returns_bool: binary.modifier.as_ref().is_some_and(|modifier| modifier.return_bool),
            matching: binary.modifier.as_ref().map(convert_matching).unwrap_or_default(),
        })
    }

    /// The start of the text where the scan and the parser disagree on what is a call: only messages tell places.
    fn next_place(&mut self) -> (Place, Place) {
        let start = Place { line: 1, column: 1 };
        self.places.next().unwrap_or((start, start))
    }
}

fn convert_selector(selector: &parsed::VectorSelector) -> Result<Selector, ParseQueryError> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(unsupported("`or` between matchers"));
    }
    let name = selector.name.iter().map(|name| Ok(Matcher::equal(NAME, name)));
    let rest = selector.matchers.matchers.iter().map(|matcher| {
        let source = |source| ParseQueryError::Regex { label: matcher.name.clone(), source };
        match &matcher.op {
            ParsedOp::Equal => Ok(Matcher::equal(&matcher.name, &matcher.value)),
            ParsedOp::NotEqual => {
                Ok(Matcher { name: matcher.name.clone(), op: crate::series::MatchOp::NotEqual(matcher.value.clone()) })
            }
            ParsedOp::Re(regex) => Matcher::regex(&matcher.name, pattern(regex.as_str()), false).map_err(source),
            ParsedOp::NotRe(regex) => Matcher::regex(&matcher.name, pattern(regex.as_str()), true).map_err(source),
        }
    });
    Ok(Selector {
        matchers: name.chain(rest).collect::<Result<_, _>>()?,
        offset_ms: offset(selector.offset.as_ref())?,
        at: selector.at.as_ref().map(convert_at).transpose()?,
    })
}

/// The pattern within the parser's anchors. The parser has escaped braces that Go takes as they are.
fn pattern(anchored: &str) -> &str {
    anchored.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(anchored)
}

fn convert_at(at: &parsed::AtModifier) -> Result<At, ParseQueryError> {
    Ok(match at {
        parsed::AtModifier::Start => At::Start,
        parsed::AtModifier::End => At::End,
        parsed::AtModifier::At(time) => At::Time(since_epoch(*time)?),
    })
}

fn since_epoch(time: SystemTime) -> Result<Timestamp, ParseQueryError> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => milliseconds(after),
        Err(before) => Ok(-milliseconds(before.duration())?),
    }
}

fn offset(offset: Option<&parsed::Offset>) -> Result<i64, ParseQueryError> {
    match offset {
        None => Ok(0),
        Some(parsed::Offset::Pos(back)) => milliseconds(*back),
        Some(parsed::Offset::Neg(ahead)) => Ok(-milliseconds(*ahead)?),
    }
}

fn milliseconds(duration: Duration) -> Result<i64, ParseQueryError> {
    if duration.as_secs_f64() > DURATION_S_MAX {
        return Err(ParseQueryError::Syntax { reason: "duration out of range".to_owned() });
    }
    Ok(duration.as_millis() as i64)
}

fn convert_matching(modifier: &parsed::BinModifier) -> Matching {
    let (on, labels) = match &modifier.matching {
        None => (false, Vec::new()),
        Some(parsed::LabelModifier::Include(labels)) => (true, labels.labels.clone()),
        Some(parsed::LabelModifier::Exclude(labels)) => (false, labels.labels.clone()),
    };
    let group = match &modifier.card {
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Group::OneToOne,
        VectorMatchCardinality::ManyToOne(include) => Group::Left(include.labels.clone()),
        VectorMatchCardinality::OneToMany(include) => Group::Right(include.labels.clone()),
    };
    Matching { on, labels, group, fill_left: modifier.fill_values.lhs, fill_right: modifier.fill_values.rhs }
}

fn aggregate_op(op: TokenType) -> Result<AggregateOp, ParseQueryError> {
    Ok(match op.id() {
        T_SUM => AggregateOp::Sum,
        T_AVG => AggregateOp::Avg,
        T_COUNT => AggregateOp::Count,
        T_MIN => AggregateOp::Min,
        T_MAX => AggregateOp::Max,
        T_GROUP => AggregateOp::Group,
        T_STDDEV => AggregateOp::Stddev,
        T_STDVAR => AggregateOp::Stdvar,
        T_TOPK => AggregateOp::Topk,
        T_BOTTOMK => AggregateOp::Bottomk,
        T_COUNT_VALUES => AggregateOp::CountValues,
        T_QUANTILE => AggregateOp::Quantile,
        T_LIMITK => AggregateOp::Limitk,
        T_LIMIT_RATIO => AggregateOp::LimitRatio,
        _ => return Err(unsupported(&format!("aggregation {op}"))),
    })
}

fn binary_op(op: TokenType) -> Result<BinaryOp, ParseQueryError> {
    Ok(match op.id() {
        T_ADD => BinaryOp::Add,
        T_SUB => BinaryOp::Sub,
        T_MUL => BinaryOp::Mul,
        T_DIV => BinaryOp::Div,
        T_MOD => BinaryOp::Mod,
        T_POW => BinaryOp::Pow,
        T_ATAN2 => BinaryOp::Atan2,
        T_EQLC => BinaryOp::Equal,
        T_NEQ => BinaryOp::NotEqual,
        T_GTR => BinaryOp::Greater,
        T_LSS => BinaryOp::Less,
        T_GTE => BinaryOp::GreaterEqual,
        T_LTE => BinaryOp::LessEqual,
        T_LAND => BinaryOp::And,
        T_LOR => BinaryOp::Or,
        T_LUNLESS => BinaryOp::Unless,
        _ => return Err(unsupported(&format!("operator {op}"))),
    })
}

fn unsupported(what: &str) -> ParseQueryError {
    ParseQueryError::Unsupported { what: what.to_owned() }
}
