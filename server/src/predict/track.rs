//! One subject under watch: its histories, one per horizon, and what was last forecast from each.

use petrel_agent::units::Span;
use petrel_models::forecast::{self, Direction, Method, NotForecastable, Point, QUANTILES, Question};

use super::feed::Reading;
use super::history::{BUCKETS_MAX, History};
use super::resource::Subject;
use crate::series::Timestamp;

/// A subject without samples for this long is said nothing about.
const FRESH_MS: i64 = 600_000;
/// Quantiles of the time to a limit that are told.
pub const TIME_QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];
/// A history is this many times as long as its horizon, so that a season within the horizon is seen often enough.
const WINDOW_PER_HORIZON: i64 = 4;
/// Raw samples are kept for fifteen days.
const WINDOW_MS_MAX: i64 = 14 * 86_400_000;
/// Horizons up to this have short histories, whose buckets are short enough to see a new trend within minutes.
const SHORT_HORIZON_MS: i64 = 3_600_000;
/// A forecast is made anew when this share of its horizon, or of its history where that is shorter, has passed.
const REFRESH_SHARE: i64 = 60;

/// A subject and all that is known of it.
pub struct Track {
    /// Who.
    pub subject: Subject,
    /// Where it has run out.
    pub limit: f64,
    /// The most it can be.
    pub ceiling: f64,
    /// The newest point.
    pub last: Option<Point>,
    /// The source's series has ended.
    pub ended: bool,
    /// Series of it were stored last time, and must be ended when there is nothing more to say.
    pub told: bool,
    /// One per horizon, short to long.
    pub views: Vec<View>,
}

/// A subject as one horizon sees it.
pub struct View {
    /// The horizon.
    pub horizon: Span,
    /// The past.
    pub history: History,
    /// What was last forecast, or why it was not.
    pub outlook: Option<Result<Forecast, NotForecastable>>,
    /// When the ledger was last told.
    pub recorded_at: Option<Timestamp>,
    /// When the outlook was made, and from what newest point.
    computed: Option<(Timestamp, Timestamp)>,
}

/// What is kept of an outlook.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Time of the value it stands on.
    pub issued: Timestamp,
    /// How it was made.
    pub method: Method,
    /// Whether it reaches the whole horizon; a short history does not.
    pub whole: bool,
    /// Probability that the limit is met within the horizon.
    pub probability: f64,
    /// Seconds from `issued` until the limit is met, at [`TIME_QUANTILES`]; `None`: not within the horizon.
    pub seconds: [Option<f64>; TIME_QUANTILES.len()],
    /// Values at the end of the horizon, at the quantiles of an outlook.
    pub values: [f64; QUANTILES.len()],
}

/// What all horizons together say of a subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Probability per horizon, short to long; never falling.
    pub probabilities: Vec<(Span, f64)>,
    /// Seconds from now until the limit is met, at [`TIME_QUANTILES`].
    pub seconds: [Option<f64>; TIME_QUANTILES.len()],
}

impl Track {
    /// A subject without a past.
    pub fn starting(reading: &Reading, horizons: &[Span]) -> Track {
        let direction = reading.subject.resource.direction();
        let view = |horizon: &Span| View {
            horizon: *horizon,
            history: History::over(window_ms(*horizon), direction),
            outlook: None,
            recorded_at: None,
            computed: None,
        };
        Track {
            subject: reading.subject.clone(),
            limit: reading.limit,
            ceiling: reading.ceiling,
            last: None,
            ended: false,
            told: false,
            views: horizons.iter().map(view).collect(),
        }
    }

    /// Takes in what is newer than the last point; returns when the limit was met, if it is newly met.
    pub fn take(&mut self, reading: &Reading) -> Option<Timestamp> {
        (self.limit, self.ceiling, self.ended) = (reading.limit, reading.ceiling, reading.ended);
        let mut newly_met = None;
        for point in &reading.points {
            if self.last.is_some_and(|last| point.t <= last.t) {
                continue;
            }
            let was_met = self.is_met();
            self.last = Some(*point);
            for view in &mut self.views {
                view.history.push(*point);
            }
            if self.is_met() && !was_met {
                newly_met = newly_met.or(Some(point.t));
            }
        }
        newly_met
    }

