//! Files of each version must decode for ever: bytes that were once written, as hexadecimal, with what they mean.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::chunk;
use super::super::record;
use super::super::rollup;
use crate::series::{STALE_NAN_BITS, Sample};

const GOLDEN: [&str; 3] =
    [include_str!("../golden/v1.txt"), include_str!("../golden/v2.txt"), include_str!("../golden/v3.txt")];

/// Lines of all golden files, each split into kind, bytes and meaning.
fn golden() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    GOLDEN.iter().flat_map(|file| file.lines()).filter(|line| !line.starts_with('#')).map(|line| {
        let mut parts = line.splitn(3, ' ');
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn show(samples: &[Sample]) -> String {
    samples.iter().map(|sample| format!("{}={:x}", sample.t, sample.v.to_bits())).collect::<Vec<_>>().join(" ")
}

fn meaning(kind: &str, bytes: &[u8]) -> String {
    match kind {
        "chunk" => show(&chunk::decode(bytes).unwrap()),
        "record" => {
            let series = record::decode(bytes).unwrap();
            let one = |one: &record::RecordSeries| {
                let labels = one.labels.as_ref().map_or(String::new(), ToString::to_string);
                format!("{} {labels} {}", one.id, show(&one.samples))
            };
            series.iter().map(one).collect::<Vec<_>>().join(" | ")
        }
        other => panic!("unknown kind {other}"),
    }
}

#[test]
fn every_golden_line_decodes_to_what_it_meant() {
    let mut tags = Vec::new();
    for (kind, hex, means) in golden() {
        assert_eq!(meaning(kind, &bytes(hex)), means, "{kind} {hex}");
        tags.push((kind, hex[..2].to_owned()));
    }
    assert!(tags.len() >= 34, "the files hold every tag: {tags:?}");
}

#[test]
fn this_version_writes_what_the_golden_file_has() {
    let kept: BTreeSet<String> = golden()
        .filter(|(kind, hex, _)| *kind == "chunk" && hex.starts_with("03"))
        .map(|(kind, hex, means)| format!("{kind} {hex} {means}"))
        .collect();
    let written: BTreeSet<String> =
        examples().iter().map(|(kind, bytes)| format!("{kind} {} {}", hex(bytes), meaning(kind, bytes))).collect();
    assert_eq!(written, kept, "a changed layout needs a new version and a golden file of its own");
}

/// One example of every tag of a chunk that has few bytes, and pco's.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let regular = |values: &[f64]| -> Vec<Sample> {
        values.iter().enumerate().map(|(i, &v)| Sample { t: 1_790_000_000_000 + i as i64 * 10_000, v }).collect()
    };
    let stale = f64::from_bits(STALE_NAN_BITS);
    let mut jitter = regular(&[1.0, 2.0, 4.0]);
    jitter[1].t += 3;
    let long: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17)).collect();
    let floats: Vec<f64> = (1..40).map(|i| 1.0 / f64::from(i)).collect();
    let mut late = regular(&long);
    for (i, sample) in late.iter_mut().enumerate() {
        sample.t += (i * i * 7919 % 1_000_000) as i64;
    }
    late.sort_by_key(|sample| sample.t);
    late.dedup_by_key(|sample| sample.t);
    let far = vec![Sample { t: -(1 << 60), v: 1.0 }, Sample { t: 0, v: 2.0 }, Sample { t: 1 << 60, v: 2.0 }];
    let pages: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 11) * 4096.0).collect();
    let still: Vec<f64> = (0..40).map(|i| f64::from(i / 17) * 0.5).collect();
    let spikes: Vec<f64> = (0..40).map(|i| f64::from(i % 9 / 8 * i)).collect();
    let curve: Vec<f64> = (0..40).map(|i| f64::from(i * i * i)).collect();
    let halves: Vec<f64> = (0..40).map(|i| f64::from(0.1f32 * (i % 7) as f32)).collect();
    let mut ended: Vec<f64> = (0..40).map(|i| f64::from(i % 5) / 10.0).collect();
    (ended[0], ended[17], ended[39]) = (f64::NEG_INFINITY, -0.0, stale);
    let gaps: Vec<f64> = (0..40).map(|i| if i % 3 == 0 { stale } else { f64::from(i) }).collect();
    let wild: Vec<f64> = (0..3).map(|i| 3f64.sqrt().powi(i * 300)).collect();
    let lists = [
        regular(&[1.5, 1.5, 1.5]),
        regular(&[0.1, f64::INFINITY, 0.3, stale]),
        regular(&ended),
        regular(&gaps),
        jitter,
        regular(&floats),
        late,
        far,
        regular(&pages),
        regular(&still),
        regular(&spikes),
        regular(&curve),
        regular(&halves),
        regular(&wild),
    ];
    let encoded = |samples: &Vec<Sample>, effort| ("chunk", chunk::encode(samples, effort).unwrap());
    let mut all: Vec<(&'static str, Vec<u8>)> =
        lists.iter().map(|samples| encoded(samples, chunk::Effort::Fast)).collect();
    let clock: Vec<f64> = (0..600).map(|i| f64::from(800 + ((i * 7919 % 10_007 / 32) % 2) * 2_717)).collect();
    all.push(encoded(&regular(&clock), chunk::Effort::Best));
    all.extend(with_stops().iter().map(|samples| encoded(samples, chunk::Effort::Fast)));
    all
}

