//! `os-release`: the distribution and its version, as labels. Looked at once a minute, as upgrades change it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// The distribution.
pub(super) struct Os {
    /// The administrator's file before the distribution's.
    files: [PathBuf; 2],
}

const INFO: Column = gauge(
    "node_os_info",
    "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, image_version, name, pretty_name, \
     variant, variant_id, version, version_codename, version_id.",
);
const VERSION: Column = gauge("node_os_version", "Metric containing the major.minor part of the OS version.");
const SUPPORT_END: Column =
    gauge("node_os_support_end_timestamp_seconds", "Metric containing the end-of-life date timestamp of the OS.");
/// The file's keys in lower case, which are the labels.
const LABELS: [&str; 12] = [
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

impl Os {
    pub(super) fn new(roots: &Roots) -> Os {
        Os { files: ["etc/os-release", "usr/lib/os-release"].map(|file| roots.rootfs.join(file)) }
    }
}

impl Collector for Os {
    fn name(&self) -> &'static str {
        "os"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: Duration::from_secs(60), within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let Some(text) = self.files.iter().find_map(|file| std::fs::read_to_string(file).ok()) else {
            return Err(CollectError::Absent { path: self.files[0].clone() });
        };
        families.extend(describe(&text));
        Ok(())
    }
}

fn describe(text: &str) -> [Family; 3] {
    let values = assignments(text);
    let value = |key: &str| values.get(key).map(String::as_str).unwrap_or_default();
    let (mut info, mut version, mut end) = (INFO.family(), VERSION.family(), SUPPORT_END.family());
    info.push(&LABELS.map(|label| (label, value(label))), 1.0);
    if let Some(number) = major_minor(value("version_id")) {
        version.push(&[("id", value("id")), ("id_like", value("id_like")), ("name", value("name"))], number);
    }
    if let Some(seconds) = midnight(value("support_end")) {
        end.push(&[], seconds);
    }
    [info, version, end]
}

/// Lines `KEY="value"` as a shell would read them; keys in lower case.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.take(256).filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_ascii_lowercase(), unquoted(value.trim()))).collect()
}

fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

/// `20.04` of `20.04.2`; nothing where it begins with no number, or is 0.
fn major_minor(version: &str) -> Option<f64> {
    let mut parts = version.splitn(3, '.');
    let digits = |part: Option<&str>| {
        let part = part.unwrap_or_default();
        part[..part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len())].to_owned()
    };
    let major = parts.next()?;
    let whole = digits(Some(major));
    let number = if whole.len() == major.len() { format!("{whole}.{}", digits(parts.next())) } else { whole };
    number.trim_end_matches('.').parse().ok().filter(|number| *number > 0.0)
}

/// The first second of a day `2030-05-31` in UTC.
fn midnight(day: &str) -> Option<f64> {
    let mut parts = day.split('-');
    let mut part = |range: std::ops::RangeInclusive<i64>| {
        parts.next()?.parse::<i64>().ok().filter(|number| range.contains(number))
    };
    let (year, month, day) = (part(1970..=9999)?, part(1..=12)?, part(1..=31)?);
    // Years that begin in March have their odd day at the end. *Source:* Hinnant, days_from_civil.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400) as f64)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "NAME=\"Fedora Linux\"\n# comment\nVERSION_ID=42\nID=fedora\nID_LIKE='a \"b\"'\nPRETTY_NAME=\"Fedora \\\"42\\\"\"\nSUPPORT_END=2026-05-13\n";

    #[test]
    fn a_distribution() {
        expect![[r#"
            node_os_info{build_id="",id="fedora",id_like="a \"b\"",image_id="",image_version="",name="Fedora Linux",pretty_name="Fedora \"42\"",variant="",variant_id="",version="",version_codename="",version_id="42"} 1
            node_os_version{id="fedora",id_like="a \"b\"",name="Fedora Linux"} 42
            node_os_support_end_timestamp_seconds 1778630400
        "#]].assert_eq(&trial::series(&text::render(&describe(SAMPLE))));
    }

    #[test]
    fn versions_and_days() {
        for (version, number) in [
            ("20.04", Some(20.04)),
            ("9.6.1", Some(9.6)),
            ("12", Some(12.0)),
            ("12rc1.5", Some(12.0)),
            ("", None),
            ("sid", None),
            ("0", None),
        ] {
            assert_eq!(major_minor(version), number, "{version}");
        }
        for (day, seconds) in [
            ("1970-01-01", Some(0.0)),
            ("2000-02-29", Some(951_782_400.0)),
            ("2026-05-13", Some(1_778_630_400.0)),
            ("2026-13-01", None),
            ("soon", None),
        ] {
            assert_eq!(midnight(day), seconds, "{day}");
        }
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE), word in "[0-9.é-]{0,12}") {
            let _ = (describe(&String::from_utf8_lossy(&bytes)), major_minor(&word), midnight(&word));
        }
    }
}
