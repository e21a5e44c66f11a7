//! Predict: outlooks of what can run out, and the ledger that settles each prediction.
