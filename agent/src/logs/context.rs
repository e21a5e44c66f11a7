//! The lines around a line that travels whole: some before it, some after, each once. Bounded: so many lines of one source,
//! each cut. Lives in memory alone: after a crash the lines before are gone, though they were counted.

use petrel_models::Timestamp;

use super::Severity;

/// A line that did not travel by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) at: Timestamp,
    pub(super) severity: Severity,
    pub(super) template: u64,
    pub(super) body: String,
}

/// The last lines of one source.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// A ring: its strings are used again and again.
    ring: Vec<Kept>,
    next: usize,
    held: usize,
    /// Lines that still go with the last one that travelled.
    after: usize,
}

/// Longest line of context.
const BODY_BYTES_MAX: usize = 1024;

impl Context {
    /// Keeps so many lines before and after.
    pub(super) fn new(lines: usize) -> Context {
        let empty = Kept { at: 0, severity: Severity::Info, template: 0, body: String::new() };
        Context { ring: vec![empty; lines], next: 0, held: 0, after: 0 }
    }

    /// A line that does not travel by itself: says whether it goes along with the one before it. Otherwise it is kept.
    pub(super) fn quiet(&mut self, at: Timestamp, severity: Severity, template: u64, body: &str) -> bool {
        if self.after > 0 {
            self.after -= 1;
            return true;
        }
        let lines = self.ring.len();
        if let Some(slot) = self.ring.get_mut(self.next) {
            (slot.at, slot.severity, slot.template) = (at, severity, template);
            slot.body.clear();
            slot.body.push_str(cut(body));
            self.next = (self.next + 1) % lines;
            self.held = (self.held + 1).min(lines);
        }
        false
    }

    /// A line travels: hands out those before it, oldest first, and lets as many after it go along.
    pub(super) fn loud(&mut self, hand_out: &mut dyn FnMut(&Kept)) {
        let lines = self.ring.len();
        for place in 0..self.held {
            hand_out(&self.ring[(self.next + lines - self.held + place) % lines]);
        }
        self.held = 0;
        self.after = lines;
    }
}

/// The line as context: bounded.
pub(super) fn cut(body: &str) -> &str {
    let end = (0..=body.len().min(BODY_BYTES_MAX)).rev().find(|&end| body.is_char_boundary(end));
    &body[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_goes_along_once() {
        let mut context = Context::new(2);
        let mut seen = Vec::new();
        for line in ["a", "b", "c", "!1", "d", "!2", "e", "f", "g", "h", "i", "!3"] {
            if line.starts_with('!') {
                context.loud(&mut |kept| seen.push(kept.body.clone()));
                seen.push(line.to_owned());
            } else if context.quiet(0, Severity::Info, 1, line) {
                seen.push(line.to_owned());
            }
        }
        assert_eq!(seen.join(""), "bc!1d!2efhi!3");
        assert!(!Context::new(0).quiet(0, Severity::Info, 1, "x"));
        assert_eq!(cut(&"é".repeat(600)).len(), 1024);
    }
}
