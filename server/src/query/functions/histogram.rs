//! Quantiles and fractions of classic histograms, whose buckets are series with an upper bound in `le`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat};

use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream, is_absent};
use crate::query::parse::literal::{is_label_name, quoted};
use crate::query::print::{general, two_digits};
use crate::series::{Labels, Timestamp};

use super::arg;
use super::buckets::{Bucket, Fall, fraction, quantile};

/// The functions on histograms; those on native histograms find none.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    match call.function.as_str() {
        "histogram_quantile" => {
            let q = quantiles_of(evaluator, call, 0, grid)?;
            let histograms = Histograms::of(evaluator, call, 1, grid)?;
            Ok(Frame::Vector(histograms.quantiles(evaluator, grid, &q)?))
        }
        "histogram_quantiles" => {
            let label = evaluator.text(arg(call, 1)?, grid)?;
            if !is_label_name(&label) {
                return Err(QueryError::LabelName { name: label });
            }
            let qs = (2..call.args.len()).map(|place| quantiles_of(evaluator, call, place, grid));
            let qs = qs.collect::<Result<Vec<_>, _>>()?;
            let histograms = Histograms::of(evaluator, call, 0, grid)?;
            let mut results: Vec<Stream> = Vec::new();
            for q in qs {
                for stream in histograms.quantiles(evaluator, grid, &q)? {
                    evaluator.hold(grid.count as u64)?;
                    label_by_step(&mut results, &stream, &label, &q);
                }
            }
            Ok(Frame::Vector(results))
        }
        "histogram_fraction" => {
            let lower = evaluator.scalar(arg(call, 0)?, grid)?;
            let upper = evaluator.scalar(arg(call, 1)?, grid)?;
            let histograms = Histograms::of(evaluator, call, 2, grid)?;
            let of = |step: usize, buckets: &mut Vec<Bucket>, _: &str| fraction(lower[step], upper[step], buckets);
            Ok(Frame::Vector(histograms.each(evaluator, grid, of)?))
        }
        _ => {
            evaluator.vector(arg(call, 0)?, grid)?;
            Ok(Frame::Vector(Vec::new()))
        }
    }
}

fn quantiles_of(evaluator: &Evaluator<'_>, call: &Call, place: usize, grid: &Grid) -> Result<Vec<f64>, QueryError> {
    let q = evaluator.scalar(arg(call, place)?, grid)?;
    evaluator.check_quantiles(&q, call.arg_place(place));
    Ok(q)
}

/// Puts the values of a quantile under its label; where the quantile differs from step to step, so does the label.
fn label_by_step(results: &mut Vec<Stream>, stream: &Stream, label: &str, q: &[f64]) {
    let mut place: Option<(u64, usize)> = None;
    for (step, value) in stream.present() {
        let at = match place {
            Some((bits, at)) if bits == q[step].to_bits() => at,
            _ => {
                let labels = stream.labels.with(label, &open_metrics(q[step]));
                results.iter().position(|result| result.labels == labels).unwrap_or_else(|| {
                    let values = vec![ABSENT; stream.values.len()];
                    results.push(Stream { labels, drop_name: true, values });
                    results.len() - 1
                })
            }
        };
        place = Some((q[step].to_bits(), at));
        results[at].values[step] = value;
    }
}

/// A number as a label's value: always with a dot or an exponent.
fn open_metrics(value: f64) -> String {
    let text = general(value);
    if value.is_finite() && !text.contains(['e', '.']) { text + ".0" } else { text }
}

/// The buckets of each histogram, by its labels without `le`.
struct Histograms<'c> {
    call: &'c Call,
    /// Which argument they are.
    arg: usize,
    found: Vec<(Labels, Vec<(f64, Stream)>)>,
}

/// How often the counts of a metric fell, and when.
struct Falls {
    fall: Fall,
    times: u64,
    first: Timestamp,
    last: Timestamp,
}

