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
    sources: BTreeMap<String, Source>,
    pub(super) follow: FollowCounts,
    pub(super) files: usize,
    pub(super) templates_known: usize,
    pub(super) templates_evicted: u64,
    pub(super) held_back: u64,
    forgotten: u64,
}

/// One file's lines.
#[derive(Debug, Default)]
struct Source {
    by_severity: BTreeMap<Severity, u64>,
    templates: BTreeMap<u64, TemplateCount>,
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
/// Templates counted in one source; the one silent for longest is forgotten.
const TEMPLATES_MAX: usize = 2000;
/// Sources counted under their own names; files whose names hold a date come and go for ever.
const SOURCES_MAX: usize = 200;
/// Where the lines of all further sources are counted.
const OTHER_SOURCES: &str = "(others)";

impl Counts {
    /// Counts a line.
    pub(super) fn line(&mut self, source: &str, severity: Severity, template: u64, now: Timestamp) {
        let source = self.source(source);
        *source.by_severity.entry(severity).or_default() += 1;
        let is_full = source.templates.len() >= TEMPLATES_MAX && !source.templates.contains_key(&template);
        if is_full {
            let oldest = source.templates.iter().min_by_key(|(_, count)| count.seen).map(|(oldest, _)| *oldest);
            source.templates.remove(&oldest.unwrap_or(template));
        }
        let count = source.templates.entry(template).or_default();
        count.lines += 1;
        count.seen = now;
        self.forgotten += u64::from(is_full);
    }

    /// Whether one more line of the template may travel whole in this minute; counts it either way.
    pub(super) fn admit(&mut self, source: &str, template: u64, per_minute: u32, now: Timestamp) -> bool {
        let count = self.source(source).templates.entry(template).or_default();
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

    fn source(&mut self, source: &str) -> &mut Source {
        let is_named = self.sources.len() < SOURCES_MAX || self.sources.contains_key(source);
        self.sources.entry(if is_named { source } else { OTHER_SOURCES }.to_owned()).or_default()
    }

    /// `petrel_log_template_total`, the busiest templates.
    pub(super) fn template_family(&self) -> Family {
        let of_source = |(name, source): (_, &'_ Source)| {
            source.templates.iter().map(move |(template, count)| ((*template, name), count.lines)).collect::<Vec<_>>()
        };
        let mut busiest: Vec<((u64, &String), u64)> = self.sources.iter().flat_map(of_source).collect();
        busiest.sort_by_key(|(_, lines)| Reverse(*lines));
        busiest.truncate(SHOWN_MAX);
        // In a fixed order: the exposition should not shuffle.
        busiest.sort_unstable();
        let mut family =
            Family::new(Kind::Counter, "petrel_log_template_total", "Lines of the template, of the busiest templates.");
        for ((template, source), lines) in busiest {
            family.push(&[("template", &format!("{template:016x}")), ("source", source)], lines as f64);
        }
        family
    }

    /// All families.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut lines =
            Family::new(Kind::Counter, "petrel_log_lines_total", "Lines read, whether they travelled whole or not.");
        for (name, source) in &self.sources {
            for (severity, count) in &source.by_severity {
                lines.push(&[("source", name), ("severity", severity.as_str())], *count as f64);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_no_line_goes_uncounted() {
        let mut counts = Counts::default();
        for number in 0..SOURCES_MAX + 50 {
            counts.line(&number.to_string(), Severity::Info, 1, 0);
        }
        for template in 0..TEMPLATES_MAX as u64 + 50 {
            counts.line("0", Severity::Info, template, template as i64);
        }
        assert_eq!((counts.sources.len(), counts.sources["0"].templates.len()), (SOURCES_MAX + 1, TEMPLATES_MAX));
        let lines: f64 = counts.families()[1].points.iter().map(|point| point.value).sum();
        assert_eq!(lines, (SOURCES_MAX + 50 + TEMPLATES_MAX + 50) as f64);
        assert_eq!(counts.template_family().points.len(), SHOWN_MAX);
    }
}
