//! PromQL as a tree: what a query means. It evaluates nothing; `parse` builds it,
//! `print` writes it back, `eval` walks it. Durations are milliseconds, positive offsets look back.

use crate::series::{MatchOp, Matcher, NAME, Timestamp};

/// A query or a part of one.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A literal number.
    Number(f64),
    /// A literal string.
    Text(String),
    /// An instant selector: `name{label="value"}`.
    Selector(Selector),
    /// A range selector: `name[5m]`.
    Range(Range),
    /// A subquery: `expr[1h:1m]`.
    Subquery(Subquery),
    /// Parentheses, kept for printing.
    Paren(Box<Expr>),
    /// Unary minus.
    Negate(Box<Expr>),
    /// A function call.
    Call(Call),
    /// An aggregation such as `sum by (job) (…)`.
    Aggregate(Aggregate),
    /// Two operands and an operator.
    Binary(Binary),
}

/// Which series, and when.
#[derive(Debug, Clone)]
pub struct Selector {
    /// All must hold; the metric name is one of them.
    pub matchers: Vec<Matcher>,
    /// Time to look back; negative looks ahead.
    pub offset_ms: i64,
    /// Computes `offset_ms` before the evaluation.
    pub offset_expr: Option<DurationExpr>,
    /// `@`: a time instead of the evaluation's.
    pub at: Option<At>,
    /// `anchored` or `smoothed`.
    pub edges: Edges,
}

/// What stands at the edges of a window, or at the time of an instant selector, where no sample lies there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edges {
    /// Nothing.
    #[default]
    Open,
    /// `anchored`: the last sample before.
    Anchored,
    /// `smoothed`: a line between the samples before and after.
    Smoothed,
}

/// A duration that is computed: `5m * 2`, `step()`.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationExpr {
    /// What it is made of.
    pub node: DurationNode,
    /// Where it stands in the text: the offsets of its first byte and of the byte after its last.
    pub place: (u32, u32),
}

/// The parts of a [`DurationExpr`]. Values are seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationNode {
    /// A number or, where `is_duration`, a duration such as `5m`.
    Seconds {
        /// The value.
        value: f64,
        /// How it is written.
        is_duration: bool,
    },
    /// `step()`: the distance of the query's steps, 0 where there is one.
    Step,
    /// `range()`: from the query's first step to its last.
    Range,
    /// Unary minus.
    Negate(Box<DurationExpr>),
    /// Parentheses, kept for printing.
    Paren(Box<DurationExpr>),
    /// `min_of(a, b)`.
    Min(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`.
    Max(Box<DurationExpr>, Box<DurationExpr>),
    /// Two operands of `+ - * / % ^`.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
}

impl Selector {
    /// The metric name, where the selector asks for exactly one.
    pub fn metric(&self) -> Option<&str> {
        self.matchers.iter().find_map(|matcher| match &matcher.op {
            MatchOp::Equal(value) if matcher.name == NAME => Some(value.as_str()),
            _ => None,
        })
    }
}

/// The time after `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// `@ start()`: where the query's range begins.
    Start,
    /// `@ end()`: where the query's range ends.
    End,
    /// A fixed time.
    Time(Timestamp),
}

/// A selector with a range.
#[derive(Debug, Clone)]
pub struct Range {
    /// Which series.
    pub selector: Selector,
    /// Width of the window, which is open on its left.
    pub range_ms: i64,
    /// Computes `range_ms` before the evaluation.
    pub range_expr: Option<DurationExpr>,
}

/// An expression evaluated at many times before each step.
#[derive(Debug, Clone)]
pub struct Subquery {
    /// What is evaluated; an instant vector.
    pub expr: Box<Expr>,
    /// Width of the window, open on its left.
    pub range_ms: i64,
    /// Computes `range_ms` before the evaluation.
    pub range_expr: Option<DurationExpr>,
    /// Distance of the evaluations, which lie on its multiples; the default is a minute.
    pub step_ms: Option<i64>,
    /// Computes `step_ms` before the evaluation.
    pub step_expr: Option<DurationExpr>,
    /// Time to look back; negative looks ahead.
    pub offset_ms: i64,
    /// Computes `offset_ms` before the evaluation.
    pub offset_expr: Option<DurationExpr>,
    /// `@`: a time instead of the evaluation's.
    pub at: Option<At>,
}