impl<'c> Histograms<'c> {
    fn of(evaluator: &Evaluator<'_>, call: &'c Call, place: usize, grid: &Grid) -> Result<Histograms<'c>, QueryError> {
        let streams = evaluator.vector(arg(call, place)?, grid)?;
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut histograms: Vec<(Labels, Vec<(f64, Stream)>)> = Vec::new();
        for stream in streams {
            let bound = stream.labels.get("le").unwrap_or("");
            // Go takes "+Inf", "Inf", "inf" and "infinity" alike, as does Rust.
            let Ok(upper) = bound.parse::<f64>() else {
                let of_metric = for_metric(stream.labels.name());
                let text =
                    format!("bucket label \"le\" is missing or has a malformed value of {}{of_metric}", quoted(bound));
                evaluator.warn(&text, call.arg_place(place));
                continue;
            };
            let labels = stream.labels.without(|name| name == "le");
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                histograms.push((labels, Vec::new()));
                histograms.len() - 1
            });
            histograms[place].1.push((upper, stream));
        }
        Ok(Histograms { call, arg: place, found: histograms })
    }

    /// Calls `of` with the buckets of each histogram at each step and the metric's name.
    fn each(
        &self,
        evaluator: &Evaluator<'_>,
        grid: &Grid,
        of: impl Fn(usize, &mut Vec<Bucket>, &str) -> f64,
    ) -> Result<Vec<Stream>, QueryError> {
        let mut results = Vec::with_capacity(self.found.len());
        let mut buckets = Vec::new();
        for (labels, bounds) in &self.found {
            let mut values = vec![ABSENT; grid.count];
            for (step, value) in values.iter_mut().enumerate() {
                buckets.clear();
                let counts = bounds.iter().map(|(upper, stream)| Bucket { upper: *upper, count: stream.values[step] });
                buckets.extend(counts.filter(|bucket| !is_absent(bucket.count)));
                evaluator.worked(bounds.len() as u64)?;
                if !buckets.is_empty() {
                    *value = of(step, &mut buckets, labels.name());
                }
            }
            results.push(Stream { labels: labels.clone(), drop_name: true, values });
        }
        Ok(results)
    }

    /// The quantile of each histogram at each step. Tells once for each metric that counts had to be repaired.
    fn quantiles(&self, evaluator: &Evaluator<'_>, grid: &Grid, q: &[f64]) -> Result<Vec<Stream>, QueryError> {
        let falls: RefCell<BTreeMap<String, Falls>> = RefCell::default();
        let results = self.each(evaluator, grid, |step, buckets, metric| {
            let (value, fall) = quantile(q[step], buckets);
            if let Some(fall) = fall {
                note(&mut falls.borrow_mut(), metric, fall, grid.at(step));
            }
            value
        })?;
        for (metric, falls) in falls.into_inner() {
            let Falls { fall, times, first, last } = falls;
            let time = |t: Timestamp| {
                DateTime::from_timestamp_millis(t).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
            };
            let text = format!(
                "input to histogram_quantile needed to be fixed for monotonicity (see \
                 https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}, from buckets \
                 {} to {}, with a max diff of {}, over {times} samples from {} to {}",
                for_metric(&metric),
                general(fall.lowest),
                general(fall.highest),
                two_digits(fall.most),
                time(first).unwrap_or_default(),
                time(last).unwrap_or_default(),
            );
            evaluator.inform(&text, self.call.arg_place(self.arg));
        }
        Ok(results)
    }
}

fn note(falls: &mut BTreeMap<String, Falls>, metric: &str, fall: Fall, at: Timestamp) {
    match falls.get_mut(metric) {
        Some(known) => {
            known.fall = Fall {
                lowest: known.fall.lowest.min(fall.lowest),
                highest: known.fall.highest.max(fall.highest),
                most: known.fall.most.max(fall.most),
            };
            known.times += 1;
            (known.first, known.last) = (known.first.min(at), known.last.max(at));
        }
        None => {
            falls.insert(metric.to_owned(), Falls { fall, times: 1, first: at, last: at });
        }
    }
}

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quoted(name)) }
}
