//! Parts of dates, in UTC, of values that are seconds since the Unix epoch.

use chrono::{DateTime, Datelike, Timelike, Utc};

use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{Frame, Grid, Stream};
use crate::series::Labels;

use super::{arg, map_values};

type Part = fn(&DateTime<Utc>) -> u32;

/// The part of a date that a function gives.
pub(super) fn part(name: &str) -> Option<Part> {
    Some(match name {
        "minute" => Timelike::minute,
        "hour" => Timelike::hour,
        "day_of_week" => |date| date.weekday().num_days_from_sunday(),
        "day_of_month" => Datelike::day,
        "day_of_year" => Datelike::ordinal,
        "days_in_month" => |date| u32::from(date.num_days_in_month()),
        "month" => Datelike::month,
        "year" => |date| u32::try_from(date.year()).unwrap_or(0),
        _ => return None,
    })
}

/// The part of each value's date; without an argument, of the evaluation's time.
pub(super) fn of_vector(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid, part: Part) -> Result<Frame, QueryError> {
    let mut streams = if call.args.is_empty() {
        let values = (0..grid.count).map(|step| grid.at(step) as f64 / 1000.0).collect();
        vec![Stream { labels: Labels::empty(), drop_name: false, values }]
    } else {
        evaluator.vector(arg(call, 0)?, grid)?
    };
    for stream in &mut streams {
        stream.drop_name = true;
        map_values(&mut stream.values, |value| of_value(value, part));
    }
    Ok(Frame::Vector(streams))
}

/// NaN for a value that is no date.
fn of_value(value: f64, part: Part) -> f64 {
    if value.is_nan() {
        return f64::NAN;
    }
    DateTime::from_timestamp(value as i64, 0).map_or(f64::NAN, |date| f64::from(part(&date)))
}
