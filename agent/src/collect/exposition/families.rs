//! A whole body of the text formats as families. Histograms and summaries become their plain series; timestamps and
//! exemplars are left out, because a sample is of the time at which it was read. Bounded by the body and a number of samples.

use std::borrow::Cow;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::{Format, LINE_BYTES_MAX, Line, LineError, Pair, Sample, line};
use crate::collect::{Family, Kind};

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// One of its lines.
    #[error("line {line}: {error}")]
    Line {
        /// From 1 on.
        line: usize,
        /// What is wrong with it.
        error: LineError,
    },
    /// Not text.
    #[error("line {line}: not UTF-8")]
    NotUtf8 {
        /// From 1 on.
        line: usize,
    },
    /// A line without end.
    #[error("line {line}: longer than {LINE_BYTES_MAX} bytes")]
    LongLine {
        /// From 1 on.
        line: usize,
    },
    /// Something follows the end mark.
    #[error("line {line}: stands after `# EOF`")]
    AfterEnd {
        /// From 1 on.
        line: usize,
    },
    /// OpenMetrics that was cut off.
    #[error("line {line}: the text ends without `# EOF`; it was cut off")]
    NoEnd {
        /// The last line.
        line: usize,
    },
    /// More samples than may be.
    #[error("line {line}: more than {samples_max} samples")]
    Samples {
        /// From 1 on.
        line: usize,
        /// The limit.
        samples_max: usize,
    },
}

/// Goes through a body line by line.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    format: Format,
    line: usize,
    has_ended: bool,
}

impl<'a> Reader<'a> {
    /// At the beginning of a body.
    pub fn new(body: &'a [u8], format: Format) -> Reader<'a> {
        Reader { rest: body, format, line: 0, has_ended: false }
    }

    /// The number of the line that was read last, from 1 on.
    pub fn line(&self) -> usize {
        self.line
    }

    fn read(&mut self) -> Result<Option<Line<'a>>, BodyError> {
        if self.rest.is_empty() {
            let is_whole = self.has_ended || self.format == Format::Prometheus;
            return if is_whole { Ok(None) } else { Err(BodyError::NoEnd { line: self.line }) };
        }
        self.line += 1;
        let number = self.line;
        let end = self.rest.iter().take(LINE_BYTES_MAX + 1).position(|byte| *byte == b'\n');
        let end = match end {
            Some(end) => end,
            None if self.rest.len() > LINE_BYTES_MAX => return Err(BodyError::LongLine { line: number }),
            None => self.rest.len(),
        };
        let text = std::str::from_utf8(&self.rest[..end]).map_err(|_| BodyError::NotUtf8 { line: number })?;
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        let read = line(text, self.format).map_err(|error| BodyError::Line { line: number, error })?;
        if self.format == Format::OpenMetrics {
            if self.has_ended && read != Line::Nothing {
                return Err(BodyError::AfterEnd { line: number });
            }
            self.has_ended |= read == Line::End;
        }
        Ok(Some(read))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Line<'a>, BodyError>;

    /// The next line. After an error nothing more comes.
    fn next(&mut self) -> Option<Result<Line<'a>, BodyError>> {
        let read = self.read();
        if read.is_err() {
            (self.rest, self.has_ended) = (&[], true);
        }
        read.transpose()
    }
}

/// Puts samples together by metric. A series that comes twice is taken once, the first time, and counted.
#[derive(Debug, Default)]
pub struct Grouping<'a> {
    /// By metric, as TYPE and HELP name it: type, words.
    told: HashMap<Cow<'a, str>, (&'a str, Cow<'a, str>)>,
    /// Places in `families` by series name.
    places: HashMap<Cow<'a, str>, usize>,
    families: Vec<Family>,
    seen: HashSet<u64>,
    samples: usize,
    doubles: u64,
}

