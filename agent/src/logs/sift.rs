//! What becomes of a line: secrets masked, head read, template mined; then it travels whole or as a count.
//!
//! Whole travel lines that announce trouble, whose template is new or was not seen for long, and lines of level warning and
//! above; of one template at most so many in a minute, and so many of all. Lines around them go along. Pure but for its
//! memory: no files, no clock.

use std::borrow::Cow;
use std::sync::Arc;

use petrel_models::Timestamp;
use petrel_models::logs::{Miner, MinerLimits, SavedTemplate};

use super::config::LogsConfig;
use super::context::{self, Context};
use super::counts::Counts;
use super::precursor::Precursors;
use super::secrets::SecretMask;
use super::{LogRecord, Severity, Why, glob, severity, stamp};
use crate::collect::zone::Zone;

/// A line as its source gives it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Path of the file, `journal` or `kmsg`.
    pub(super) source: &'a str,
    /// The unit; empty where there is none.
    pub(super) unit: &'a str,
    /// The line, or the lines that belong together.
    pub(super) bytes: &'a [u8],
    /// When it was written and its syslog priority, where the source says so by itself; else they are in the line.
    pub(super) stated: Option<(Timestamp, Option<u8>)>,
}

/// Everything remembered about lines.
pub(super) struct Sift {
    miner: Miner,
    zone: Zone,
    precursors: Arc<Precursors>,
    whole: Vec<String>,
    whole_lines_per_minute: u32,
    context_lines: usize,
    /// Leave out the kernel's lines in files: its own messages are read.
    pub(super) skips_kernel: bool,
    allowance: Allowance,
    sources: Vec<SourceState>,
    /// Where the last line's source stands: mostly the next one's too.
    last: usize,
    found: Vec<u16>,
    text: String,
    /// Counts changes of the source, for the order in which sources are forgotten.
    turns: u64,
}

/// What is remembered of one source.
struct SourceState {
    name: String,
    unit: String,
    /// A private key goes over several lines.
    mask: SecretMask,
    context: Context,
    /// The turn in which its lines were last looked at.
    turn: u64,
    /// Every line of it travels whole.
    is_whole: bool,
    /// Its place among the counts.
    place: usize,
}

/// What is known of a line.
struct Judged {
    at: Timestamp,
    severity: Severity,
    template: u64,
    /// The place of the gravest precursor that it announces.
    gravest: Option<u16>,
    /// Why it travels whole; nothing if it does not.
    why: Option<Why>,
}

/// How many lines of all sources may still travel in this minute.
struct Allowance {
    per_minute: u32,
    minute: i64,
    used: u32,
}

/// A template silent for so long is worth a whole line when it comes back.
const RARE_MS: i64 = 3_600_000;
/// Sources remembered at once: files and units. Beyond it the one silent for longest is forgotten, with its lines of context.
const SOURCES_MAX: usize = 1500;

impl Sift {
    pub(super) fn new(config: &LogsConfig, templates: &[SavedTemplate], zone: Zone) -> Sift {
        let limits = MinerLimits { templates: config.templates_max, ..MinerLimits::default() };
        Sift {
            miner: Miner::restore(limits, templates),
            zone,
            precursors: Arc::clone(&config.precursors),
            whole: config.whole.clone(),
            whole_lines_per_minute: config.whole_lines_per_minute,
            context_lines: config.context_lines,
            skips_kernel: false,
            allowance: Allowance { per_minute: config.lines_per_minute, minute: i64::MIN, used: 0 },
            sources: Vec::new(),
            last: 0,
            found: Vec::new(),
            text: String::new(),
            turns: 0,
        }
    }

