//! Labels: one label set as one block of bytes.
//!
//! The block is what Prometheus remote write 1.0 carries as the labels of a series: a sequence of protobuf fields
//! `0x0a length {0x0a length name 0x12 length value}`, sorted by name. So a receiver compares and hashes what came off the wire
//! with what is known, without decoding either, and a set of seven labels costs one allocation. Only sets made by
//! [`Labels::new`], [`Labels::from_wire`] and their like exist: every block is well-formed, sorted, unique and without empty values.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::NAME;

/// Field 1 of a message, length-delimited: a label in a series, and the name in a label.
const FIELD_1: u8 = 0x0a;
/// Field 2 of a message, length-delimited: the value in a label.
const FIELD_2: u8 = 0x12;

/// A label set: names are unique and sorted, empty values are absent. Cheap to clone; equality and hash are those of its bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

/// The same bytes have the same hash, so that maps keyed by label sets can be asked with bytes off the wire.
impl Borrow<[u8]> for Labels {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Labels {
        Labels(Arc::from([]))
    }

    /// Sorts the pairs by name and leaves out empty values. Of a name given twice the last value stands.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Labels {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        // A stable sort of the reversed list puts the last value given first among equals, where dedup keeps it.
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        pairs.dedup_by(|later, kept| later.0.as_ref() == kept.0.as_ref());
        Labels::of_sorted(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
    }

    /// Takes a block off the wire as it is. `None` where it is not exactly what [`Labels::new`] makes of its pairs:
    /// then read the pairs one by one. O(bytes).
    pub fn from_wire(bytes: &[u8]) -> Option<Labels> {
        let mut rest = bytes;
        let mut before: Option<&str> = None;
        while !rest.is_empty() {
            let (name, value, after) = checked_pair(rest)?;
            if value.is_empty() || before.is_some_and(|before| before >= name) {
                return None;
            }
            (before, rest) = (Some(name), after);
        }
        Some(Labels(bytes.into()))
    }

    /// The block, as remote write carries it.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The value of a label, `None` where absent. O(n).
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut rest = &*self.0;
        while let Some((found, value, after)) = pair(rest) {
            match found.cmp(name.as_bytes()) {
                Ordering::Less => rest = after,
                Ordering::Equal => return std::str::from_utf8(value).ok(),
                Ordering::Greater => break,
            }
        }
        None
    }

    /// The metric name, empty where absent.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or("")
    }

    /// All pairs in the order of names.
    pub fn iter(&self) -> Pairs<'_> {
        Pairs { rest: &self.0 }
    }

    /// The set without the labels that `drop` names. O(n).
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Labels {
        Labels::of_sorted(self.iter().filter(|(name, _)| !drop(name)))
    }

    /// The set with one label set, or removed where `value` is empty. O(n).
    pub fn with(&self, name: &str, value: &str) -> Labels {
        Labels::new(self.iter().chain(std::iter::once((name, value))))
    }

    /// Number of labels. O(n).
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
        let mut block = Vec::with_capacity(160);
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            Labels::put_wire(&mut block, name.as_bytes(), value.as_bytes());
        }
        Labels(block.into())
    }

    /// Adds a label to a block that is to be looked up, not checked: [`Labels::from_wire`] tells what a block must be.
    pub fn put_wire(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let length = 2 + length_bytes(name.len()) + name.len() + length_bytes(value.len()) + value.len();
        block.push(FIELD_1);
        put_length(block, length);
        block.push(FIELD_1);
        put_length(block, name.len());
        block.extend_from_slice(name);
        block.push(FIELD_2);
        put_length(block, value.len());
        block.extend_from_slice(value);
    }
}

/// As Prometheus sorts: by the first name or value that differs; a set before those that begin with it.
impl Ord for Labels {
    fn cmp(&self, other: &Labels) -> Ordering {
        let (mut ours, mut theirs) = (&*self.0, &*other.0);
        loop {
            match (pair(ours), pair(theirs)) {
                (Some(left), Some(right)) => {
                    let order = (left.0, left.1).cmp(&(right.0, right.1));
                    if order.is_ne() {
                        return order;
                    }
                    (ours, theirs) = (left.2, right.2);
                }
                (left, right) => return left.is_some().cmp(&right.is_some()),
            }
        }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Labels) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}

/// The pairs of a label set in the order of names.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        // The block was checked or built by us; one that were not would end here, not panic.
        let (name, value, rest) = pair(self.rest)?;
        self.rest = rest;
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    }
}

