//! What happened to all lines, as metrics: the lines that do not travel whole are still counted, by template and level.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use petrel_models::Timestamp;

use super::Severity;
use super::follow::FollowCounts;
use crate::collect::{Family, Kind};

/// Counters of all lines since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    lines: BTreeMap<(String, Severity), u64>,
    templates: BTreeMap<(u64, String), TemplateCount>,
    pub(super) follow: FollowCounts,
    pub(super) files: usize,
    pub(super) templates_known: usize,
    pub(super) templates_evicted: u64,
    pub(super) held_back: u64,
    forgotten: u64,
}

/// One template in one source.
#[derive(Debug, Clone, Copy, Default)]
struct TemplateCount {
    lines: u64,
    seen: Timestamp,
    /// The minute in which lines travelled whole, and how many.
    minute: i64,
    whole: u32,
}

/// Series of templates that are shown: the busiest. The rest are in `petrel_log_lines_total`.
const SHOWN_MAX: usize = 200;
/// Pairs of template and source that are counted; the one silent for longest is forgotten.
const TEMPLATES_MAX: usize = 4000;

impl Counts {
    /// Counts a line.
    pub(super) fn line(&mut self, source: &str, severity: Severity, template: u64, now: Timestamp) {
        *self.lines.entry((source.to_owned(), severity)).or_default() += 1;
        let key = (template, source.to_owned());
        if self.templates.len() >= TEMPLATES_MAX && !self.templates.contains_key(&key) {
            let oldest = self.templates.iter().min_by_key(|(_, count)| count.seen).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.templates.remove(&oldest);
                self.forgotten += 1;
            }
        }
        let count = self.templates.entry(key).or_default();
        count.lines += 1;
        count.seen = now;
    }

    /// Whether one more line of the template may travel whole in this minute; counts it either way.
    pub(super) fn admit(&mut self, source: &str, template: u64, per_minute: u32, now: Timestamp) -> bool {
        let Some(count) = self.templates.get_mut(&(template, source.to_owned())) else { return true };
        let minute = now.div_euclid(60_000);
        if count.minute != minute {
            (count.minute, count.whole) = (minute, 0);
        }
        let is_admitted = count.whole < per_minute;
        if is_admitted {
            count.whole += 1;
        } else {
            self.held_back += 1;
        }
        is_admitted
    }

    /// `petrel_log_template_total`, the busiest templates.
    pub(super) fn template_family(&self) -> Family {
        let mut busiest: Vec<_> = self.templates.iter().collect();
        busiest.sort_by_key(|(_, count)| Reverse(count.lines));
        busiest.truncate(SHOWN_MAX);
        // In a fixed order: the exposition should not shuffle.
        busiest.sort_by_key(|(key, _)| *key);
        let mut family =
            Family::new(Kind::Counter, "petrel_log_template_total", "Lines of the template, of the busiest templates.");
        for ((template, source), count) in busiest {
            family.push(&[("template", &format!("{template:016x}")), ("source", source)], count.lines as f64);
        }
        family
    }

    /// All families.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut lines =
            Family::new(Kind::Counter, "petrel_log_lines_total", "Lines read, whether they travelled whole or not.");
        for ((source, severity), count) in &self.lines {
            lines.push(&[("source", source), ("severity", severity.as_str())], *count as f64);
        }
        let counter = |name: &'static str, help: &'static str, value: u64| {
            Family::new(Kind::Counter, name, help).with(value as f64)
        };
        let gauge = |name: &'static str, help: &'static str, value: usize| {
            Family::new(Kind::Gauge, name, help).with(value as f64)
        };
        vec![
            self.template_family(),
            lines,
            counter(
                "petrel_log_lines_held_back_total",
                "Lines that were new or severe and only counted, as their template had its share of the minute.",
                self.held_back,
            ),
            counter("petrel_log_lines_cut_total", "Lines longer than allowed, cut.", self.follow.lines_cut),
            counter("petrel_log_rotations_total", "Files that lost their name.", self.follow.rotations),
            counter("petrel_log_truncations_total", "Files written anew in place.", self.follow.truncations),
            counter("petrel_log_read_errors_total", "Failures to open or read a file.", self.follow.read_errors),
            counter(
                "petrel_log_templates_evicted_total",
                "Templates forgotten for want of room.",
                self.templates_evicted,
            ),
            counter("petrel_log_template_counts_forgotten_total", "Template counters forgotten.", self.forgotten),
            gauge("petrel_log_templates", "Templates known.", self.templates_known),
            gauge("petrel_log_files", "Files that are open.", self.files),
        ]
    }
}
