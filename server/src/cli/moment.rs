//! Times on the command line: as Petrel prints them, as the API takes them, or so long ago.

use chrono::{Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};
use petrel_agent::units::Span;

use crate::api::prometheus::params::parse_time;
use crate::clock;
use crate::series::Timestamp;

/// A time, for an option of the command line.
///
/// # Errors
/// What the option takes.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    read(text, clock::wall()()).ok_or_else(|| {
        "take `now`, a time ago such as `5m` or `2h`, `2026-01-31` with or without ` 12:30:00` (local), RFC 3339, or Unix seconds"
            .to_owned()
    })
}

fn read(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    if let Some(at) = parse_time(text) {
        return Some(at);
    }
    if let Ok(ago) = text.strip_prefix('-').unwrap_or(text).parse::<Span>() {
        return now.checked_sub(ago.as_ms());
    }
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"))
        .or_else(|_| text.parse::<NaiveDate>().map(|date| date.and_time(NaiveTime::MIN)))
        .ok()?;
    Local.from_local_datetime(&local).earliest().map(|at| at.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_petrel_prints_and_people_type_is_read() {
        let now = 1_790_000_000_000;
        let printed = |ms: i64| Local.timestamp_millis_opt(ms).unwrap().format("%Y-%m-%d %H:%M:%S").to_string();
        assert_eq!(read(&printed(now), now), Some(now));
        let midnight = printed(now)[..10].to_owned();
        assert_eq!(read(&midnight, now), read(&format!("{midnight} 00:00"), now));
        for (text, at) in [
            ("now", Some(now)),
            ("5m", Some(now - 300_000)),
            ("-1h30m", Some(now - 5_400_000)),
            ("0", Some(0)),
            ("1790000000.5", Some(now + 500)),
            ("2026-09-21T13:33:20Z", Some(1_789_997_600_000)),
            ("noon", None),
            ("2026-02-30", None),
            ("", None),
        ] {
            assert_eq!(read(text, now), at, "{text}");
        }
    }
}
