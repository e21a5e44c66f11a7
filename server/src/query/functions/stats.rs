//! Sums, means, variances and quantiles, compensated against rounding the way Prometheus does it (Kahan and Neumaier),
//! so that answers agree in the last digits that users see.

/// Adds `value` to a sum with its compensation.
fn compensated(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + value;
    let compensation = if total.is_infinite() {
        0.0
    } else if sum.abs() >= value.abs() {
        compensation + ((sum - total) + value)
    } else {
        compensation + ((value - total) + sum)
    };
    (total, compensation)
}

/// A running sum.
#[derive(Clone, Default)]
pub(crate) struct Sum {
    count: u64,
    total: f64,
    compensation: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        if self.count == 1 {
            self.total = value;
        } else {
            (self.total, self.compensation) = compensated(value, self.total, self.compensation);
        }
    }

    /// `None` before the first value.
    pub(crate) fn result(&self) -> Option<f64> {
        (self.count > 0).then(|| if self.total.is_infinite() { self.total } else { self.total + self.compensation })
    }
}

/// A running mean: the sum over the count, until the sum would overflow; from there on an incremental mean.
#[derive(Clone, Default)]
pub(crate) struct Mean {
    count: f64,
    /// The sum or, once incremental, the mean.
    value: f64,
    compensation: f64,
    incremental: bool,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = value;
            return;
        }
        if !self.incremental {
            let (sum, compensation) = compensated(value, self.value, self.compensation);
            if !sum.is_infinite() {
                (self.value, self.compensation) = (sum, compensation);
                return;
            }
            self.incremental = true;
            self.value /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        (self.value, self.compensation) =
            compensated(value / self.count, share * self.value, share * self.compensation);
    }

    /// `None` before the first value.
    pub(crate) fn result(&self) -> Option<f64> {
        (self.count > 0.0).then(|| {
            if self.incremental {
                self.value + self.compensation
            } else {
                self.value / self.count + self.compensation / self.count
            }
        })
    }
}

/// A running variance (Welford 1962), mean and sum of squares compensated.
#[derive(Clone, Default)]
pub(crate) struct Spread {
    count: f64,
    mean: (f64, f64),
    squares: (f64, f64),
}

impl Spread {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - (self.mean.0 + self.mean.1);
        self.mean = compensated(delta / self.count, self.mean.0, self.mean.1);
        let square = delta * (value - (self.mean.0 + self.mean.1));
        self.squares = compensated(square, self.squares.0, self.squares.1);
    }

    /// The population variance, `None` before the first value.
    pub(crate) fn variance(&self) -> Option<f64> {
        (self.count > 0.0).then(|| (self.squares.0 + self.squares.1) / self.count)
    }
}

/// The quantile of some values, interpolated between neighbours; NaN counts as the smallest. Sorts them. O(n log n).
///
/// NaN where there are no values or `q` is NaN, -Inf below 0, +Inf above 1.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Slope per second and value at `at_ms` of the least-squares line through the points, sums compensated. A constant has
/// slope 0 exactly. Needs two points at least; NaN where all are at one time.
pub(super) fn regression(points: &[crate::series::Sample], at_ms: i64) -> (f64, f64) {
    let mut sums = [(0.0, 0.0); 4];
    let first = points.first().map_or(0.0, |point| point.v);
    let mut constant = true;
    for point in points {
        constant &= point.v == first;
        let x = (point.t - at_ms) as f64 / 1000.0;
        for (sum, value) in sums.iter_mut().zip([x, point.v, x * point.v, x * x]) {
            *sum = compensated(value, sum.0, sum.1);
        }
    }
    if constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = points.len() as f64;
    let [x, y, xy, xx] = sums.map(|(sum, compensation)| sum + compensation);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}