    /// Takes a line in, counts it, and appends what travels whole: the line itself and lines before it, or nothing.
    pub(super) fn line(&mut self, line: &Line<'_>, now: Timestamp, counts: &mut Counts, out: &mut Vec<LogRecord>) {
        // Almost all lines are sound, and that is checked many bytes at a time.
        let text = std::str::from_utf8(line.bytes).map_or_else(|_| String::from_utf8_lossy(line.bytes), Cow::Borrowed);
        let text = text.trim_end_matches(['\r', '\0']);
        if text.trim_start().is_empty() {
            return;
        }
        let place = self.source_of(line, counts);
        let masked = self.sources[place].mask.mask(text);
        counts.masked += u64::from(!std::ptr::eq(masked.as_ref(), text));
        let head = match line.stated {
            Some((at, priority)) => stamp::Head { at: Some(at), priority, message: &masked },
            None => stamp::read(&masked, now, &self.zone),
        };
        let is_copy = self.skips_kernel && line.stated.is_none() && head.message.starts_with("kernel:");
        if is_copy {
            counts.copies += 1;
            return;
        }
        let judged = self.judge(place, &head, now, counts);
        self.hand_out(place, &masked, &judged, (now, counts), out);
    }

    /// Everything that is to be known of a line, counted.
    fn judge(&mut self, place: usize, head: &stamp::Head<'_>, now: Timestamp, counts: &mut Counts) -> Judged {
        // Below its first line a trace has what differs from one to the next.
        let first = head.message.split('\n').next().unwrap_or_default();
        let (program, said) = stamp::program(first);
        self.precursors.find(program, said, &mut self.found);
        for found in self.found.iter().map(|place| self.precursors.get(*place)) {
            counts.precursor(&found.name, found.grade.as_str());
        }
        let gravest = self.found.iter().copied().max_by_key(|place| self.precursors.get(*place).grade);
        let least = gravest.map_or(Severity::Debug, |place| self.precursors.get(place).grade.severity());
        let severity = severity::of(head.priority, first).max(least);
        let sighting = if program == "kernel" {
            self.text.clear();
            self.text.push_str("kernel: ");
            self.text.push_str(said);
            self.miner.learn(&self.text, now)
        } else {
            self.miner.learn(first, now)
        };
        let source = &self.sources[place];
        counts.line(source.place, severity, sighting.id, now);
        let why = match (gravest, sighting.seen_before) {
            (Some(_), _) => Some(Why::Precursor),
            (None, None) => Some(Why::New),
            (None, Some(before)) if now - before >= RARE_MS => Some(Why::Rare),
            _ if severity >= Severity::Warn => Some(Why::Severe),
            _ => None,
        };
        let why = if source.is_whole {
            Some(why.unwrap_or(Why::Configured))
        } else {
            why.filter(|_| {
                counts.admit(source.place, sighting.id, self.whole_lines_per_minute, now)
                    && self.allowance.take(now, counts)
            })
        };
        Judged { at: head.at.unwrap_or(now), severity, template: sighting.id, gravest, why }
    }

    /// Appends the line, if it travels, and those before it; keeps it for later otherwise.
    fn hand_out(
        &mut self,
        place: usize,
        body: &str,
        judged: &Judged,
        (now, counts): (Timestamp, &mut Counts),
        out: &mut Vec<LogRecord>,
    ) {
        let (miner, allowance) = (&self.miner, &mut self.allowance);
        let SourceState { name, unit, context, is_whole, .. } = &mut self.sources[place];
        let record = |severity, template, body: &str, why| LogRecord {
            at: judged.at,
            source: name.clone(),
            severity,
            template_id: format!("{template:016x}"),
            template: miner.text(template).unwrap_or_default(),
            body: body.to_owned(),
            unit: unit.clone(),
            precursor: String::new(),
            why,
        };
        let Judged { at, severity, template, gravest, why } = *judged;
        let Some(why) = why else {
            if context.quiet(at, severity, template, body) && allowance.take(now, counts) {
                counts.context += 1;
                out.push(record(severity, template, context::cut(body), Why::Context));
            }
            return;
        };
        if !*is_whole {
            context.loud(&mut |kept| {
                if allowance.take(now, counts) {
                    counts.context += 1;
                    let record = record(kept.severity, kept.template, &kept.body, Why::Context);
                    out.push(LogRecord { at: kept.at, ..record });
                }
            });
        }
        let precursor = gravest.map(|place| self.precursors.get(place).name.clone()).unwrap_or_default();
        out.push(LogRecord { precursor, ..record(severity, template, body, why) });
    }

