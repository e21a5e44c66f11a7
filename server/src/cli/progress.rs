//! How far a long command is, on standard error: on one line of a terminal, or as a line now and then in a log.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// How often a terminal is told.
const TERMINAL_EVERY: Duration = Duration::from_millis(500);
/// How often a log is told.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Tells now and then.
#[derive(Debug)]
pub struct Progress {
    told: Instant,
    on_terminal: bool,
    line_open: bool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { told: Instant::now(), on_terminal: std::io::stderr().is_terminal(), line_open: false }
    }
}

impl Progress {
    /// Tells where it is, if it is time to.
    pub fn tell(&mut self, words: impl FnOnce() -> String) {
        let every = if self.on_terminal { TERMINAL_EVERY } else { LOG_EVERY };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        if self.on_terminal {
            eprint!("\r\x1b[K{}", words());
            self.line_open = true;
        } else {
            eprintln!("petrel: {}", words());
        }
    }

    /// Leaves the line, so that what follows stands on its own.
    pub fn end(&mut self) {
        if self.line_open {
            eprint!("\r\x1b[K");
            self.line_open = false;
        }
    }
}

/// A number of bytes as people read it.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1536, 5 << 20, 7 << 40].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "7.0 TiB"]);
    }
}
