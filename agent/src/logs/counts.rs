//! What happened to all lines, as metrics: the lines that do not travel whole are still counted, by template and level.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use petrel_models::Timestamp;

use super::Severity;
use super::follow::FollowCounts;
use crate::collect::{Family, Kind};
use crate::telemetry::LOG_PRECURSOR;

/// Counters of all lines since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Place in `sources` by name and unit.
    places: BTreeMap<(String, String), usize>,
    sources: Vec<Source>,
    precursors: BTreeMap<(String, &'static str), Precursor>,
    pub(super) follow: FollowCounts,
    pub(super) files: usize,
    pub(super) templates_known: usize,
    pub(super) templates_evicted: u64,
    pub(super) held_back: u64,
    pub(super) context: u64,
    pub(super) masked: u64,
    pub(super) copies: u64,
    /// Whether each is followed, and what went wrong with it.
    pub(super) journal: Option<u64>,
    pub(super) kmsg: Option<u64>,
    /// Sources whose lines of context were forgotten for want of room.
    pub(super) sources_forgotten: u64,
    forgotten: u64,
}

/// One source's lines.
#[derive(Debug, Default)]
struct Source {
    by_severity: [u64; Severity::ALL.len()],
    templates: HashMap<u64, TemplateCount>,
}

/// How often a precursor was seen. Its series begins with a 0, or nobody could see it rise to 1.
#[derive(Debug, Default)]
struct Precursor {
    lines: u64,
    is_shown: bool,
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
    /// The place of a source; further ones share the last.
    pub(super) fn place(&mut self, source: &str, unit: &str) -> usize {
        let mut key = (source.to_owned(), unit.to_owned());
        if self.places.len() >= SOURCES_MAX && !self.places.contains_key(&key) {
            key = (OTHER_SOURCES.to_owned(), String::new());
        }
        let next = self.sources.len();
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.sources.push(Source::default());
        }
        place
    }

    /// Counts a line.
    pub(super) fn line(&mut self, place: usize, severity: Severity, template: u64, now: Timestamp) {
        let Some(source) = self.sources.get_mut(place) else { return };
        source.by_severity[severity as usize] += 1;
        let is_full = source.templates.len() >= TEMPLATES_MAX && !source.templates.contains_key(&template);
        if is_full {
            let oldest =
                source.templates.iter().min_by_key(|(id, count)| (count.seen, **id)).map(|(oldest, _)| *oldest);
            source.templates.remove(&oldest.unwrap_or(template));
        }
        let count = source.templates.entry(template).or_default();
        count.lines += 1;
        count.seen = now;
        self.forgotten += u64::from(is_full);
    }

    /// Whether one more line of the template may travel whole in this minute; counts it either way.
    pub(super) fn admit(&mut self, place: usize, template: u64, per_minute: u32, now: Timestamp) -> bool {
        let Some(source) = self.sources.get_mut(place) else { return false };
        let count = source.templates.entry(template).or_default();
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

    /// Counts a line that announces trouble.
    pub(super) fn precursor(&mut self, name: &str, severity: &'static str) {
        self.precursors.entry((name.to_owned(), severity)).or_default().lines += 1;
    }

    /// `petrel_log_template_total`, the busiest templates.
    pub(super) fn template_family(&self) -> Family {
        let of_source = |((name, unit), place): (&'_ (String, String), &'_ usize)| {
            let templates = &self.sources[*place].templates;
            let (name, unit) = (name.clone(), unit.clone());
            templates
                .iter()
                .map(move |(template, count)| ((*template, name.clone(), unit.clone()), count.lines))
                .collect::<Vec<_>>()
        };
        let mut busiest: Vec<((u64, String, String), u64)> = self.places.iter().flat_map(of_source).collect();
        busiest.sort_by(|(a, more), (b, less)| (Reverse(more), a).cmp(&(Reverse(less), b)));
        busiest.truncate(SHOWN_MAX);
        // In a fixed order: the exposition should not shuffle.
        busiest.sort_unstable();
        let mut family =
            Family::new(Kind::Counter, "petrel_log_template_total", "Lines of the template, of the busiest templates.");
        for ((template, source, unit), lines) in busiest {
            let template = format!("{template:016x}");
            let labels = [("template", template.as_str()), ("source", &source), ("unit", &unit)];
            family.push(labels_of(&labels), lines as f64);
        }
        family
    }

    fn precursor_family(&mut self) -> Family {
        let help = "Lines that announce trouble, by kind; its meaning is in the precursor library.";
        let mut family = Family::new(Kind::Counter, LOG_PRECURSOR, help);
        for ((name, severity), count) in &mut self.precursors {
            let value = if count.is_shown { count.lines } else { 0 };
            count.is_shown = true;
            family.push(&[("precursor", name), ("severity", severity)], value as f64);
        }
        family
    }

    /// All families.
    pub(super) fn families(&mut self) -> Vec<Family> {
        let mut lines =
            Family::new(Kind::Counter, "petrel_log_lines_total", "Lines read, whether they travelled whole or not.");
        for ((name, unit), place) in &self.places {
            for severity in Severity::ALL {
                let count = self.sources[*place].by_severity[severity as usize];
                let labels = [("source", name.as_str()), ("severity", severity.as_str()), ("unit", unit)];
                if count > 0 {
                    lines.push(labels_of(&labels), count as f64);
                }
            }
        }
        let counter = |name: &'static str, help: &'static str, value: u64| {
            Family::new(Kind::Counter, name, help).with(value as f64)
        };
        let gauge = |name: &'static str, help: &'static str, value: usize| {
            Family::new(Kind::Gauge, name, help).with(value as f64)
        };
        let mut families = vec![
            self.template_family(),
            lines,
            self.precursor_family(),
            counter(
                "petrel_log_context_lines_total",
                "Lines that travelled whole because they stood around another.",
                self.context,
            ),
            counter("petrel_log_lines_masked_total", "Lines in which a secret was masked.", self.masked),
            counter(
                "petrel_log_lines_copies_total",
                "The kernel's lines in files, left out as they are read from its own messages.",
                self.copies,
            ),
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
            counter(
                "petrel_log_sources_forgotten_total",
                "Sources forgotten for want of room, with their lines of context.",
                self.sources_forgotten,
            ),
            counter("petrel_log_template_counts_forgotten_total", "Template counters forgotten.", self.forgotten),
            gauge("petrel_log_templates", "Templates known.", self.templates_known),
            gauge("petrel_log_files", "Files that are open.", self.files),
        ];
        let help = "Times that the program which reads the journal ended and was started again.";
        families.extend(self.journal.map(|restarts| counter("petrel_log_journal_restarts_total", help, restarts)));
        let help = "Messages of the kernel that its ring lost before they were read.";
        families.extend(self.kmsg.map(|lost| counter("petrel_log_kmsg_lost_total", help, lost)));
        families.retain(|family| !family.points.is_empty());
        families
    }
}

