//! What is noted on the way of one request, where the HTTP client has no word for it: how long the name took, when the
//! certificate ends, how often it was sent elsewhere. One request of a client runs at a time, so the notes are of that one.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Notes on the request that runs.
#[derive(Debug, Default)]
pub struct Noted {
    lookup_us: AtomicU64,
    /// Seconds since 1970; 0: no certificate was seen.
    certificate_end: AtomicI64,
    redirects: AtomicU32,
}

impl Noted {
    /// Before a request: nothing is noted.
    pub fn clear(&self) {
        self.lookup_us.store(0, Ordering::Relaxed);
        self.certificate_end.store(0, Ordering::Relaxed);
        self.redirects.store(0, Ordering::Relaxed);
    }

    pub(super) fn looked_up(&self, took: Duration) {
        self.lookup_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn certificate_ends(&self, end: Option<i64>) {
        self.certificate_end.store(end.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn redirected(&self) {
        self.redirects.fetch_add(1, Ordering::Relaxed);
    }

    /// Time that looking up names took.
    pub fn lookup(&self) -> Duration {
        Duration::from_micros(self.lookup_us.load(Ordering::Relaxed))
    }

    /// The earliest end of the certificates that the server showed last, in seconds since 1970.
    pub fn certificate_end(&self) -> Option<i64> {
        Some(self.certificate_end.load(Ordering::Relaxed)).filter(|end| *end != 0)
    }

    /// How often the request was sent elsewhere.
    pub fn redirects(&self) -> u32 {
        self.redirects.load(Ordering::Relaxed)
    }
}
