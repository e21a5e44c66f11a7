//! The functions of PromQL: what they take and give, as Prometheus declares them. A table and nothing else.

/// The types of PromQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One number at each time.
    Scalar,
    /// A string literal.
    Text,
    /// An instant vector.
    Vector,
    /// A range vector.
    Matrix,
}

impl Type {
    /// As errors and the documentation name it.
    pub fn documented(self) -> &'static str {
        match self {
            Type::Scalar => "scalar",
            Type::Text => "string",
            Type::Vector => "instant vector",
            Type::Matrix => "range vector",
        }
    }

    /// As the API names it.
    pub fn short(self) -> &'static str {
        match self {
            Type::Vector => "vector",
            Type::Matrix => "matrix",
            other => other.documented(),
        }
    }
}

/// What functions of the same form take and give.
#[derive(Debug)]
pub struct Signature {
    names: &'static [&'static str],
    /// Types of the arguments.
    pub takes: &'static [Type],
    /// 0: all of `takes`. Above: the last of `takes` is optional and may come so many times. Below: any number of times.
    pub variadic: i8,
    /// Type of the result.
    pub returns: Type,
}

/// What a function takes and gives, `None` where there is none of that name.
pub fn signature(name: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|signature| signature.names.contains(&name))
}

/// Names of all functions.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().flat_map(|signature| signature.names.iter().copied())
}

use Type::{Matrix, Scalar, Text, Vector};

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
            "tan",
            "tanh",
            "timestamp",
        ],
        takes: &[Vector],
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
        takes: &[Matrix],
        variadic: 0,
        returns: Vector,
    },
    Signature { names: &["clamp"], takes: &[Vector, Scalar, Scalar], variadic: 0, returns: Vector },
    Signature { names: &["clamp_max", "clamp_min"], takes: &[Vector, Scalar], variadic: 0, returns: Vector },
    Signature {
        names: &["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"],
        takes: &[Vector],
        variadic: 1,
        returns: Vector,
    },
    Signature { names: &["end", "pi", "range", "start", "step", "time"], takes: &[], variadic: 0, returns: Scalar },
    Signature { names: &["histogram_fraction"], takes: &[Scalar, Scalar, Vector], variadic: 0, returns: Vector },
    Signature { names: &["histogram_quantile"], takes: &[Scalar, Vector], variadic: 0, returns: Vector },
    Signature { names: &["histogram_quantiles"], takes: &[Vector, Text, Scalar, Scalar], variadic: 9, returns: Vector },
    Signature { names: &["info"], takes: &[Vector, Vector], variadic: 1, returns: Vector },
    Signature {
        names: &["double_exponential_smoothing"],
        takes: &[Matrix, Scalar, Scalar],
        variadic: 0,
        returns: Vector,
    },
    Signature { names: &["label_replace"], takes: &[Vector, Text, Text, Text, Text], variadic: 0, returns: Vector },
    Signature { names: &["label_join"], takes: &[Vector, Text, Text, Text], variadic: -1, returns: Vector },
    Signature { names: &["max_of", "min_of"], takes: &[Scalar, Scalar], variadic: 0, returns: Scalar },
    Signature { names: &["predict_linear"], takes: &[Matrix, Scalar], variadic: 0, returns: Vector },
    Signature { names: &["quantile_over_time"], takes: &[Scalar, Matrix], variadic: 0, returns: Vector },
    Signature { names: &["round"], takes: &[Vector, Scalar], variadic: 1, returns: Vector },
    Signature { names: &["scalar"], takes: &[Vector], variadic: 0, returns: Scalar },
    Signature {
        names: &["sort_by_label", "sort_by_label_desc"],
        takes: &[Vector, Text],
        variadic: -1,
        returns: Vector,
    },
    Signature { names: &["vector"], takes: &[Scalar], variadic: 0, returns: Vector },
];
