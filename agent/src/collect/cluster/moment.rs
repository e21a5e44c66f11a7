//! Times as cluster tools print them: `Sun Nov 22 22:31:05 2026` in the host's zone, or `2026-11-22 22:31:02Z`.

use crate::collect::zone::{Zone, days_from_civil};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since the epoch; `None` for what is no such time.
pub(super) fn seconds(text: &str, zone: &Zone) -> Option<f64> {
    let text = text.trim();
    let seconds =
        if text.starts_with(|letter: char| letter.is_ascii_digit()) { iso(text, zone) } else { asctime(text, zone) };
    seconds.map(|seconds| seconds as f64)
}

/// Weekday, month, day, time, year.
fn asctime(text: &str, zone: &Zone) -> Option<i64> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let (month, day, clock, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    Some(zone.to_utc(days(year, &month.to_string(), day)? * 86_400 + clock_seconds(clock)?))
}

/// Date, time, and `Z`, `+01:00`, ` +01:00` or nothing for the host's zone.
fn iso(text: &str, zone: &Zone) -> Option<i64> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    let mut parts = date.splitn(3, '-');
    let day = days(parts.next()?, parts.next()?, parts.next()?)?;
    let local = day * 86_400 + clock_seconds(rest.get(..8)?)?;
    let offset =
        rest.get(8..)?.trim_start_matches(|letter: char| letter == '.' || letter.is_ascii_digit()).trim_start();
    match offset.as_bytes() {
        [] => Some(zone.to_utc(local)),
        [b'Z', ..] => Some(local),
        [sign @ (b'+' | b'-'), ..] => {
            let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
            let (hours, minutes) = (digits.get(..2)?, digits.get(2..4)?);
            let seconds = number(hours, 23)? * 3600 + number(minutes, 59)? * 60;
            Some(if *sign == b'+' { local - seconds } else { local + seconds })
        }
        _ => None,
    }
}

fn days(year: &str, month: &str, day: &str) -> Option<i64> {
    let (month, day) = (number(month, 12)?, number(day, 31)?);
    (month >= 1 && day >= 1).then_some(days_from_civil(number(year, 9999)?, month, day))
}

fn clock_seconds(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let mut part = |max| number(parts.next()?, max);
    // A leap second is 60.
    Some(part(23)? * 3600 + part(59)? * 60 + part(60)?)
}

fn number(text: &str, max: i64) -> Option<i64> {
    let number = text.parse().ok()?;
    (0..=max).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, seconds_expected) in [
            ("Sun Nov 22 22:31:05 2026", Some(1_795_386_665.0)),
            ("Sun Nov  2 22:31:05 2026", Some(1_793_658_665.0)),
            ("2026-11-22 22:31:02Z", Some(1_795_386_662.0)),
            ("2026-11-22 23:31:02 +01:00", Some(1_795_386_662.0)),
            ("2026-11-22 21:31:02.123456-01:00", Some(1_795_386_662.0)),
            ("2026-11-22T22:31:02", Some(1_795_386_662.0)),
            ("Sun Foo 22 22:31:05 2026", None),
            ("2026-13-22 22:31:02Z", None),
            ("never", None),
            ("", None),
        ] {
            assert_eq!(seconds(text, &Zone::utc()), seconds_expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "\\PC{0,40}", like in "[0-9A-Z:+\\- .é]{0,30}") {
            seconds(&text, &Zone::utc());
            seconds(&like, &Zone::utc());
        }
    }
}