/// More samples than a walk's block has: a level at jittered times, a trend, a curve.
fn with_stops() -> [Vec<Sample>; 3] {
    let at = |i: i64, v: i64| Sample { t: 1_790_000_000_000 + i * 10_000, v: v as f64 };
    let noise = |i: i64| i * 7919 % 10_007 % 64;
    let level = (0..300).map(|i| Sample { t: at(i, 0).t + noise(i + 11) / 9, ..at(i, 5_000 + noise(i)) });
    let trend = (0..300).map(|i| at(i, i * 1_000 + noise(i)));
    let curve = (0..300).map(|i| at(i, i * i * 3 + i * i * i));
    [level.collect(), trend.collect(), curve.collect()]
}

/// Rollups, whose layout changes on its own.
/// Columns of version 2 of chunks, and of version 3.
const ROLLUP_1: [&str; 2] = [include_str!("../golden/rollup-1.txt"), include_str!("../golden/rollup-1-chunk-3.txt")];

#[test]
fn rollups_of_version_1_are_written_and_read_as_the_golden_files_have_them() {
    let at = |i: i64, v: f64| Sample { t: 1_790_000_100_000 + i * 30_000, v };
    let constant: Vec<Sample> = (0..20).map(|i| at(i, 1.0)).collect();
    let mut counter: Vec<Sample> = (0..40).map(|i| at(i, (i % 33 * 3) as f64)).collect();
    counter[12].v = f64::NAN;
    counter.push(Sample::stale(at(40, 0.0).t));
    let mut written = String::new();
    for samples in [constant, counter] {
        let body = rollup::encode(&rollup::from_samples(&samples, 300_000)).unwrap();
        writeln!(written, "rollup {} {}", hex(&body), show_rows(&body)).unwrap();
    }
    let lines = |file: &'static str| file.lines().filter(|line| !line.starts_with('#'));
    let kept: String = lines(ROLLUP_1[1]).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(written, kept, "a changed layout needs a new version and a golden file of its own");
    for line in ROLLUP_1.into_iter().flat_map(lines) {
        let mut parts = line.splitn(3, ' ').skip(1);
        assert_eq!(show_rows(&bytes(parts.next().unwrap())), parts.next().unwrap());
    }
}

fn show_rows(body: &[u8]) -> String {
    let one = |row: &rollup::Row| {
        let values = [row.first, row.last, row.least, row.greatest, row.sum, row.increase];
        let values = values.map(|value| format!("{:x}", value.to_bits())).join(",");
        format!(
            "{}+{}..{}:{}:{values}:{:?}",
            row.start,
            row.begin - row.start,
            row.end - row.start,
            row.count,
            row.ended
        )
    };
    rollup::decode(body).unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
}

/// One more file for each version of the journal's records, which change on their own.
const RECORD_2: &str = include_str!("../golden/record-2.txt");

#[test]
fn records_of_version_2_are_written_and_read_as_the_golden_file_has_them() {
    let labels = crate::series::Labels::new([("__name__", "up"), ("instance", "h1"), ("job", "node")]);
    let at = |seconds: i64, v: f64| Sample { t: 1_790_000_000_000 + seconds * 1_000, v };
    let mut one = record::RecordWriter::default();
    one.push(7, Some(&labels), at(0, 1.0));
    one.push(7, None, at(10, 0.0));
    one.push(8, None, at(10, 0.1));
    one.push(9, None, at(10, f64::from_bits(STALE_NAN_BITS)));
    one.push(3, None, at(-10, -4096.0));
    let mut known = record::RecordWriter::default();
    for id in 20..40 {
        known.push(id, None, at(0, id as f64));
    }
    let mut written = String::new();
    for record in [one, known].map(|writer| writer.finish().unwrap()) {
        writeln!(written, "record {} {}", hex(&record), meaning("record", &record)).unwrap();
    }
    let kept: String =
        RECORD_2.lines().filter(|line| !line.starts_with('#')).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(written, kept, "a changed layout needs a new version and a golden file of its own");
}
