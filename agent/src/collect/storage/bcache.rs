//! `/sys/fs/bcache`: caches of slow disks on fast ones.

use std::path::PathBuf;
use std::time::Duration;

use super::bcache_files::{BACKING, CACHE, DEBUG, PRIORITY, SET};
use crate::collect::attribute::{AttributeReader, names_in, numbered_in};
use crate::collect::tables::Column;
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Caches.
pub(super) struct Bcache {
    folder: PathBuf,
    reader: AttributeReader,
    readings: u32,
    /// The expensive families as they were last read.
    priority: Vec<Family>,
}

/// How the use of a cache is read in a file of many numbers: which makes the kernel sort all its buckets, so it is done
/// at every so many readings only.
const PRIORITY_EVERY: u32 = 20;

impl Bcache {
    pub(super) fn new(roots: &Roots) -> Bcache {
        let folder = roots.sysfs.join("fs/bcache");
        Bcache { folder, reader: AttributeReader::new(), readings: 0, priority: Vec::new() }
    }

    /// Fills a table from the files of one folder.
    fn read(
        &mut self,
        table: &[(&str, Column)],
        folder: &std::path::Path,
        labels: &[(&'static str, &str)],
        families: &mut [Family],
    ) {
        for (family, (file, _)) in families.iter_mut().zip(table) {
            let text = self.reader.word(&folder.join(file));
            if let Some(value) = text.and_then(|text| humane(&text)) {
                // What the file calls microseconds node_exporter takes for nanoseconds.
                let factor = if file.ends_with("_duration_us") { 1e-9 } else { 1.0 };
                family.push(labels, value * factor);
            }
        }
    }

    fn read_priority(&mut self, folder: &std::path::Path, labels: &[(&'static str, &str)], families: &mut [Family]) {
        let text = self.reader.word(&folder.join("priority_stats")).unwrap_or_default();
        for (family, (key, _)) in families.iter_mut().zip(PRIORITY) {
            let percent = keyed(&text, key).and_then(|value| value.strip_suffix('%')?.parse::<u32>().ok());
            if let Some(percent) = percent {
                family.push(labels, f64::from(percent));
            }
        }
    }
}

impl Collector for Bcache {
    fn name(&self) -> &'static str {
        "bcache"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: Duration::from_secs(30), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let names = names_in(&self.folder).unwrap_or_default();
        let sets: Vec<&String> = names.iter().filter(|name| name.contains('-')).collect();
        if sets.is_empty() {
            return Err(CollectError::Absent { path: self.folder.join("*-*") });
        }
        let reads_priority = self.readings.is_multiple_of(PRIORITY_EVERY);
        self.readings = self.readings.wrapping_add(1);
        let (mut set, mut backing, mut debug) = (fresh(&SET), fresh(&BACKING), fresh(&DEBUG));
        let (mut cache, mut priority) = (fresh(&CACHE), fresh(&PRIORITY));
        for uuid in sets {
            let folder = self.folder.join(uuid);
            self.read(&SET, &folder, &[("uuid", uuid)], &mut set);
            for number in numbered_in(&folder, "bdev") {
                let name = format!("bdev{number}");
                let labels = [("backing_device", name.as_str()), ("uuid", uuid.as_str())];
                self.read(&BACKING, &folder.join(&name), &labels, &mut backing);
                let text = self.reader.word(&folder.join(&name).join("writeback_rate_debug")).unwrap_or_default();
                for (family, (key, _)) in debug.iter_mut().zip(DEBUG) {
                    if let Some(value) = keyed(&text, key).and_then(humane) {
                        family.push(&labels, value);
                    }
                }
            }
            for number in numbered_in(&folder, "cache").into_iter().filter(|number| number.parse::<u32>().is_ok()) {
                let name = format!("cache{number}");
                let labels = [("cache_device", name.as_str()), ("uuid", uuid.as_str())];
                self.read(&CACHE, &folder.join(&name), &labels, &mut cache);
                if reads_priority {
                    self.read_priority(&folder.join(&name), &labels, &mut priority);
                }
            }
        }
        if reads_priority {
            self.priority = priority;
        }
        for mut part in [set, backing, debug, cache] {
            families.append(&mut part);
        }
        families.extend(self.priority.iter().cloned());
        Ok(())
    }
}

fn fresh(table: &[(&str, Column)]) -> Vec<Family> {
    table.iter().map(|(_, column)| column.family()).collect()
}

/// What follows a key and a colon.
fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// A number as the kernel prints it for people, `427.5k` or `1.1M/sec`. What follows the point counts in 1,024ths of a
/// hundredth, more or less: read as node_exporter reads it.
fn humane(text: &str) -> Option<f64> {
    const UNITS: &str = "kMGTPEZY";
    let text = text.strip_suffix("/sec").unwrap_or(text);
    let (text, sign) = text.strip_prefix('-').map_or((text, 1.0), |rest| (rest, -1.0));
    let power = text.chars().last().and_then(|unit| UNITS.find(unit));
    let Some(power) = power else {
        return text.parse::<u64>().ok().map(|number| sign * number as f64);
    };
    let digits = &text[..text.len() - 1];
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole = whole.parse::<u32>().ok()?;
    let fraction = fraction.parse::<u32>().ok()?;
    let exponent = i32::try_from(power).ok()? + 1;
    Some(sign * ((f64::from(whole) + f64::from(fraction) / 10.24) * 1024f64.powi(exponent)).trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    #[test]
    fn numbers_for_people() {
        for (text, value) in [
            ("546", Some(546.0)),
            ("1.1M/sec", Some(1_150_976.0)),
            ("20.4G", Some(21_894_266_880.0)),
            ("-1.1k", Some(-1124.0)),
            ("790.0k", Some(808_960.0)),
            ("2k", Some(2048.0)),
            ("k", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(humane(text), value, "{text}");
        }
        assert_eq!(keyed("rate:\t\t1.1M/sec\nUnused:\t99%\n", "Unused"), Some("99%"));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(text in "-?[0-9.]{0,12}[kMGY%é]?(/sec)?") {
            let _ = (humane(&text), keyed(&text, "1"));
        }
    }
}
