//! Durations and sizes as people write them in config: `30s`, `1h30m`, `512MiB`. Shared by agent and server.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time in config, written as Prometheus does: `90s`, `1h30m`, `15d`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes in config: `512MiB`, `64KiB`, `1GB`, or plain digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Why a span or a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnitError {
    /// Not a span.
    #[error("`{0}` is not a duration; write for example 30s, 5m, 1h30m or 15d")]
    Span(String),
    /// Not a size.
    #[error("`{0}` is not a size; write for example 64KiB, 512MiB, 2GiB or a number of bytes")]
    Bytes(String),
}

/// Units of a span, longest first, in milliseconds. `y` is 365 days, as in Prometheus.
const SPAN_UNITS: [(&str, u64); 7] = [
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of a size, in bytes.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl Span {
    /// The span in whole milliseconds.
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Span {
    type Err = ParseUnitError;

    /// Reads number and unit pairs, each unit at most once and from long to short; `0` alone is allowed.
    fn from_str(text: &str) -> Result<Span, ParseUnitError> {
        let wrong = || ParseUnitError::Span(text.to_owned());
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let (mut rest, mut total_ms, mut smallest) = (text, 0u64, u64::MAX);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let &(_, unit_ms) = SPAN_UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?;
            if unit_ms >= smallest {
                return Err(wrong());
            }
            smallest = unit_ms;
            total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(wrong)?;
            rest = &rest[letters..];
        }
        if smallest == u64::MAX { Err(wrong()) } else { Ok(Span(Duration::from_millis(total_ms))) }
    }
}

impl FromStr for Bytes {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Bytes, ParseUnitError> {
        let wrong = || ParseUnitError::Bytes(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = text[digits..].trim();
        let &(_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(factor).map(Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest_ms == 0 {
            return f.write_str("0s");
        }
        for (name, unit_ms) in SPAN_UNITS {
            // As Prometheus prints them: 15d, not 2w1d; years and weeks only where nothing is left over.
            let exact_only = matches!(name, "y" | "w");
            if rest_ms >= unit_ms && !(exact_only && rest_ms % unit_ms != 0) {
                write!(f, "{}{name}", rest_ms / unit_ms)?;
                rest_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary =
            BYTE_UNITS[1..6].iter().rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match binary {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print() {
        for (text, ms) in
            [("30s", 30_000), ("1h30m", 5_400_000), ("15d", 1_296_000_000), ("250ms", 250), ("1m1ms", 60_001)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.as_ms(), span.to_string()), (ms, text.to_owned()));
        }
        for text in ["", "s", "10", "1s1m", "1m1m", "-1s", "1.5h", "9999999999999999y"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, shown) in
            [("512MiB", 512 << 20, "512MiB"), ("1GB", 1_000_000_000, "1000000000B"), ("7", 7, "7B")]
        {
            let size: Bytes = text.parse().unwrap();
            assert_eq!((size.0, size.to_string()), (bytes, shown.to_owned()));
        }
        for text in ["", "MiB", "1XiB", "-1", "99999999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
