//! A look over a query's text before the parser sees it: refuses what would nest too deep for the recursion that
//! follows and durations that the parser cannot hold, and notes what its tree and its errors do not tell: where calls
//! stand, which bracket stays open, what of newer PromQL it does not know. It accepts no query by itself.

use crate::query::ast::Place;

/// Deepest nesting of brackets and operators. The deepest query that passes is evaluated within a stack of 2 MiB even
/// without optimisation (test `deep_queries_fit_a_small_stack`).
pub(super) const DEPTH_MAX: usize = 120;

const AGGREGATORS: [&str; 14] = [
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

/// Words whose parentheses hold labels or a number.
const LISTS: [&str; 9] =
    ["by", "without", "on", "ignoring", "group_left", "group_right", "fill", "fill_left", "fill_right"];

const OPERATORS: [&str; 4] = ["and", "or", "unless", "atan2"];

/// Longest duration in seconds, 300 years: sums of times, ranges and offsets stay far from overflow.
pub(super) const DURATION_S_MAX: f64 = 300.0 * 365.0 * 86_400.0;

/// What the look found.
pub(super) struct Scan {
    /// Offsets of function names and aggregators, in the order of the text.
    calls: Vec<usize>,
    /// The deepest the text nests.
    pub(super) depth: usize,
    /// A number stands for a duration that is too long.
    pub(super) too_long: bool,
    /// Newer PromQL that the parser does not know.
    pub(super) unknown: Option<&'static str>,
    /// The last bracket that is never closed, and where.
    unclosed: Option<(char, usize)>,
}

/// Looks over the text, until it nests deeper than [`DEPTH_MAX`].
pub(super) fn scan(text: &str) -> Scan {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        open: Vec::new(),
        operators: vec![0],
        depth: 0,
        found: Scan { calls: Vec::new(), depth: 0, too_long: false, unknown: None, unclosed: None },
    };
    while scanner.at < scanner.bytes.len() && scanner.depth <= DEPTH_MAX {
        scanner.step();
        scanner.found.depth = scanner.found.depth.max(scanner.depth);
    }
    scanner.found.unclosed = scanner.open.pop();
    scanner.found
}

impl Scan {
    /// Why the parser may have refused the text, where it says no more than that it did.
    pub(super) fn reason(&self, text: &str) -> Option<String> {
        let (bracket, at) = self.unclosed?;
        Some(format!("unclosed {bracket} at {}", place(text, at)))
    }

    /// Where the calls stand, if there are as many as the tree has, else nothing.
    pub(super) fn places(&self, text: &str) -> Vec<(Place, Place)> {
        self.calls.iter().map(|&at| (place(text, at), place(text, first_argument(text, at)))).collect()
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = &text.as_bytes()[..at];
    let line = before.split(|&b| b == b'\n').count();
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count();
    Place { line: line as u32, column: column as u32 + 1 }
}

/// Offset of the first byte after the opening parenthesis that is no space.
fn first_argument(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let open = bytes[at..].iter().position(|&b| b == b'(').map_or(at, |found| at + found + 1);
    bytes[open..].iter().position(|b| !b.is_ascii_whitespace()).map_or(at, |found| open + found)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Open brackets with their offsets.
    open: Vec<(char, usize)>,
    /// Operators seen in each open bracket since its last comma: the longest chain there could be.
    operators: Vec<usize>,
    /// Open brackets and all of `operators`.
    depth: usize,
    found: Scan,
}

impl Scanner<'_> {
    fn step(&mut self) {
        match self.bytes[self.at] {
            quote @ (b'"' | b'\'' | b'`') => return self.skip_text(quote),
            b'#' => return self.skip_while(|b| b != b'\n'),
            b'{' => return self.skip_braces(),
            bracket @ (b'(' | b'[') => self.open(char::from(bracket)),
            b')' | b']' => self.close(),
            b',' => self.forget_operators(),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' => return self.operator(),
            b if b.is_ascii_alphabetic() || b == b'_' || b == b':' => return self.word(),
            b if b.is_ascii_digit() || b == b'.' => return self.number(),
            _ => {}
        }
        self.at += 1;
    }

