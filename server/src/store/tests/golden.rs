//! Files of each version must decode for ever: bytes that were once written, as hexadecimal, with what they mean.

use std::fmt::Write as _;

use super::super::chunk;
use super::super::record;
use crate::series::{STALE_NAN_BITS, Sample};

const GOLDEN: &str = include_str!("../golden/v1.txt");

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
    let mut kinds = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ');
        let (kind, hex) = (parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(meaning(kind, &bytes(hex)), parts.next().unwrap(), "{line}");
        kinds.push(kind);
    }
    assert!(kinds.len() >= 7, "the file holds every tag: {kinds:?}");
}

#[test]
fn this_version_writes_what_the_golden_file_has() {
    let mut written = String::new();
    for (kind, bytes) in examples() {
        writeln!(written, "{kind} {} {}", hex(&bytes), meaning(kind, &bytes)).unwrap();
    }
    let golden: String =
        GOLDEN.lines().filter(|line| !line.starts_with('#')).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(written, golden, "a changed layout needs a new version and a golden file of its own");
}

/// One example of every tag that has few bytes, and pco's.
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
    let lists = [regular(&[1.5, 1.5, 1.5]), regular(&[0.1, f64::INFINITY, 0.3, stale]), jitter, regular(&floats), late];
    let mut all: Vec<(&'static str, Vec<u8>)> =
        lists.iter().map(|samples| ("chunk", chunk::encode(samples, chunk::Effort::Fast).unwrap())).collect();
    let labels = crate::series::Labels::new([("__name__", "up"), ("instance", "h1"), ("job", "node")]);
    for repeat in [1, 20] {
        let mut writer = record::RecordWriter::default();
        writer.push(7, Some(&labels), &regular(&[1.0, 0.0]));
        for _ in 0..repeat {
            writer.push(8, None, &regular(&[stale]));
        }
        all.push(("record", writer.finish().unwrap()));
    }
    all
}
