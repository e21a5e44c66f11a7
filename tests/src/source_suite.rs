//! The contract of `query::source::Source`, as tests that every implementation runs: the local store, and each kind of remote
//! engine. What an engine cannot keep is named by [`Keeps`], so that a difference is a decision and not a surprise.

use std::collections::BTreeMap;

use petrel_server::query::source::{SelectError, Selected, Source, TimeRange, View};
use petrel_server::series::{Labels, Matcher, Sample, Timestamp};

/// What an implementation keeps of samples.
#[derive(Debug, Clone, Copy)]
pub struct Keeps {
    /// NaN that is no staleness marker.
    pub nan: bool,
    /// Every bit of a value; else about 15 digits.
    pub bits: bool,
}

/// The samples that the suite asks for, from `begin` on; write them to the source, then run [`check`].
pub fn series(begin: Timestamp, keeps: Keeps) -> Vec<(Labels, Vec<Sample>)> {
    let labels = |name: &str, host: &str, more: &[(&str, &str)]| {
        let own = [("__name__", name), ("host", host)];
        Labels::new(own.iter().chain(more).map(|(name, value)| (*name, *value)))
    };
    let count = |from: i64, to: i64, scale: f64| -> Vec<Sample> {
        (from..=to).map(|i| Sample { t: begin + i * 10_000, v: i as f64 * scale }).collect()
    };
    let mut ended = count(0, 5, 0.25);
    ended.push(Sample::stale(begin + 60_000));
    let mut odd = vec![
        Sample { t: begin + 1, v: f64::INFINITY },
        Sample { t: begin + 20_002, v: f64::NEG_INFINITY },
        Sample { t: begin + 30_003, v: -0.5 },
    ];
    if keeps.nan {
        odd.push(Sample { t: begin + 40_004, v: f64::from_bits(0x7ff8_0000_0000_0007) });
    }
    if keeps.bits {
        odd.push(Sample { t: begin + 50_005, v: 1.0 / 3.0 });
    }
    vec![
        (labels("suite_total", "web1", &[("code", "200")]), count(0, 30, 1.0)),
        (labels("suite_total", "web2", &[("code", "500")]), count(0, 30, 100.0)),
        (labels("suite_total", "db1", &[]), count(10, 20, 0.5)),
        (labels("suite_ended", "web1", &[]), ended),
        (labels("suite_odd", "web1", &[("path", "C:\\tmp \"a\"\nü{}")]), odd),
    ]
}

/// Runs the suite. Panics with what is wrong.
pub fn check(source: &dyn Source, begin: Timestamp, keeps: Keeps) {
    let written = series(begin, keeps);
    let all = TimeRange { from: begin, to: begin + 300_000 };
    let any = || Matcher::regex("__name__", "suite_.*", false).expect("a good expression");
    // Everything, and exactly that.
    same("all", source, &[any()], all, &written);
    // Both ends belong to the range.
    for (from, to) in [(100_000, 200_000), (100_001, 199_999), (60_000, 60_000), (1, 1), (290_000, 900_000)] {
        same("a part", source, &[any()], TimeRange { from: begin + from, to: begin + to }, &written);
    }
    let nothing = TimeRange { from: begin - 900_000, to: begin - 1 };
    assert!(select(source, &[any()], nothing).is_empty(), "there is nothing before the first sample");
    // All kinds of conditions; an absent label is an empty one.
    let regex = |name, pattern, negated| Matcher::regex(name, pattern, negated).expect("a good expression");
    let not = |name: &str, value: &str| Matcher {
        name: name.to_owned(),
        op: petrel_server::series::MatchOp::NotEqual(value.to_owned()),
    };
    let conditions: [&[Matcher]; 9] = [
        &[Matcher::equal("__name__", "suite_total"), Matcher::equal("host", "web2")],
        &[Matcher::equal("__name__", "suite_total"), Matcher::equal("code", "")],
        &[Matcher::equal("__name__", "suite_total"), not("code", "")],
        &[Matcher::equal("__name__", "suite_total"), not("host", "web1")],
        &[any(), regex("host", "web[12]", false), regex("code", "2..|", false)],
        &[any(), regex("host", "web.*", true)],
        &[Matcher::equal("__name__", "suite_odd"), Matcher::equal("path", "C:\\tmp \"a\"\nü{}")],
        &[Matcher::equal("__name__", "suite_odd"), regex("path", "C:\\\\.*\\{\\}", false)],
        &[Matcher::equal("__name__", "suite_never")],
    ];
    for matchers in conditions {
        same("conditions", source, matchers, all, &written);
    }
    lists(source, all, &written);
    let samples: u64 = written.iter().map(|(_, samples)| samples.len() as u64).sum();
    assert!(source.select(&[any()], all, samples).is_ok(), "a limit of all samples is not met");
    let error = source.select(&[any()], all, samples - 1).expect_err("one less is");
    assert!(matches!(error, SelectError::TooManySamples { .. }), "{error}");
}

/// The label sets.
fn lists(source: &dyn Source, all: TimeRange, written: &[(Labels, Vec<Sample>)]) {
    let named = |name: &str| vec![Matcher::equal("__name__", name)];
    let either = [named("suite_ended"), named("suite_odd")];
    let mut listed = source.series(&either, all).expect("the source can be read");
    listed.sort();
    let mut want: Vec<Labels> =
        written.iter().map(|(labels, _)| labels.clone()).filter(|labels| labels.name() != "suite_total").collect();
    want.sort();
    assert_eq!(listed, want, "series of either");
    let everything = source.series(&[], all).expect("the source can be read");
    assert!(want.iter().all(|labels| everything.contains(labels)), "series of all");
}

fn select(source: &dyn Source, matchers: &[Matcher], range: TimeRange) -> Vec<Selected> {
    let mut found = source.select(matchers, range, 100_000).expect("the source can be read");
    found.sort_by(|a, b| a.labels.cmp(&b.labels));
    found
}

/// Asserts that the source finds of `written` what fits, bit for bit; the two ways to read agree.
fn same(what: &str, source: &dyn Source, matchers: &[Matcher], range: TimeRange, written: &[(Labels, Vec<Sample>)]) {
    let shown = |labels: &Labels, samples: &[Sample]| {
        let samples: Vec<String> = samples.iter().map(|s| format!("{}:{:?}:{:x}", s.t, s.v, s.v.to_bits())).collect();
        (labels.to_string(), samples.join(" "))
    };
    let want: BTreeMap<String, String> = written
        .iter()
        .filter(|(labels, _)| matchers.iter().all(|matcher| matcher.matches(labels)))
        .map(|(labels, samples)| {
            let within = |sample: &&Sample| (range.from..=range.to).contains(&sample.t);
            (labels, samples.iter().filter(within).copied().collect::<Vec<Sample>>())
        })
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(labels, samples)| shown(labels, &samples))
        .collect();
    let found = select(source, matchers, range);
    let got: BTreeMap<String, String> = found.iter().map(|one| shown(&one.labels, &one.samples)).collect();
    assert_eq!(got, want, "{what}: {matchers:?} {range:?}");
    assert_eq!(found.len(), got.len(), "{what}: each series comes once");

    let selection = source.find(matchers, range, View::PLAIN, 100_000).expect("the source can be read");
    let mut read = BTreeMap::new();
    for number in 0..selection.count() {
        let mut show = |labels: &Labels, samples: &[Sample]| {
            read.extend([shown(labels, samples)]);
            std::ops::ControlFlow::Continue(())
        };
        selection.read(number..number + 1, &mut show).expect("the source can be read");
    }
    assert_eq!(read, want, "{what}: in portions");
}