/// A function with its arguments. The parser has checked their number and types.
#[derive(Debug, Clone)]
pub struct Call {
    /// Name of the function.
    pub function: String,
    /// Arguments as written.
    pub args: Vec<Expr>,
    /// Where the call stands in the text.
    pub place: Place,
    /// Where each argument stands.
    pub args_places: Vec<Place>,
}

impl Call {
    /// Where an argument stands; the call itself where there is none.
    pub fn arg_place(&self, arg: usize) -> Place {
        self.args_places.get(arg).copied().unwrap_or(self.place)
    }
}

/// A place in a query's text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column in bytes.
    pub column: u32,
}

/// An aggregation over groups of series.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// What is computed.
    pub op: AggregateOp,
    /// What makes a group.
    pub grouping: Grouping,
    /// The parameter of `topk`, `quantile`, `count_values` and their kin.
    pub param: Option<Box<Expr>>,
    /// What is aggregated; an instant vector.
    pub expr: Box<Expr>,
    /// Where the first argument stands.
    pub args_place: Place,
}

/// Labels that make a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grouping {
    /// `without`: the labels are left out; else they alone are kept.
    pub without: bool,
    /// The labels.
    pub labels: Vec<String>,
}

/// The aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the PromQL operator of its name")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

/// Two operands and an operator.
#[derive(Debug, Clone)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub lhs: Box<Expr>,
    /// Right operand.
    pub rhs: Box<Expr>,
    /// `bool`: a comparison gives 0 or 1 in place of filtering.
    pub returns_bool: bool,
    /// How series of both sides find each other.
    pub matching: Matching,
}

/// The operators between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the PromQL operator of its name")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// Whether it compares, and so filters or gives 0 and 1.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual)
    }

    /// Whether it works on sets of series: `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// How series of two vectors find each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matching {
    /// `on`: the labels alone are compared; else all labels but these.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Which side may have many series for one of the other.
    pub group: Group,
    /// Value for a left series that is missing.
    pub fill_left: Option<f64>,
    /// Value for a right series that is missing.
    pub fill_right: Option<f64>,
}

/// The side with many series for one of the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Group {
    /// Neither.
    #[default]
    OneToOne,
    /// `group_left`, with the labels to take from the right side.
    Left(Vec<String>),
    /// `group_right`, with the labels to take from the left side.
    Right(Vec<String>),
}

impl Expr {
    /// All selectors of the expression, in the order of the text: for checks of rules and dashboards.
    pub fn selectors(&self) -> Vec<&Selector> {
        let mut found = Vec::new();
        self.each_selector(&mut |selector, _| found.push(selector));
        found
    }

    /// Shows all selectors in the order of the text, with the width of the range where one has a range.
    pub(super) fn each_selector<'a>(&'a self, show: &mut impl FnMut(&'a Selector, Option<i64>)) {
        match self {
            Expr::Number(_) | Expr::Text(_) => {}
            Expr::Selector(selector) => show(selector, None),
            Expr::Range(range) => show(&range.selector, Some(range.range_ms)),
            Expr::Subquery(subquery) => subquery.expr.each_selector(show),
            Expr::Paren(inner) | Expr::Negate(inner) => inner.each_selector(show),
            Expr::Call(call) => call.args.iter().for_each(|arg| arg.each_selector(show)),
            Expr::Aggregate(aggregate) => {
                if let Some(param) = &aggregate.param {
                    param.each_selector(show);
                }
                aggregate.expr.each_selector(show);
            }
            Expr::Binary(binary) => {
                binary.lhs.each_selector(show);
                binary.rhs.each_selector(show);
            }
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrapped(&self) -> &Expr {
        let mut expr = self;
        while let Expr::Paren(inner) = expr {
            expr = inner;
        }
        expr
    }
}