/// Without the last label, the unit, where it is empty: files have none.
fn labels_of<'a>(labels: &'a [(&'static str, &'a str); 3]) -> &'a [(&'static str, &'a str)] {
    if labels[2].1.is_empty() { &labels[..2] } else { labels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_no_line_goes_uncounted() {
        let mut counts = Counts::default();
        for number in 0..SOURCES_MAX + 50 {
            let place = counts.place(&number.to_string(), "");
            counts.line(place, Severity::Info, 1, 0);
        }
        let place = counts.place("0", "");
        for template in 0..TEMPLATES_MAX as u64 + 50 {
            counts.line(place, Severity::Info, template, template as i64);
        }
        assert_eq!((counts.sources.len(), counts.sources[place].templates.len()), (SOURCES_MAX + 1, TEMPLATES_MAX));
        let lines: f64 = counts.families()[1].points.iter().map(|point| point.value).sum();
        assert_eq!(lines, (SOURCES_MAX + 50 + TEMPLATES_MAX + 50) as f64);
        assert_eq!(counts.template_family().points.len(), SHOWN_MAX);
    }

    #[test]
    fn a_precursor_begins_with_nought_so_that_its_rise_is_seen() {
        let mut counts = Counts::default();
        assert!(counts.precursor_family().points.is_empty());
        counts.precursor("oom_kill", "critical");
        counts.precursor("oom_kill", "critical");
        assert_eq!(counts.precursor_family().points[0].value, 0.0);
        assert_eq!(counts.precursor_family().points[0].value, 2.0);
    }
}