    pub(super) fn miner(&self) -> &Miner {
        &self.miner
    }

    /// Finds or makes what is remembered of a line's source.
    fn source_of(&mut self, line: &Line<'_>, counts: &mut Counts) -> usize {
        let is_it = |source: &SourceState| source.name == line.source && source.unit == line.unit;
        if self.sources.get(self.last).is_some_and(is_it) {
            return self.last;
        }
        self.turns += 1;
        self.last = match self.sources.iter().position(is_it) {
            Some(place) => place,
            None => self.meet(line, counts),
        };
        self.sources[self.last].turn = self.turns;
        self.last
    }

    /// Remembers a source, in the place of another where there is no more room.
    fn meet(&mut self, line: &Line<'_>, counts: &mut Counts) -> usize {
        let forgotten = if self.sources.len() < SOURCES_MAX { None } else { self.most_forgettable() };
        counts.sources_forgotten += u64::from(forgotten.is_some());
        let source = SourceState {
            name: line.source.to_owned(),
            unit: line.unit.to_owned(),
            mask: SecretMask::met(),
            context: Context::new(self.context_lines),
            turn: self.turns,
            is_whole: self.whole.iter().any(|pattern| names(pattern, line)),
            place: counts.place(line.source, line.unit),
        };
        match forgotten {
            Some(place) => self.sources[place] = source,
            None => self.sources.push(source),
        }
        forgotten.unwrap_or(self.sources.len() - 1)
    }

    /// The source silent for longest, of those that are not inside a private key if there is one: its rest must stay masked.
    fn most_forgettable(&self) -> Option<usize> {
        let places = 0..self.sources.len();
        places.min_by_key(|place| (self.sources[*place].mask.is_inside_key(), self.sources[*place].turn))
    }
}

impl Allowance {
    fn take(&mut self, now: Timestamp, counts: &mut Counts) -> bool {
        let minute = now.div_euclid(60_000);
        if self.minute != minute {
            (self.minute, self.used) = (minute, 0);
        }
        let is_left = self.used < self.per_minute;
        self.used += u32::from(is_left);
        counts.held_back += u64::from(!is_left);
        is_left
    }
}

