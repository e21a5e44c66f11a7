//! What becomes of a line: secrets masked, head read, template mined; then it travels whole or as a count.
//!
//! Whole travel lines whose template is new or was not seen for long, and lines of level warning and above; of one
//! template at most so many in a minute. Pure but for its memory: no files, no clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use petrel_models::Timestamp;
use petrel_models::logs::{Miner, MinerLimits, SavedTemplate};

use super::config::LogsConfig;
use super::counts::Counts;
use super::secrets::SecretMask;
use super::{LogRecord, Severity, severity, stamp};
use crate::collect::zone::Zone;

/// Everything remembered about lines.
pub(super) struct Sift {
    miner: Miner,
    zone: Zone,
    whole_lines_per_minute: u32,
    /// By file: a private key goes over several lines.
    masks: BTreeMap<PathBuf, SecretMask>,
    masks_max: usize,
}

/// A template silent for so long is worth a whole line when it comes back.
const RARE_MS: i64 = 3_600_000;

impl Sift {
    pub(super) fn new(config: &LogsConfig, templates: &[SavedTemplate], zone: Zone) -> Sift {
        let limits = MinerLimits { templates: config.templates_max, ..MinerLimits::default() };
        Sift {
            miner: Miner::restore(limits, templates),
            zone,
            whole_lines_per_minute: config.whole_lines_per_minute,
            masks: BTreeMap::new(),
            masks_max: config.files_max,
        }
    }

    /// Takes a line in, counts it, and returns it if it travels whole.
    pub(super) fn line(&mut self, path: &Path, bytes: &[u8], now: Timestamp, counts: &mut Counts) -> Option<LogRecord> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\r', '\0']);
        if text.trim().is_empty() {
            return None;
        }
        if self.masks.len() > self.masks_max && !self.masks.contains_key(path) {
            self.masks.clear();
        }
        let masked = match self.masks.get_mut(path) {
            Some(mask) => mask.mask(text),
            None => self.masks.entry(path.to_owned()).or_default().mask(text),
        };
        let head = stamp::read(&masked, now, &self.zone);
        let severity = severity::of(head.priority, head.message);
        let sighting = self.miner.learn(head.message, now);
        let source = path.to_string_lossy();
        counts.line(&source, severity, sighting.id, now);
        let is_rare = sighting.seen_before.is_none_or(|before| now - before >= RARE_MS);
        let is_wanted = is_rare || severity >= Severity::Warn;
        if !is_wanted || !counts.admit(&source, sighting.id, self.whole_lines_per_minute, now) {
            return None;
        }
        Some(LogRecord {
            at: head.at.unwrap_or(now),
            source: source.into_owned(),
            severity,
            template_id: format!("{:016x}", sighting.id),
            template: self.miner.text(sighting.id).unwrap_or_default(),
            body: masked.into_owned(),
        })
    }

    pub(super) fn miner(&self) -> &Miner {
        &self.miner
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::logs::RawLogsConfig;

    #[test]
    fn new_and_severe_lines_travel_and_the_rest_are_counted() {
        let config = RawLogsConfig { whole_lines_per_minute: 2, ..RawLogsConfig::default() }.check().unwrap();
        let mut sift = Sift::new(&config, &[], Zone::utc());
        let mut counts = Counts::default();
        let minute = 60_000;
        let mut shown = Vec::new();
        for (now, line) in [
            (0, "Jan  1 00:00:00 h app[1]: served 12 pages to alice"),
            (1, "Jan  1 00:00:00 h app[1]: served 13 pages to bob"),
            (2, "Jan  1 00:00:00 h app[1]: cannot read /x: error 5 password=hunter2"),
            (3, "Jan  1 00:00:00 h app[1]: cannot read /y: error 6 password=hunter3"),
            (4, "Jan  1 00:00:00 h app[1]: cannot read /z: error 7 password=hunter4"),
            (2 * minute, "Jan  1 00:02:00 h app[1]: cannot read /z: error 7 password=hunter5"),
            (61 * minute, "Jan  1 01:01:00 h app[1]: served 14 pages to bob"),
            (61 * minute, "  \r"),
        ] {
            let record = sift.line(Path::new("/var/log/x"), line.as_bytes(), now, &mut counts);
            let record = record
                .map(|record| format!("{} {:?} {} | {}", record.at, record.severity, record.template, record.body));
            shown.push(record.unwrap_or("-".to_owned()) + "\n");
        }
        expect![[r"
            0 Info app[<*>]: served <*> pages to alice | Jan  1 00:00:00 h app[1]: served 12 pages to alice
            -
            0 Error app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:00:00 h app[1]: cannot read /x: error 5 password=***
            0 Error app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:00:00 h app[1]: cannot read /y: error 6 password=***
            -
            120000 Error app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:02:00 h app[1]: cannot read /z: error 7 password=***
            3660000 Info app[<*>]: served <*> pages to <*> | Jan  1 01:01:00 h app[1]: served 14 pages to bob
            -
        "]].assert_eq(&shown.concat());
        let families = counts.families();
        let value = |name: &str| families.iter().find(|family| family.name == name).unwrap().points[0].value;
        assert_eq!(value("petrel_log_lines_held_back_total"), 1.0);
        expect![[r#"
            # HELP petrel_log_template_total Lines of the template, of the busiest templates.
            # TYPE petrel_log_template_total counter
            petrel_log_template_total{template="4e4334615f6f2ac1",source="/var/log/x"} 4
            petrel_log_template_total{template="e0c3cdc8760702f5",source="/var/log/x"} 3
            # HELP petrel_log_lines_total Lines read, whether they travelled whole or not.
            # TYPE petrel_log_lines_total counter
            petrel_log_lines_total{source="/var/log/x",severity="info"} 3
            petrel_log_lines_total{source="/var/log/x",severity="error"} 4
        "#]]
        .assert_eq(&crate::collect::text::render(&families[..2]));
    }
}
