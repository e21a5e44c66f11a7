//! Host failure: accrual detection per heartbeat path, and the truth table from paths to a verdict.
