//! The host's time zone, read from its TZif file (RFC 8536): offsets for the `time` collector and for
//! log lines whose stamps are local.
//! Only the version 2 data and the common form of the footer are understood; all else means UTC.

use std::path::Path;

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    /// When an offset begins, in seconds since the epoch, and its index in `offsets`; ascending.
    transitions: Vec<(i64, u8)>,
    offsets: Vec<LocalOffset>,
    /// What holds after the last transition.
    rule: Option<Rule>,
}

/// What clocks on the wall show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalOffset {
    /// Seconds to add to UTC.
    pub(crate) offset_seconds: i32,
    /// Abbreviation, for example `CET`.
    pub(crate) name: String,
}

/// The footer, for example `CET-1CEST,M3.5.0,M10.5.0/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    standard: LocalOffset,
    summer: Option<(LocalOffset, Change, Change)>,
}

/// `M3.5.0/2`: month, week (5 is the last), day of the week (0 is Sunday), local time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    month: i64,
    week: i64,
    weekday: i64,
    seconds: i64,
}

/// A zone file has at most some hundred transitions; more than this is no zone file.
const TRANSITIONS_MAX: usize = 10_000;
const DAY_SECONDS: i64 = 86_400;

impl Zone {
    /// Coordinated universal time.
    pub(crate) fn utc() -> Zone {
        let standard = LocalOffset { offset_seconds: 0, name: "UTC".to_owned() };
        Zone { transitions: Vec::new(), offsets: Vec::new(), rule: Some(Rule { standard, summer: None }) }
    }

    /// Reads a zone file such as `/etc/localtime`; UTC where there is none.
    pub(crate) fn load(path: &Path) -> Zone {
        std::fs::read(path).ok().and_then(|bytes| Zone::parse(&bytes)).unwrap_or_else(Zone::utc)
    }

    /// Reads the bytes of a zone file.
    fn parse(bytes: &[u8]) -> Option<Zone> {
        let (_, second) = Block::parse(bytes, 4)?;
        let (block, footer) = Block::parse(second, 8)?;
        let footer = std::str::from_utf8(footer).ok()?.trim_matches('\n');
        let rule = Rule::parse(footer);
        if rule.is_none() && block.transitions.is_empty() && block.offsets.is_empty() {
            return None;
        }
        Some(Zone { transitions: block.transitions, offsets: block.offsets, rule })
    }

    /// What holds at a time given in seconds since the epoch.
    pub(crate) fn at(&self, unix: i64) -> LocalOffset {
        let following = self.transitions.partition_point(|(begin, _)| *begin <= unix);
        let fixed = match following {
            0 => self.offsets.first(),
            n => self.offsets.get(usize::from(self.transitions[n - 1].1)),
        };
        let by_rule = || self.rule.as_ref().map(|rule| rule.at(unix).clone());
        let after_last = following == self.transitions.len();
        let known = if after_last { by_rule().or_else(|| fixed.cloned()) } else { fixed.cloned() };
        known.unwrap_or(LocalOffset { offset_seconds: 0, name: "UTC".to_owned() })
    }

    /// Seconds since the epoch of a time read off a wall clock; the earlier one where clocks were set back.
    pub(crate) fn to_utc(&self, local: i64) -> i64 {
        let guess = local - i64::from(self.at(local).offset_seconds);
        local - i64::from(self.at(guess).offset_seconds)
    }
}

/// One data block of a zone file.
struct Block {
    transitions: Vec<(i64, u8)>,
    offsets: Vec<LocalOffset>,
}

