//! Stream: batches out to the server at least once, orders in on a long-lived request.

pub mod protocol;
