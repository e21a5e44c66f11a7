//! Remote write 2.0 bodies in, batches and problems out.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::store::{Store, StoreOptions};

const NOW: i64 = 10_000;

fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Store::open(dir.path(), StoreOptions { retention: None, ..StoreOptions::default() }, &[], NOW).unwrap()
}

/// A field that holds bytes; bodies here stay below 128 bytes a field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn request(symbols: &[&[u8]], series: &[Vec<u8>]) -> Vec<u8> {
    let symbols = symbols.iter().flat_map(|symbol| field(4, symbol));
    symbols.chain(series.iter().flat_map(|series| field(5, series))).collect()
}

/// A series of these references with one sample at 9,000, and further fields.
fn series(references: &[u8], value: f64, more: &[u8]) -> Vec<u8> {
    let sample = [&[0x09][..], &value.to_le_bytes(), &[0x10, 0xa8, 0x46]].concat();
    [&field(1, references), &field(2, &sample)[..], more].concat()
}

fn show(batch: &Batch, problems: &Problems) -> String {
    let mut lines: Vec<String> =
        batch.samples().map(|(labels, sample)| format!("{labels} {} {}\n", sample.t, sample.v)).collect();
    let told =
        |(name, told): &(String, MetricMetadata)| format!("# {name} {} {:?} {:?}\n", told.kind, told.help, told.unit);
    lines.extend(batch.metadata.iter().map(told));
    if problems.count() > 0 {
        lines.push(format!("! {problems}\n"));
    }
    lines.concat()
}

fn check_body(body: &[u8], expected: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    let (batch, problems) = decode(body, &open(&dir).known(), LabelLimits::default()).unwrap();
    expected.assert_eq(&show(&batch, &problems));
}

const SYMBOLS: [&[u8]; 10] =
    [b"", b"__name__", b"lat_bucket", b"le", b"1", b"+Inf", b"How long.", b"seconds", b"caf\xe9", b"lat_sum"];

#[test]
fn references_become_labels_and_metadata_is_told_once() {
    let told = field(5, &[0x08, 3, 0x18, 6, 0x20, 7]);
    let scattered = [&[0x08, 1, 0x08, 9][..], &series(&[], 3.0, &told)].concat();
    let all = [series(&[1, 2, 3, 4], 1.0, &told), series(&[1, 2, 3, 5], 2.0, &told), scattered];
    let expected = expect![[r#"
        lat_bucket{le="1"} 9000 1
        lat_bucket{le="+Inf"} 9000 2
        lat_sum 9000 3
        # lat histogram "How long." "seconds"
    "#]];
    check_body(&request(&SYMBOLS, &all), &expected);
    let late: Vec<u8> = all.iter().flat_map(|series| field(5, series)).chain(request(&SYMBOLS, &[])).collect();
    check_body(&late, &expected);
}

#[test]
fn the_good_is_taken_and_the_bad_is_named() {
    let all = [
        series(&[1, 2, 3], 1.0, &[]),
        series(&[1, 2, 3, 10], 1.0, &[]),
        series(&[3, 4, 1, 2], 1.0, &[]),
        series(&[1, 2, 1, 2], 1.0, &[]),
        series(&[3, 4], 1.0, &[]),
        series(&[1, 2, 3, 8], 1.0, &[]),
        series(&[1, 2, 0, 4], 1.0, &[]),
        series(&[1, 9, 3, 0], 5.0, &[field(3, b""), field(4, b""), field(4, b""), vec![0x30, 1]].concat()),
    ];
    check_body(
        &request(&SYMBOLS, &all),
        &expect![[r#"
        lat_sum 9000 5
        ! 8 not stored: lat_bucket: series has 3 label references; names and values come in pairs; label reference 10 is beyond the 10 symbols of the request; lat_bucket: label `__name__` after `le` is not sorted, or given twice; lat_bucket: label `__name__` after `__name__` is not sorted, or given twice; series {le="1"} has no metric name; lat_bucket: value `caf�` of label `le` is not UTF-8; lat_bucket: label `` after `__name__` is not sorted, or given twice; native histograms are not taken; send classic ones
    "#]],
    );
}

#[test]
fn series_that_are_known_are_found_by_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let body = request(&SYMBOLS, &[series(&[1, 2, 3, 4], 1.0, &[])]);
    let (batch, _) = decode(&body, &store.known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.rows.len(), batch.series.len()), (0, 1));
    store.append_blocking(batch, NOW).unwrap();
    let (batch, _) = decode(&body, &store.known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.rows.len(), batch.series.len()), (1, 0));
    assert_eq!(show(&batch, &Problems::default()), "lat_bucket{le=\"1\"} 9000 1\n");
}

/// A few bytes of references cannot fill the memory.
#[test]
fn what_references_resolve_to_is_bounded() {
    let long = vec![b'x'; 1 << 20];
    let symbol = [&[0x22, 0x80, 0x80, 0x40][..], &long].concat();
    let references: Vec<u8> = [0, 1].into_iter().chain((0..60).map(|_| 2)).collect();
    let mut body = [field(4, b"__name__"), field(4, b"m"), symbol].concat();
    for _ in 0..1_000 {
        body.extend(field(5, &series(&references, 1.0, &[])));
    }
    let dir = tempfile::tempdir().unwrap();
    let (batch, problems) = decode(&body, &open(&dir).known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.series.len(), problems.count()), (0, 1_000));
    assert!(problems.to_string().contains("send smaller batches"), "{problems}");
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        references in prop::collection::vec(0u8..16, 0..12),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let _ = decode(&bytes, &store.known(), LabelLimits::default());
        let _ = decode(&request(&SYMBOLS, &[series(&references, 1.0, &more)]), &store.known(), LabelLimits::default());
    }
}

#[test]
fn what_grows_beyond_its_bytes_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let symbols = [0x22, 0].repeat(SYMBOLS_MAX + 1);
    let error = decode(&symbols, &store.known(), LabelLimits::default()).unwrap_err();
    assert!(matches!(error, DecodeError::TooManySymbols), "{error}");
    // One series of a million references, as one packed field.
    let mut references = vec![0x0a, 0xc0, 0x84, 0x3d];
    references.resize(4 + 1_000_000, 1);
    let sample = field(2, &[0x10, 0xa8, 0x46]);
    let mut body = request(&[b"", b"a"], &[]);
    body.push(0x2a);
    let length = (references.len() + sample.len()) as u64;
    body.extend([length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8]);
    body.extend(references);
    body.extend(sample);
    let (batch, problems) = decode(&body, &store.known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.samples().count(), problems.count()), (0, 1), "{problems}");
    assert!(problems.to_string().contains("write.labels_max"), "{problems}");
}