impl<'a> Grouping<'a> {
    /// Takes a line; the labels of a sample are kept in their order.
    pub fn add(&mut self, line: Line<'a>) {
        match line {
            Line::Sample(sample) => self.sample(sample),
            Line::Type { name, kind } => self.told.entry(name).or_default().0 = kind,
            Line::Help { name, help } => self.told.entry(name).or_default().1 = help,
            Line::End | Line::Nothing => {}
        }
    }

    /// Samples taken so far.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Samples left out because their series was there already.
    pub fn doubles(&self) -> u64 {
        self.doubles
    }

    fn sample(&mut self, sample: Sample<'a>) {
        let mut hasher = DefaultHasher::new();
        (&sample.name, &sample.labels).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            self.doubles += 1;
            return;
        }
        self.samples += 1;
        let place = match self.places.entry(sample.name) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let family = Family::new(Kind::Untyped, entry.key().clone().into_owned(), "");
                self.families.push(family);
                *entry.insert(self.families.len() - 1)
            }
        };
        let owned = |(name, value): Pair<'a>| (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()));
        self.families[place].push_owned(sample.labels.into_iter().map(owned).collect(), sample.value);
    }

    /// The families in the order of their first samples, each with its type and help.
    pub fn finish(self) -> Vec<Family> {
        let mut families = self.families;
        for family in &mut families {
            if let Some((kind, help)) = described(&self.told, &family.name) {
                family.kind = kind;
                family.help = Cow::Owned(help.to_owned());
            }
        }
        families
    }
}

/// Suffixes of series, the types whose metrics have such series, and what these are.
const PARTS: [(&str, &[&str], Kind); 8] = [
    ("_total", &["counter"], Kind::Counter),
    ("_bucket", &["histogram"], Kind::Counter),
    ("_count", &["histogram", "summary"], Kind::Counter),
    ("_sum", &["histogram", "summary"], Kind::Counter),
    ("_bucket", &["gaugehistogram"], Kind::Gauge),
    ("_gcount", &["gaugehistogram"], Kind::Gauge),
    ("_gsum", &["gaugehistogram"], Kind::Gauge),
    ("_info", &["info"], Kind::Gauge),
];

/// What TYPE and HELP say of a series: of its own name, or of the metric that it is a part of.
fn described<'t>(told: &'t HashMap<Cow<'_, str>, (&str, Cow<'_, str>)>, series: &str) -> Option<(Kind, &'t str)> {
    if let Some((kind, help)) = told.get(series) {
        let kind = match *kind {
            "counter" => Kind::Counter,
            // Quantiles carry the summary's own name.
            "gauge" | "info" | "stateset" | "summary" => Kind::Gauge,
            _ => Kind::Untyped,
        };
        return Some((kind, help));
    }
    let parts = PARTS.iter().find_map(|(suffix, of, kind)| {
        let (told_kind, help) = told.get(series.strip_suffix(suffix)?)?;
        of.contains(told_kind).then_some((*kind, help.as_ref()))
    });
    parts.or_else(|| {
        let (_, help) = told.get(series.strip_suffix("_created")?)?;
        Some((Kind::Gauge, help.as_ref()))
    })
}