impl Block {
    /// Reads header and data with times of `width` bytes; returns what follows, too. `None` when it is no zone file.
    fn parse(bytes: &[u8], width: usize) -> Option<(Block, &[u8])> {
        if bytes.get(..4)? != b"TZif" {
            return None;
        }
        let count = |position: usize| -> Option<usize> {
            let field = bytes.get(20 + 4 * position..24 + 4 * position)?;
            usize::try_from(u32::from_be_bytes(field.try_into().ok()?)).ok().filter(|count| *count <= TRANSITIONS_MAX)
        };
        let (isut, isstd, leaps, times, types, letters) =
            (count(0)?, count(1)?, count(2)?, count(3)?, count(4)?, count(5)?);
        let mut rest = bytes.get(44..)?;
        let mut take = |length: usize| -> Option<&[u8]> {
            let (taken, left) = rest.split_at_checked(length)?;
            rest = left;
            Some(taken)
        };
        let begins = take(times * width)?;
        let indices = take(times)?;
        let kinds = take(types * 6)?;
        let names = take(letters)?;
        take(leaps * (width + 4) + isstd + isut)?;
        let transitions = begins
            .chunks_exact(width)
            .map(|chunk| {
                chunk.iter().fold(if chunk[0] >= 0x80 { -1 } else { 0 }, |sum, byte| sum << 8 | i64::from(*byte))
            })
            .zip(indices.iter().copied())
            .collect();
        let offsets = kinds
            .chunks_exact(6)
            .map(|kind| LocalOffset {
                offset_seconds: i32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]]),
                name: names
                    .get(usize::from(kind[5])..)
                    .map(|tail| tail.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
                    .unwrap_or_default(),
            })
            .collect();
        Some((Block { transitions, offsets }, rest))
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let mut parts = text.split(',');
        let zones = parts.next()?;
        let (name, rest) = zone_name(zones)?;
        let (seconds, rest) = clock(rest)?;
        let offset = |seconds: i64| i32::try_from(-seconds).ok();
        let standard = LocalOffset { offset_seconds: offset(seconds)?, name: name.to_owned() };
        let (Some(begin), Some(end)) = (parts.next(), parts.next()) else {
            return rest.is_empty().then_some(Rule { standard, summer: None });
        };
        let (summer_name, rest) = zone_name(rest)?;
        let summer_seconds = if rest.is_empty() { seconds - 3600 } else { clock(rest)?.0 };
        let summer = LocalOffset { offset_seconds: offset(summer_seconds)?, name: summer_name.to_owned() };
        Some(Rule { standard, summer: Some((summer, Change::parse(begin)?, Change::parse(end)?)) })
    }

    fn at(&self, unix: i64) -> &LocalOffset {
        let Some((summer, begin, end)) = &self.summer else { return &self.standard };
        let year = civil_from_days((unix + i64::from(self.standard.offset_seconds)).div_euclid(DAY_SECONDS)).0;
        let begin = begin.in_year(year) - i64::from(self.standard.offset_seconds);
        let end = end.in_year(year) - i64::from(summer.offset_seconds);
        // South of the equator summer spans the turn of the year.
        let is_summer = if begin < end { begin <= unix && unix < end } else { unix < end || begin <= unix };
        if is_summer { summer } else { &self.standard }
    }
}

impl Change {
    fn parse(text: &str) -> Option<Change> {
        let (date, time) = text.split_once('/').unwrap_or((text, "2"));
        let mut fields = date.strip_prefix('M')?.split('.').map(|field| field.parse::<i64>().ok());
        let (month, week, weekday) = (fields.next()??, fields.next()??, fields.next()??);
        let in_range = (1..=12).contains(&month) && (1..=5).contains(&week) && (0..=6).contains(&weekday);
        in_range.then_some(Change { month, week, weekday, seconds: clock(time)?.0 })
    }

    /// Local seconds at which the change happens in a year.
    fn in_year(self, year: i64) -> i64 {
        let first = days_from_civil(year, self.month, 1);
        // Day zero of the epoch was a Thursday.
        let first_weekday = (first + 4).rem_euclid(7);
        let mut day = first + (self.weekday - first_weekday).rem_euclid(7) + 7 * (self.week - 1);
        let next_month =
            if self.month == 12 { days_from_civil(year + 1, 1, 1) } else { days_from_civil(year, self.month + 1, 1) };
        if day >= next_month {
            day -= 7;
        }
        day * DAY_SECONDS + self.seconds
    }
}

