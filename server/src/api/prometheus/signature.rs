//! The arguments and results of PromQL's functions as Prometheus declares them, for `parse_query`. A table and nothing else.

/// The types of PromQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Vector,
    Matrix,
    Text,
}

impl Kind {
    /// Prometheus' word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Scalar => "scalar",
            Kind::Vector => "vector",
            Kind::Matrix => "matrix",
            Kind::Text => "string",
        }
    }
}

/// What functions of the same form take and give.
#[derive(Debug)]
pub(super) struct Signature {
    names: &'static [&'static str],
    /// Types of the arguments.
    pub(super) args: &'static [Kind],
    /// How many of the last arguments may be left out; -1 where the last may come any number of times.
    pub(super) variadic: i32,
    /// Type of the result.
    pub(super) returns: Kind,
}

/// The form of a function.
pub(super) fn of(name: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|signature| signature.names.contains(&name))
}

/// Names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().flat_map(|signature| signature.names.iter().copied())
}

use Kind::{Matrix, Scalar, Text, Vector};

const SIGNATURES: &[Signature] = &[
    Signature {
        names: &[
            "abs",
            "absent",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "ceil",
            "cos",
            "cosh",
            "deg",
            "exp",
            "floor",
            "histogram_avg",
            "histogram_count",
            "histogram_stddev",
            "histogram_stdvar",
            "histogram_sum",
            "ln",
            "log10",
            "log2",
            "rad",
            "sgn",
            "sin",
            "sinh",
            "sort",
            "sort_desc",
            "sqrt",
            "start_timestamp",
            "tan",
            "tanh",
            "timestamp",
        ],
        args: &[Vector],
        variadic: 0,
        returns: Vector,
    },
    Signature {
        names: &[
            "absent_over_time",
            "avg_over_time",
            "changes",
            "count_over_time",
            "delta",
            "deriv",
            "first_over_time",
            "idelta",
            "increase",
            "irate",
            "last_over_time",
            "mad_over_time",
            "max_over_time",
            "min_over_time",
            "present_over_time",
            "rate",
            "resets",
            "stddev_over_time",
            "stdvar_over_time",
            "sum_over_time",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
            "ts_of_max_over_time",
            "ts_of_min_over_time",
        ],
        args: &[Matrix],
        variadic: 0,
        returns: Vector,
    },
    Signature { names: &["clamp"], args: &[Vector, Scalar, Scalar], variadic: 0, returns: Vector },
    Signature { names: &["clamp_max", "clamp_min"], args: &[Vector, Scalar], variadic: 0, returns: Vector },
    Signature {
        names: &["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"],
        args: &[Vector],
        variadic: 1,
        returns: Vector,
    },
    Signature { names: &["end", "pi", "range", "start", "step", "time"], args: &[], variadic: 0, returns: Scalar },
    Signature { names: &["histogram_fraction"], args: &[Scalar, Scalar, Vector], variadic: 0, returns: Vector },
    Signature { names: &["histogram_quantile"], args: &[Scalar, Vector], variadic: 0, returns: Vector },
    Signature { names: &["histogram_quantiles"], args: &[Vector, Text, Scalar, Scalar], variadic: 9, returns: Vector },
    Signature { names: &["info"], args: &[Vector, Vector], variadic: 1, returns: Vector },
    Signature {
        names: &["double_exponential_smoothing"],
        args: &[Matrix, Scalar, Scalar],
        variadic: 0,
        returns: Vector,
    },
    Signature { names: &["integral"], args: &[Matrix, Scalar], variadic: 1, returns: Vector },
    Signature { names: &["label_replace"], args: &[Vector, Text, Text, Text, Text], variadic: 0, returns: Vector },
    Signature { names: &["label_join"], args: &[Vector, Text, Text, Text], variadic: -1, returns: Vector },
    Signature { names: &["max_of", "min_of"], args: &[Scalar, Scalar], variadic: 0, returns: Scalar },
    Signature { names: &["predict_linear"], args: &[Matrix, Scalar], variadic: 0, returns: Vector },
    Signature { names: &["quantile_over_time"], args: &[Scalar, Matrix], variadic: 0, returns: Vector },
    Signature { names: &["round"], args: &[Vector, Scalar], variadic: 1, returns: Vector },
    Signature { names: &["scalar"], args: &[Vector], variadic: 0, returns: Scalar },
    Signature { names: &["sort_by_label", "sort_by_label_desc"], args: &[Vector, Text], variadic: -1, returns: Vector },
    Signature { names: &["vector"], args: &[Scalar], variadic: 0, returns: Vector },
];