    /// Whether there is still something to say of it: samples come.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        !self.ended && self.last.is_some_and(|last| now - last.t <= FRESH_MS)
    }

    /// Whether the limit is met now.
    pub fn is_met(&self) -> bool {
        self.last.is_some_and(|last| self.direction().crossed(last.v, self.limit))
    }

    /// Forecasts the horizons whose time has come; returns how many forecasts were made.
    pub fn forecast(&mut self, now: Timestamp, seed: u64) -> u64 {
        let (limit, ceiling, direction) = (self.limit, self.ceiling, self.direction());
        let mut made = 0;
        for (i, view) in self.views.iter_mut().enumerate() {
            if view.is_due(now) {
                let seed = seed.wrapping_add(i as u64).wrapping_add(now as u64);
                view.outlook = Some(view.ask(limit, (ceiling, direction), seed));
                view.computed = view.history.last_t().map(|from| (now, from));
                made += 1;
            }
        }
        made
    }

    /// What the horizons say together; `None` where none could be forecast. What a shorter horizon expects a longer one
    /// must expect too: the shorter sees more finely.
    pub fn summary(&self, now: Timestamp) -> Option<Summary> {
        let mut summary = Summary { probabilities: Vec::new(), seconds: [None; TIME_QUANTILES.len()] };
        let mut least: f64 = 0.0;
        for view in &self.views {
            let Some(Ok(forecast)) = &view.outlook else { continue };
            least = if self.is_met() { 1.0 } else { least.max(forecast.probability) };
            summary.probabilities.push((view.horizon, least));
            let elapsed = (now - forecast.issued) as f64 / 1000.0;
            for (told, seconds) in summary.seconds.iter_mut().zip(forecast.seconds) {
                *told = told.or(seconds.map(|seconds| (seconds - elapsed).max(0.0)));
            }
        }
        if self.is_met() {
            summary.seconds = [Some(0.0); TIME_QUANTILES.len()];
        }
        // Quantiles that come from different horizons may cross by a little.
        for i in 1..summary.seconds.len() {
            let before = summary.seconds[i - 1];
            summary.seconds[i] = summary.seconds[i].map(|seconds| seconds.max(before.unwrap_or(0.0)));
        }
        (!summary.probabilities.is_empty()).then_some(summary)
    }

    /// Why the first horizon could not be forecast.
    pub fn refused(&self) -> Option<NotForecastable> {
        self.views.first().and_then(|view| view.outlook.as_ref()).and_then(|outlook| outlook.as_ref().err().copied())
    }

    fn direction(&self) -> Direction {
        self.subject.resource.direction()
    }
}

impl View {
    fn is_due(&self, now: Timestamp) -> bool {
        let Some(last_t) = self.history.last_t() else { return false };
        let patience = (self.horizon.as_ms() / REFRESH_SHARE).min(self.history.span_ms() / 20);
        match self.computed {
            None => true,
            Some((at, from)) => last_t > from && now - at >= patience,
        }
    }

    fn ask(&self, limit: f64, (ceiling, direction): (f64, Direction), seed: u64) -> Result<Forecast, NotForecastable> {
        let question = Question {
            floor: Some(0.0),
            ceiling: Some(ceiling),
            points_max: BUCKETS_MAX,
            seed,
            ..Question::within(self.horizon.as_ms())
        };
        let outlook = forecast::forecast(&self.history.points(), &question)?;
        let left = outlook.time_to_limit(limit, direction);
        let horizon_seconds = self.horizon.as_ms() as f64 / 1000.0;
        Ok(Forecast {
            issued: outlook.issued,
            method: outlook.method,
            whole: outlook.reach_ms() * 10 >= self.horizon.as_ms() * 9,
            probability: left.probability_within(horizon_seconds),
            seconds: TIME_QUANTILES.map(|q| left.quantile(q).filter(|seconds| *seconds <= horizon_seconds)),
            values: outlook.values.last().copied().unwrap_or([outlook.last; QUANTILES.len()]),
        })
    }
}

fn window_ms(horizon: Span) -> i64 {
    let ms = horizon.as_ms();
    let window = if ms <= SHORT_HORIZON_MS { ms * 3 / 2 } else { (ms * WINDOW_PER_HORIZON).min(WINDOW_MS_MAX) };
    // The truth of a prediction must be in it when the prediction is settled.
    window.max(ms * 3 / 2)
}