/// Splits off a name, `CET` or `<+0330>`.
fn zone_name(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('<') {
        return rest.split_once('>');
    }
    let length = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    (length >= 3).then(|| text.split_at(length))
}

/// Splits off `[+-]h[:mm[:ss]]`, in seconds.
fn clock(text: &str) -> Option<(i64, &str)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let length = digits.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b':').count();
    let (digits, rest) = digits.split_at(length);
    let mut seconds = 0;
    for (field, unit) in digits.split(':').zip([3600, 60, 1]) {
        seconds += field.parse::<i64>().ok().filter(|number| *number < 1000)? * unit;
    }
    Some((sign * seconds, rest))
}

/// Days since the epoch of a date of the Gregorian calendar. *Source:* H. Hinnant, chrono-compatible low-level date
/// algorithms, 2013: years begin in March, so that the leap day is the last.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since the epoch; the inverse of [`days_from_civil`].
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_footer(footer: &str) -> Zone {
        Zone { transitions: Vec::new(), offsets: Vec::new(), rule: Some(Rule::parse(footer).unwrap()) }
    }

    #[test]
    fn dates_there_and_back() {
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!((days_from_civil(1970, 1, 1), days_from_civil(2024, 2, 29)), (0, 19_782));
    }

    #[test]
    fn footers() {
        let berlin = of_footer("CET-1CEST,M3.5.0,M10.5.0/3");
        // The last Sundays of March and October 2026 at 01:00 UTC.
        for (unix, name) in
            [(1_774_745_999, "CET"), (1_774_746_000, "CEST"), (1_792_889_999, "CEST"), (1_792_890_000, "CET")]
        {
            assert_eq!(berlin.at(unix).name, name, "{unix}");
        }
        let sydney = of_footer("AEST-10AEDT,M10.1.0,M4.1.0/3");
        assert_eq!(
            (sydney.at(1_767_225_600).offset_seconds, sydney.at(1_782_864_000).offset_seconds),
            (39_600, 36_000)
        );
        assert_eq!(of_footer("<+0330>-3:30").at(0), LocalOffset { offset_seconds: 12_600, name: "+0330".into() });
        assert_eq!(berlin.to_utc(1_782_864_000), 1_782_864_000 - 7200);
        for wrong in ["", "CE", "CET", "CET-1CEST,M13.1.0,M10.5.0", "CET-1CEST,J60,J300", "UTC0x"] {
            assert_eq!(Rule::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn zone_files() {
        let mut file = Vec::new();
        for width in [4usize, 8] {
            file.extend(b"TZif2");
            file.extend([0; 15]);
            // No leap seconds; one transition, two kinds, eight letters.
            for count in [0u32, 0, 0, 1, 2, 8] {
                file.extend(count.to_be_bytes());
            }
            let begin = (-1_000_000i64).to_be_bytes();
            file.extend(&begin[8 - width..]);
            file.push(1);
            file.extend([0, 0, 3, 0x20, 0, 0]);
            file.extend([0, 0, 0x0e, 0x10, 0, 4]);
            file.extend(b"LMT\0CET\0");
        }
        let without_rule = [file.as_slice(), b"\n\n"].concat();
        let zone = Zone::parse(&without_rule).unwrap();
        assert_eq!((zone.at(-2_000_000).name.as_str(), zone.at(0).name.as_str()), ("LMT", "CET"));
        let with_rule = [file.as_slice(), b"\nXYZ-2\n"].concat();
        assert_eq!(Zone::parse(&with_rule).unwrap().at(0).name, "XYZ");
        for length in 0..file.len() {
            assert_eq!(Zone::parse(&file[..length]), None, "cut at {length}");
        }
    }
}
