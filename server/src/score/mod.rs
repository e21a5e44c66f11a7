//! Score: every series is scored online as it arrives; small scores are stored as series.
