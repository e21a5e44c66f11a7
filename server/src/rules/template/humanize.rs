//! Prometheus' number formats for people. The thresholds and the digits are Prometheus' own, so that texts stay the same.

use super::format::general;

/// Powers of a thousand, upwards and downwards.
const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
/// Powers of 1024, as Prometheus writes them.
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

fn four(value: f64) -> String {
    general(value, Some(4))
}

/// `1234567` → `1.235M`, `0.0012` → `1.2m`.
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four(value);
    }
    let (value, prefix) = if value.abs() >= 1.0 { scale_down(value, 1000.0, &LARGE) } else { scale_up(value) };
    format!("{}{prefix}", four(value))
}

/// `1048576` → `1Mi`.
pub(super) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return four(value);
    }
    let (value, prefix) = scale_down(value, 1024.0, &BINARY);
    format!("{}{prefix}", four(value))
}

/// Seconds: `3661` → `1h 1m 1s`, `0.002` → `2ms`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return four(seconds);
    }
    if seconds == 0.0 {
        return "0s".to_owned();
    }
    if seconds.abs() < 1.0 {
        let (value, prefix) = scale_up(seconds);
        return format!("{}{prefix}s", four(value));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let whole = seconds.abs() as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four(seconds.abs())),
        (0, 0, _) => format!("{sign}{minutes}m {rest}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {rest}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {rest}s"),
    }
}

/// `0.1234` → `12.34%`.
pub(super) fn percentage(ratio: f64) -> String {
    format!("{}%", four(ratio * 100.0))
}

/// Unix seconds → `2015-11-20 03:31:04.123 +0000 UTC`.
pub(super) fn timestamp(seconds: f64) -> Option<String> {
    if !seconds.is_finite() {
        return Some(four(seconds));
    }
    let nanoseconds = seconds * 1e9;
    if nanoseconds.abs() >= i64::MAX as f64 {
        return None;
    }
    let time = chrono::DateTime::from_timestamp_nanos(nanoseconds as i64);
    let text = time.format("%Y-%m-%d %H:%M:%S%.9f").to_string();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    Some(format!("{text} +0000 UTC"))
}

fn scale_down(mut value: f64, step: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    (value, prefix)
}

fn scale_up(mut value: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    (value, prefix)
}