    fn open(&mut self, bracket: char) {
        self.open.push((bracket, self.at));
        self.operators.push(0);
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.operators.len() > 1 {
            self.open.pop();
            self.depth -= 1 + self.operators.pop().unwrap_or(0);
        }
    }

    fn forget_operators(&mut self) {
        if let Some(top) = self.operators.last_mut() {
            self.depth -= *top;
            *top = 0;
        }
    }

    fn operator(&mut self) {
        let two = self.bytes.get(self.at + 1) == Some(&b'=');
        self.at += if two { 2 } else { 1 };
        self.count_operator();
        if self.in_duration() {
            self.found.unknown = Some("arithmetic in a duration");
        }
    }

    /// Whether a range stands open: what is in it are durations.
    fn in_duration(&self) -> bool {
        self.open.last().is_some_and(|(bracket, _)| *bracket == '[')
    }

    /// A number or a duration; its letters are no word.
    fn number(&mut self) {
        let from = self.at;
        self.skip_while(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
        let text = String::from_utf8_lossy(&self.bytes[from..self.at]);
        if text.contains('_') {
            self.found.unknown = Some("an underscore in a number");
        }
        let before = self.bytes[..from].iter().rposition(|b| !b.is_ascii_whitespace() && !matches!(b, b'+' | b'-'));
        let after_offset = before.is_some_and(|end| self.bytes[..=end].to_ascii_lowercase().ends_with(b"offset"));
        let seconds = text.parse::<f64>().or_else(|_| hexadecimal(&text));
        let wide = seconds.is_ok_and(|seconds| seconds > DURATION_S_MAX);
        self.found.too_long |= wide && (self.in_duration() || after_offset);
    }

    fn count_operator(&mut self) {
        if let Some(top) = self.operators.last_mut() {
            *top += 1;
            self.depth += 1;
        }
    }

    fn word(&mut self) {
        let from = self.at;
        self.skip_while(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
        let word = String::from_utf8_lossy(&self.bytes[from..self.at]).to_ascii_lowercase();
        let next = self.bytes[self.at..].iter().find(|b| !b.is_ascii_whitespace());
        let after_at = self.bytes[..from].iter().rev().find(|b| !b.is_ascii_whitespace()) == Some(&b'@');
        if self.in_duration() && matches!(word.as_str(), "inf" | "nan") {
            self.found.too_long = true;
        } else if matches!(word.as_str(), "anchored" | "smoothed") {
            self.found.unknown = Some("`anchored` and `smoothed`");
        } else if OPERATORS.contains(&word.as_str()) {
            self.count_operator();
        } else if LISTS.contains(&word.as_str()) {
            if next == Some(&b'(') {
                self.skip_while(|b| b != b')');
                self.at = (self.at + 1).min(self.bytes.len());
            }
        } else if word == "offset" || word == "bool" || after_at {
            // Neither is a call, whatever follows.
        } else if AGGREGATORS.contains(&word.as_str()) || next == Some(&b'(') {
            self.found.calls.push(from);
        }
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && keep(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    fn skip_text(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.bytes.len() && self.bytes[self.at] != quote {
            let escaped = self.bytes[self.at] == b'\\' && quote != b'`';
            self.at += if escaped { 2 } else { 1 };
        }
        self.at = (self.at + 1).min(self.bytes.len());
    }

    fn skip_braces(&mut self) {
        self.open.push(('{', self.at));
        self.at += 1;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'}' {
            match self.bytes[self.at] {
                quote @ (b'"' | b'\'' | b'`') => self.skip_text(quote),
                _ => self.at += 1,
            }
        }
        if self.at < self.bytes.len() {
            self.open.pop();
            self.at += 1;
        }
    }
}

fn hexadecimal(text: &str) -> Result<f64, std::num::ParseIntError> {
    let digits = text.trim_start_matches("0x").trim_start_matches("0X");
    u128::from_str_radix(digits, 16).map(|number| number as f64)
}
