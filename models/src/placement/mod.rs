//! Placement: where the guests of a host can go so that the loss of one more host would still fit.