/// Whether a pattern of `whole` names the line's source.
fn names(pattern: &str, line: &Line<'_>) -> bool {
    match pattern.strip_prefix("journal:") {
        Some(unit) => line.source == "journal" && glob::names(unit, line.unit),
        None => glob::names(pattern, line.source),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::logs::RawLogsConfig;

    fn file(line: &str) -> Line<'_> {
        Line { source: "/var/log/x", unit: "", bytes: line.as_bytes(), stated: None }
    }

    #[test]
    fn lines_around_go_along_and_precursors_are_named() {
        let whole = vec!["journal:web*.service".to_owned()];
        let config = RawLogsConfig { context_lines: 1, whole, ..RawLogsConfig::default() }.check().unwrap();
        let mut sift = Sift::new(&config, &[], Zone::utc());
        let mut counts = Counts::default();
        let mut records = Vec::new();
        let quiet = "kernel: eth0: link is up 1";
        for line in [
            quiet,
            quiet,
            quiet,
            "kernel: [  12.5] Out of memory: Killed process 7 (qemu-kvm) total-vm:1kB",
            quiet,
            quiet,
        ] {
            sift.line(&file(line), 0, &mut counts, &mut records);
        }
        sift.skips_kernel = true;
        sift.line(&file(quiet), 0, &mut counts, &mut records);
        for unit in ["web1.service", "web1.service", "db.service"] {
            let stated = Some((5, Some(6)));
            sift.line(
                &Line { source: "journal", unit, bytes: b"app[1]: x\n  trace", stated },
                9,
                &mut counts,
                &mut records,
            );
        }
        let shown: Vec<String> = records
            .iter()
            .map(|r| {
                format!("{} {} {} {:?} {:?} {} {:?}\n", r.at, r.source, r.unit, r.severity, r.why, r.precursor, r.body)
            })
            .collect();
        expect![[r#"
            0 /var/log/x  Info New  "kernel: eth0: link is up 1"
            0 /var/log/x  Info Context  "kernel: eth0: link is up 1"
            0 /var/log/x  Info Context  "kernel: eth0: link is up 1"
            0 /var/log/x  Error Precursor oom_kill "kernel: [  12.5] Out of memory: Killed process 7 (qemu-kvm) total-vm:1kB"
            0 /var/log/x  Info Context  "kernel: eth0: link is up 1"
            5 journal web1.service Info New  "app[1]: x\n  trace"
            5 journal web1.service Info Configured  "app[1]: x\n  trace"
        "#]]
        .assert_eq(&shown.concat());
        assert_eq!((counts.context, counts.copies), (3, 1));
    }

    #[test]
    fn a_key_stays_masked_however_many_sources_come_between() {
        let whole = vec!["/var/log/*".to_owned()];
        let config = RawLogsConfig { context_lines: 0, whole, ..RawLogsConfig::default() }.check().unwrap();
        let mut sift = Sift::new(&config, &[], Zone::utc());
        let mut counts = Counts::default();
        let mut bodies = |source: &str, line: &str| {
            let mut records = Vec::new();
            let source = format!("/var/log/{source}");
            let line = Line { source: &source, ..file(line) };
            sift.line(&line, 0, &mut counts, &mut records);
            (records.iter().map(|record| record.body.clone()).collect::<String>(), sift.sources.len())
        };
        let begin = "-----BEGIN PRIVATE KEY-----";
        bodies("key", begin);
        for number in 0..2 * SOURCES_MAX {
            assert_eq!(bodies(&number.to_string(), "one line").0, "one line");
        }
        assert_eq!(bodies("key", "MIIEv"), ("***".to_owned(), SOURCES_MAX));
        // More keys than there is room for: the rest of one that gave way is known by its look.
        for number in 0..=SOURCES_MAX {
            bodies(&format!("k{number}"), begin);
        }
        let rest = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
        assert_eq!(["k0", "k0"].map(|source| bodies(source, rest).0), ["***", "***"]);
        assert_eq!(bodies("other", "one line"), ("one line".to_owned(), SOURCES_MAX));
        assert!(counts.sources_forgotten > SOURCES_MAX as u64);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200), now in proptest::arbitrary::any::<i32>()) {
            let mut sift = Sift::new(&RawLogsConfig::default().check().unwrap(), &[], Zone::utc());
            let mut records = Vec::new();
            for bytes in bytes.split(|byte| *byte == 0) {
                sift.line(&Line { bytes, ..file("") }, now.into(), &mut Counts::default(), &mut records);
            }
        }
    }

    #[test]
    fn new_and_severe_lines_travel_and_the_rest_are_counted() {
        let config =
            RawLogsConfig { whole_lines_per_minute: 2, context_lines: 0, ..RawLogsConfig::default() }.check().unwrap();
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
            let mut records = Vec::new();
            sift.line(&file(line), now, &mut counts, &mut records);
            let shown_record = |record: LogRecord| {
                format!("{} {:?} {:?} {} | {}", record.at, record.severity, record.why, record.template, record.body)
            };
            shown.push(records.into_iter().map(shown_record).next().unwrap_or("-".to_owned()) + "\n");
        }
        expect![[r"
            0 Info New app[<*>]: served <*> pages to alice | Jan  1 00:00:00 h app[1]: served 12 pages to alice
            -
            0 Error New app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:00:00 h app[1]: cannot read /x: error 5 password=***
            0 Error Severe app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:00:00 h app[1]: cannot read /y: error 6 password=***
            -
            120000 Error Severe app[<*>]: cannot read <*>: error <*> password=*** | Jan  1 00:02:00 h app[1]: cannot read /z: error 7 password=***
            3660000 Info Rare app[<*>]: served <*> pages to <*> | Jan  1 01:01:00 h app[1]: served 14 pages to bob
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
