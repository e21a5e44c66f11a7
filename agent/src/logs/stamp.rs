//! The head of a line: syslog priority, time stamp, host name. What does not look like one belongs to the message.

use petrel_models::Timestamp;

use crate::collect::zone::{Zone, civil_from_days, days_from_civil};

/// A line, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// When the line says it was written.
    pub(super) at: Option<Timestamp>,
    /// Syslog priority: facility times eight plus severity.
    pub(super) priority: Option<u8>,
    /// What is left, with the program's name.
    pub(super) message: &'a str,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_MS: i64 = 86_400_000;
/// A stamp further ahead of the reader's clock is not believed, as the server would refuse it.
const AHEAD_MS: i64 = 600_000;

/// Takes a line apart. `zone` is for stamps without one; `now` gives the year to stamps without one.
pub(super) fn read<'a>(line: &'a str, now: Timestamp, zone: &Zone) -> Head<'a> {
    let (priority, rest) = priority(line);
    // RFC 5424 has its version between priority and stamp.
    let rest = if priority.is_some() { rest.strip_prefix("1 ").unwrap_or(rest) } else { rest };
    let unbracketed = rest.strip_prefix('[').unwrap_or(rest);
    let Some((at, after)) = iso(unbracketed, zone).or_else(|| rfc3164(unbracketed, now, zone)) else {
        return Head { at: None, priority, message: rest };
    };
    let after = after.strip_prefix(']').unwrap_or(after).trim_start();
    let at = Some(at).filter(|at| *at <= now + AHEAD_MS);
    Head { at, priority, message: without_host(after) }
}

/// `<34>`: a number up to 191.
fn priority(line: &str) -> (Option<u8>, &str) {
    let parts = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let Some((digits, rest)) = parts.filter(|(digits, _)| digits.len() <= 3) else { return (None, line) };
    match digits.parse::<u8>() {
        Ok(priority) if priority <= 191 => (Some(priority), rest),
        _ => (None, line),
    }
}

/// `2026-11-22T12:42:01.123456+01:00`, `2026-11-22 12:42:01,123`, with or without fraction and zone.
fn iso<'a>(text: &'a str, zone: &Zone) -> Option<(Timestamp, &'a str)> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes[4] != b'-' || bytes[7] != b'-' || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let second = day_second(&bytes[11..19])?;
    let (fraction_ms, rest) = fraction(text.get(19..)?);
    let local_ms = (date(year, month, day)? * 86_400 + second) * 1000 + fraction_ms;
    match offset(rest) {
        Some((offset_seconds, rest)) => Some((local_ms - offset_seconds * 1000, rest)),
        None => Some((zone.to_utc(local_ms.div_euclid(1000)) * 1000 + local_ms.rem_euclid(1000), rest)),
    }
}

/// `Nov  2 12:42:01`, in the year that brings it closest to now without lying ahead by more than a day.
fn rfc3164<'a>(text: &'a str, now: Timestamp, zone: &Zone) -> Option<(Timestamp, &'a str)> {
    let bytes = text.as_bytes();
    if bytes.len() < 15 || bytes[3] != b' ' || bytes[6] != b' ' {
        return None;
    }
    let month = MONTHS.iter().position(|name| name.as_bytes() == &bytes[..3])? as i64 + 1;
    let day = if bytes[4] == b' ' { number(&bytes[5..6])? } else { number(&bytes[4..6])? };
    let second = day_second(&bytes[7..15])?;
    let (fraction_ms, rest) = fraction(text.get(15..)?);
    let this_year = civil_from_days(now.div_euclid(DAY_MS)).0;
    let in_year = |year| {
        let local = date(year, month, day)? * 86_400 + second;
        Some(zone.to_utc(local) * 1000 + fraction_ms)
    };
    let at =
        [this_year + 1, this_year, this_year - 1].into_iter().filter_map(in_year).find(|at| *at <= now + DAY_MS)?;
    Some((at, rest))
}

/// The program that a message's tag names, and what it says: `sshd[12]: text`, `kernel: [ 12.5] text`. Without a tag the
/// program is empty.
pub(super) fn program(message: &str) -> (&str, &str) {
    let tag = message.split(' ').next().unwrap_or_default();
    let Some(name) = tag.strip_suffix(':') else { return ("", message) };
    let name = name.split('[').next().unwrap_or(name);
    let text = message[tag.len()..].trim_start();
    (name, if name == "kernel" { without_uptime(text) } else { text })
}

