//! Outlooks: quantiles and sample paths over a horizon, and the time to a limit.