/// Prometheus' notation: `name{label="value", …}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut rest = self.iter().filter(|(name, _)| *name != NAME).peekable();
        if rest.peek().is_none() && !self.name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (name, value)) in rest.enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first pair of a block and what follows it; `None` at the end.
fn pair(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (label, rest) = field(FIELD_1, block)?;
    let (name, label) = field(FIELD_1, label)?;
    let (value, _) = field(FIELD_2, label)?;
    Some((name, value, rest))
}

/// As [`pair`], where every byte is where [`Labels::of_sorted`] would put it.
fn checked_pair(block: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (name, value, rest) = pair(block)?;
    let inner = 2 + length_bytes(name.len()) + name.len() + length_bytes(value.len()) + value.len();
    let whole = 1 + length_bytes(inner) + inner;
    if block.len() - rest.len() != whole {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?, rest))
}

/// A length-delimited field with this tag and what follows it.
fn field(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 { (usize::from(first), rest) } else { long_length(first, rest)? };
    rest.split_at_checked(length)
}

/// The rest of a length of more than one byte.
fn long_length(first: u8, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = usize::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let (&byte, after) = rest.split_first()?;
        length |= usize::from(byte & 0x7f) << shift;
        rest = after;
        if byte < 0x80 {
            return Some((length, rest));
        }
    }
    None
}

fn length_bytes(length: usize) -> usize {
    // Seven bits a byte; nothing takes one byte too.
    (usize::BITS - (length | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_sorted_unique_and_not_empty() {
        let labels = Labels::new([("b", "2"), ("a", "0"), ("c", ""), ("a", "1")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!((labels.get("a"), labels.get("c"), labels.get("aa"), labels.len()), (Some("1"), None, None, 2));
        assert_eq!(labels.as_wire(), b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012");
        assert_eq!(labels.with("a", "").with("d", "4"), Labels::new([("b", "2"), ("d", "4")]));
        assert_eq!(labels.without(|name| name == "b"), Labels::new([("a", "1")]));
        assert!(Labels::empty().is_empty() && Labels::new([("a", "")]) == Labels::empty());
    }

    #[test]
    fn only_the_one_form_is_taken_off_the_wire() {
        let block = |pairs: &[(&str, &str)]| {
            let one = |(name, value): &(&str, &str)| Labels::new([(name, value)]).as_wire().to_vec();
            pairs.iter().flat_map(one).collect::<Vec<u8>>()
        };
        assert_eq!(Labels::from_wire(&block(&[("a", "1"), ("b", "2")])), Some(Labels::new([("a", "1"), ("b", "2")])));
        for wrong in [
            block(&[("b", "2"), ("a", "1")]),
            block(&[("a", "1"), ("a", "1")]),
            b"\x0a\x05\x0a\x01a\x12\x00".to_vec(),
            b"\x0a\x03\x0a\x01a".to_vec(),
            b"\x0a\x86\x00\x0a\x01a\x12\x011".to_vec(),
            b"\x0a\x06\x0a\x01\xff\x12\x011".to_vec(),
            b"\x0a\x08\x0a\x01a\x12\x011\x18\x00".to_vec(),
            b"\x0a\x06\x12\x01a\x0a\x011".to_vec(),
            b"\x0a".to_vec(),
        ] {
            assert_eq!(Labels::from_wire(&wrong), None, "{wrong:x?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_pairs(
            a in prop::collection::vec(("[ab]{1,3}", "[ab]{0,3}"), 0..4),
            b in prop::collection::vec(("[ab]{1,3}", "[ab]{0,3}"), 0..4),
        ) {
            let (a, b) = (Labels::new(a), Labels::new(b));
            prop_assert_eq!(a.cmp(&b), a.iter().cmp(b.iter()));
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        }

        #[test]
        fn long_values_come_back(name in "[a-z]{1,200}", length in 0usize..40_000) {
            let value = "x".repeat(length);
            let labels = Labels::new([(name.as_str(), value.as_str())]);
            prop_assert_eq!(labels.get(&name).unwrap_or(""), value);
            prop_assert_eq!(Labels::from_wire(labels.as_wire()), Some(labels));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(labels) = Labels::from_wire(&bytes) {
                prop_assert_eq!(Labels::new(labels.iter()), labels);
            }
        }
    }
}