/// Leaves out the seconds since boot that the kernel puts before its messages: their width differs from line to line.
fn without_uptime(text: &str) -> &str {
    let Some((inside, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else { return text };
    let is_number = inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'.');
    if is_number { rest } else { text }
}

/// Leaves out a host name, which stands between the stamp and a word such as `sshd[12]:`.
fn without_host(text: &str) -> &str {
    let Some((_, rest)) = text.split_once(' ') else { return text };
    let second = rest.trim_start().split(' ').next().unwrap_or_default();
    let first_is_tag = text.split(' ').next().is_some_and(|first| first.ends_with(':'));
    if second.ends_with(':') && !first_is_tag { rest.trim_start() } else { text }
}

/// Days since the epoch; `None` for no such date.
fn date(year: i64, month: i64, day: i64) -> Option<i64> {
    let days = days_from_civil(year, month, day);
    ((1..=12).contains(&month) && civil_from_days(days) == (year, month, day)).then_some(days)
}

/// `12:42:01`.
fn day_second(bytes: &[u8]) -> Option<i64> {
    let (hour, minute, second) = (number(&bytes[..2])?, number(&bytes[3..5])?, number(&bytes[6..8])?);
    let fits = bytes[2] == b':' && bytes[5] == b':' && hour < 24 && minute < 60 && second <= 60;
    fits.then_some(hour * 3600 + minute * 60 + second)
}

/// `.123456` or `,123`, in milliseconds.
fn fraction(text: &str) -> (i64, &str) {
    let Some(digits) = text.strip_prefix(['.', ',']) else { return (0, text) };
    let length = digits.bytes().take_while(u8::is_ascii_digit).count();
    let ms = digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(3)
        .enumerate()
        .fold(0, |sum, (place, byte)| sum * 10 + if place < length { i64::from(byte - b'0') } else { 0 });
    if length == 0 { (0, text) } else { (ms, &digits[length..]) }
}

/// `Z`, `+01:00`, `+0100`, in seconds.
fn offset(text: &str) -> Option<(i64, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = &text.as_bytes()[1..];
    let hours = number(digits.get(..2)?)?;
    let minutes_at = if digits.get(2) == Some(&b':') { 3 } else { 2 };
    let minutes = number(digits.get(minutes_at..minutes_at + 2)?)?;
    Some((sign * (hours * 3600 + minutes * 60), text.get(1 + minutes_at + 2..)?))
}

fn number(digits: &[u8]) -> Option<i64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// 2026-11-22T12:42:30Z.
    const NOW: Timestamp = 1_795_351_350_000;

    fn check(lines: &str, expected: &Expect) {
        let shown = |line| {
            let head = read(line, NOW, &Zone::utc());
            let at = head.at.map_or("-".to_owned(), |at| format!("{:+}", at - NOW));
            format!("{at} {:?} {}\n", head.priority, head.message)
        };
        expected.assert_eq(&lines.lines().map(shown).collect::<Vec<_>>().concat());
    }

    #[test]
    fn heads() {
        check(
            "\
Nov 22 12:42:01 web1 sshd[123]: Failed password
Nov  2 12:42:01 web1 kernel: [ 12.5] oops
Dec 31 23:59:59 web1 cron: last year
Nov 22 12:42:01 sshd[123]: no host: here
2026-11-22T12:42:01.123456+00:00 web1 systemd[1]: Started x.
2026-11-22T13:42:01+01:00 web1 su: y
2026-11-22 12:42:01,5 ERROR [main] z
[2026-11-22T12:42:01Z] bracketed
<34>1 2026-11-22T12:42:01Z host app - - - rfc5424
<13>Nov 22 12:42:01 host app: bsd
<999>not a priority
2027-11-22T12:42:01Z from the future
2026-02-30T12:42:01Z no such day
2026-11-22T25:00:00Z no such hour
Nov 22
plain",
            &expect![[r"
                -29000 None sshd[123]: Failed password
                -1728029000 None kernel: [ 12.5] oops
                -28125751000 None cron: last year
                -29000 None sshd[123]: no host: here
                -28877 None systemd[1]: Started x.
                -29000 None su: y
                -28500 None ERROR [main] z
                -29000 None bracketed
                -29000 Some(34) host app - - - rfc5424
                -29000 Some(13) app: bsd
                - None <999>not a priority
                - None from the future
                - None 2026-02-30T12:42:01Z no such day
                - None 2026-11-22T25:00:00Z no such hour
                - None Nov 22
                - None plain
            "]],
        );
    }

    #[test]
    fn programs() {
        for (message, expected) in [
            ("sshd[123]: Failed", ("sshd", "Failed")),
            ("kernel: [   12.345678] oops", ("kernel", "oops")),
            ("kernel: [drm] text", ("kernel", "[drm] text")),
            ("kernel:", ("kernel", "")),
            ("no tag here", ("", "no tag here")),
            ("", ("", "")),
        ] {
            assert_eq!(program(message), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,40}", stamp in "[A-Z][a-z]{2} [ 0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\PC{0,9}",
                        iso in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.,Z+-]{0,1}[0-9:é]{0,7}") {
            for text in [line, stamp, iso] {
                program(read(&text, NOW, &Zone::utc()).message);
            }
        }
    }
}
