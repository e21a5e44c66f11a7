//! A look over a query's text before the parser sees it: refuses what would nest too deep for the recursion that
//! follows, and notes where calls stand, which the parser's tree does not tell. It accepts no query by itself.

use crate::query::ast::Place;

/// Deepest nesting of brackets and operators. The deepest query that passes is evaluated within a stack of 2 MiB even
/// without optimisation (test `deep_queries_fit_a_small_stack`).
pub(super) const DEPTH_MAX: usize = 200;

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

/// What the look found.
pub(super) struct Scan {
    /// Offsets of function names and aggregators, in the order of the text.
    calls: Vec<usize>,
}

/// Looks over the text.
///
/// # Errors
/// The depth that was met, if above [`DEPTH_MAX`].
pub(super) fn scan(text: &str) -> Result<Scan, usize> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, operators: vec![0], depth: 0, calls: Vec::new() };
    while scanner.at < scanner.bytes.len() {
        scanner.step();
        if scanner.depth > DEPTH_MAX {
            return Err(scanner.depth);
        }
    }
    Ok(Scan { calls: scanner.calls })
}

impl Scan {
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
    /// Operators seen in each open bracket since its last comma: the longest chain there could be.
    operators: Vec<usize>,
    /// Open brackets and all of `operators`.
    depth: usize,
    calls: Vec<usize>,
}

impl Scanner<'_> {
    fn step(&mut self) {
        match self.bytes[self.at] {
            quote @ (b'"' | b'\'' | b'`') => return self.skip_text(quote),
            b'#' => return self.skip_while(|b| b != b'\n'),
            b'{' => return self.skip_braces(),
            b'(' | b'[' => self.open(),
            b')' | b']' => self.close(),
            b',' => self.forget_operators(),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' => return self.operator(),
            b if b.is_ascii_alphabetic() || b == b'_' || b == b':' => return self.word(),
            // A number or a duration: its letters are no word.
            b if b.is_ascii_digit() || b == b'.' => return self.skip_while(|b| b.is_ascii_alphanumeric() || b == b'.'),
            _ => {}
        }
        self.at += 1;
    }

    fn open(&mut self) {
        self.operators.push(0);
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.operators.len() > 1 {
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
        if OPERATORS.contains(&word.as_str()) {
            self.count_operator();
        } else if LISTS.contains(&word.as_str()) {
            if next == Some(&b'(') {
                self.skip_while(|b| b != b')');
                self.at = (self.at + 1).min(self.bytes.len());
            }
        } else if word == "offset" || word == "bool" || after_at {
            // Neither is a call, whatever follows.
        } else if AGGREGATORS.contains(&word.as_str()) || next == Some(&b'(') {
            self.calls.push(from);
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
        self.at += 1;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'}' {
            match self.bytes[self.at] {
                quote @ (b'"' | b'\'' | b'`') => self.skip_text(quote),
                _ => self.at += 1,
            }
        }
        self.at = (self.at + 1).min(self.bytes.len());
    }
}