/// All families of a body, and how many samples were left out because their series was there already.
///
/// # Errors
/// The first line that is wrong, or too many samples: then nothing of it is to be trusted.
pub fn families(body: &[u8], format: Format, samples_max: usize) -> Result<(Vec<Family>, u64), BodyError> {
    let (mut reader, mut grouping) = (Reader::new(body, format), Grouping::default());
    while let Some(line) = reader.next().transpose()? {
        grouping.add(line);
        if grouping.samples() > samples_max {
            return Err(BodyError::Samples { line: reader.line(), samples_max });
        }
    }
    let doubles = grouping.doubles();
    Ok((grouping.finish(), doubles))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::text;

    const BODY: &str = "\
# HELP http_seconds Time.\n# TYPE http_seconds histogram\nhttp_seconds_bucket{le=\"1\"} 2\nhttp_seconds_bucket{le=\"+Inf\"} 3\n\
http_seconds_sum 4.5\nhttp_seconds_count 3\n# TYPE rpc summary\nrpc{quantile=\"0.5\"} NaN\nrpc_sum 1\nrpc_count 2 1700000000\n\
# TYPE jobs counter\n# HELP jobs Jobs.\njobs_total{q=\"a\"} 5 # {id=\"1\"} 1\njobs_created{q=\"a\"} 1.7e9\n\
odd{b=\"2\",a=\"1\"} -Inf\njobs_total{q=\"a\"} 6\nodd{a=\"1\",b=\"2\"} 1\n# EOF\n";

    #[test]
    fn a_body_becomes_families() {
        let (families, doubles) = families(BODY.as_bytes(), Format::OpenMetrics, 100).unwrap();
        assert_eq!(doubles, 2);
        expect![[r#"
            # HELP http_seconds_bucket Time.
            # TYPE http_seconds_bucket counter
            http_seconds_bucket{le="1"} 2
            http_seconds_bucket{le="+Inf"} 3
            # HELP http_seconds_sum Time.
            # TYPE http_seconds_sum counter
            http_seconds_sum 4.5
            # HELP http_seconds_count Time.
            # TYPE http_seconds_count counter
            http_seconds_count 3
            # HELP rpc 
            # TYPE rpc gauge
            rpc{quantile="0.5"} NaN
            # HELP rpc_sum 
            # TYPE rpc_sum counter
            rpc_sum 1
            # HELP rpc_count 
            # TYPE rpc_count counter
            rpc_count 2
            # HELP jobs_total Jobs.
            # TYPE jobs_total counter
            jobs_total{q="a"} 5
            # HELP jobs_created Jobs.
            # TYPE jobs_created gauge
            jobs_created{q="a"} 1700000000
            # HELP odd 
            # TYPE odd untyped
            odd{a="1",b="2"} -Inf
        "#]]
        .assert_eq(&text::render(&families));
    }

    #[test]
    fn a_wrong_body_is_told_with_its_line() {
        let wrong = |body: &[u8], format| families(body, format, 2).unwrap_err().to_string();
        assert_eq!(wrong(b"a 1\nb x\n", Format::Prometheus), "line 2: `x` is not a value");
        assert_eq!(wrong(b"a 1\n\nb\xff 1", Format::Prometheus), "line 3: not UTF-8");
        assert_eq!(wrong(b"a 1\nb 1\nc 1\nd 1\n", Format::Prometheus), "line 3: more than 2 samples");
        let cut = "line 1: the text ends without `# EOF`; it was cut off";
        assert_eq!(wrong(b"a 1\n", Format::OpenMetrics), cut);
        assert_eq!(wrong(b"a 1\n# EOF\nb 1\n", Format::OpenMetrics), "line 3: stands after `# EOF`");
        let long = vec![b'a'; LINE_BYTES_MAX + 2];
        assert_eq!(wrong(&long, Format::Prometheus), "line 1: longer than 1048576 bytes");
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-zé\"\\\\\n{},= #]{1,6}"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a-c]{0,2}[{}\",= #\n0-9EOFTYPE]{0,9}){0,20}") {
            for body in [&bytes[..], text.as_bytes()] {
                let _ = families(body, Format::Prometheus, 10);
                let _ = families(body, Format::OpenMetrics, 10);
            }
        }

        /// Whatever stands in labels and help: what is written is read back.
        #[test]
        fn what_is_rendered_reads_back(series in proptest::collection::btree_map(word(), any::<f64>(), 1..8), help in "[a-z\\\\\n]{0,8}") {
            let mut family = Family::new(Kind::Gauge, "x", help.trim().to_owned());
            for (value, number) in &series {
                family.push(&[("label", value)], *number);
            }
            let body = text::render(&[family.clone()]);
            let (read, doubles) = families(body.as_bytes(), Format::Prometheus, 10).unwrap();
            prop_assert_eq!((text::render(&read), doubles), (body, 0));
            prop_assert_eq!((&read[0].help, read[0].kind), (&family.help, Kind::Gauge));
        }
    }
}
