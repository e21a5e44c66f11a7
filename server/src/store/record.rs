//! One journal record: the samples that one group commit accepted, self-contained. A series' labels stand in the first record
//! of each journal file that has samples of it, so that a journal can be replayed without any other file.

use super::index::SeriesId;
use super::packed;
use super::varint::{self, DecodeError, Reader};
use crate::series::{Labels, Sample};

/// Version of the layout that is written, the first byte after unpacking.
const VERSION: u8 = 2;
/// Records of earlier programs.
const VERSION_1: u8 = 1;
/// zstd level of records with labels: they live for minutes, so speed counts more than size.
const LEVEL: i32 = 1;

/// Bits of the byte before each sample: how many bytes the value has, and what else follows.
const VALUE_BYTES: u8 = 0x0f;
const HAS_LABELS: u8 = 0x10;
const OTHER_TIME: u8 = 0x20;
const OTHER_ID: u8 = 0x40;

/// Builds a record, sample by sample.
pub struct RecordWriter {
    body: Vec<u8>,
    id_last: SeriesId,
    t_last: i64,
    has_labels: bool,
}

/// One series of a decoded record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSeries {
    /// The series.
    pub id: SeriesId,
    /// Its labels, where the record declares them.
    pub labels: Option<Labels>,
    /// Its samples in the order in which they were accepted.
    pub samples: Vec<Sample>,
}

/// A decoded record, flat: most have one sample of each series, and a list of its own for each would cost more than the sample.
#[derive(Debug, Default)]
pub struct Record {
    /// The series that the record declares.
    pub declared: Vec<(SeriesId, Labels)>,
    /// The samples in the order in which they were accepted.
    pub samples: Vec<(SeriesId, Sample)>,
}

impl Default for RecordWriter {
    fn default() -> RecordWriter {
        RecordWriter { body: vec![VERSION], id_last: 0, t_last: 0, has_labels: false }
    }
}

impl RecordWriter {
    /// Appends a sample of a series; `labels` where this journal file does not know the series yet.
    pub fn push(&mut self, id: SeriesId, labels: Option<&Labels>, sample: Sample) {
        let value = sample.v.to_bits().to_be_bytes();
        let value_bytes = 8 - sample.v.to_bits().trailing_zeros() as usize / 8;
        let at = self.body.len();
        self.body.push(value_bytes as u8);
        if id != self.id_last.wrapping_add(1) {
            self.body[at] |= OTHER_ID;
            varint::put_signed(&mut self.body, id.wrapping_sub(self.id_last) as i64);
        }
        if sample.t != self.t_last {
            self.body[at] |= OTHER_TIME;
            varint::put_signed(&mut self.body, sample.t.wrapping_sub(self.t_last));
        }
        if let Some(labels) = labels {
            self.body[at] |= HAS_LABELS;
            self.has_labels = true;
            put_labels(&mut self.body, labels);
        }
        self.body.extend_from_slice(&value[..value_bytes]);
        (self.id_last, self.t_last) = (id, sample.t);
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.body.len() <= 1
    }

    /// The bytes for the journal. Only labels are worth the time of compressing.
    ///
    /// # Errors
    /// zstd cannot allocate.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        if self.has_labels { packed::pack(&self.body, LEVEL) } else { Ok(packed::raw(&self.body)) }
    }
}

/// Appends a label set.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    varint::put(out, labels.len() as u64);
    for (name, value) in labels {
        varint::put_bytes(out, name.as_bytes());
        varint::put_bytes(out, value.as_bytes());
    }
}

/// Reads what [`put_labels`] wrote.
///
/// # Errors
/// The bytes are damaged.
pub fn labels(reader: &mut Reader<'_>) -> Result<Labels, DecodeError> {
    let count = reader.count(2)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((reader.text()?, reader.text()?));
    }
    Ok(Labels::new(pairs))
}

/// Decodes a record.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn decode(packed: &[u8]) -> Result<Vec<RecordSeries>, DecodeError> {
    let body = packed::unpack(packed)?;
    let mut reader = Reader(&body);
    match reader.byte()? {
        VERSION => {
            let mut all: Vec<RecordSeries> = Vec::new();
            samples(&mut reader, |id, labels, sample| match all.last_mut() {
                Some(last) if last.id == id && labels.is_none() => last.samples.push(sample),
                _ => all.push(RecordSeries { id, labels, samples: vec![sample] }),
            })?;
            Ok(all)
        }
        VERSION_1 => series_1(&mut reader),
        found => Err(DecodeError::Unknown { what: "record version", found }),
    }
}

/// Decodes a record in place of what another one left.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn decode_into(packed: &[u8], record: &mut Record) -> Result<(), DecodeError> {
    record.declared.clear();
    record.samples.clear();
    let body = packed::unpack(packed)?;
    let mut reader = Reader(&body);
    match reader.byte()? {
        VERSION => samples(&mut reader, |id, labels, sample| {
            record.declared.extend(labels.map(|labels| (id, labels)));
            record.samples.push((id, sample));
        }),
        VERSION_1 => {
            for one in series_1(&mut reader)? {
                record.declared.extend(one.labels.map(|labels| (one.id, labels)));
                record.samples.extend(one.samples.into_iter().map(|sample| (one.id, sample)));
            }
            Ok(())
        }
        found => Err(DecodeError::Unknown { what: "record version", found }),
    }
}

/// Calls `each` with every sample and, where they stand before it, its series' labels.
fn samples(reader: &mut Reader<'_>, mut each: impl FnMut(SeriesId, Option<Labels>, Sample)) -> Result<(), DecodeError> {
    let (mut id, mut t): (SeriesId, i64) = (0, 0);
    while !reader.is_empty() {
        let head = reader.byte()?;
        let value_bytes = usize::from(head & VALUE_BYTES);
        if head & !(VALUE_BYTES | HAS_LABELS | OTHER_TIME | OTHER_ID) != 0 || value_bytes > 8 {
            return Err(DecodeError::Unknown { what: "head of a sample", found: head });
        }
        id = id.wrapping_add(if head & OTHER_ID == 0 { 1 } else { reader.signed()? as u64 });
        if head & OTHER_TIME != 0 {
            t = t.wrapping_add(reader.signed()?);
        }
        let labels = if head & HAS_LABELS == 0 { None } else { Some(labels(reader)?) };
        let mut bits = [0; 8];
        bits[..value_bytes].copy_from_slice(reader.take(value_bytes)?);
        each(id, labels, Sample { t, v: f64::from_bits(u64::from_be_bytes(bits)) });
    }
    Ok(())
}

/// The series of a record of version 1.
fn series_1(reader: &mut Reader<'_>) -> Result<Vec<RecordSeries>, DecodeError> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        let head = reader.unsigned()?;
        let labels = if head & 1 == 1 { Some(labels(reader)?) } else { None };
        // Nine bytes: at least one for the time, eight for the value.
        let count = reader.count(9)?;
        let mut samples = Vec::with_capacity(count);
        let mut t = 0i64;
        for _ in 0..count {
            t = t.wrapping_add(reader.signed()?);
            samples.push(Sample { t, v: 0.0 });
        }
        for sample in &mut samples {
            sample.v = reader.float()?;
        }
        all.push(RecordSeries { id: head >> 1, labels, samples });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[0, VERSION], &bytes[..]].concat());
            let _ = decode(&[&[0, VERSION_1], &bytes[..]].concat());
            for prefix in [&[0, VERSION][..], &[0, VERSION_1]] {
                let packed = [prefix, &bytes[..]].concat();
                let mut flat = Record { declared: vec![(9, Labels::empty())], samples: vec![(9, Sample::stale(9))] };
                let Ok(series) = decode(&packed) else {
                    prop_assert!(decode_into(&packed, &mut flat).is_err());
                    continue;
                };
                decode_into(&packed, &mut flat).unwrap();
                let samples = series.iter().flat_map(|one| one.samples.iter().map(|s| (one.id, s.t, s.v.to_bits())));
                let declared = series.iter().filter_map(|one| Some((one.id, one.labels.clone()?)));
                prop_assert!(samples.eq(flat.samples.iter().map(|(id, s)| (*id, s.t, s.v.to_bits()))));
                prop_assert!(declared.eq(flat.declared.iter().cloned()));
            }
        }

        #[test]
        fn records_come_back(
            series in prop::collection::vec(
                (0u64..1 << 40, any::<bool>(), prop::collection::vec((any::<i64>(), any::<u64>()), 1..5)),
                0..20,
            )
        ) {
            let mut writer = RecordWriter::default();
            let labels = Labels::new([("__name__", "up"), ("instance", "h1")]);
            let mut pushed: Vec<(u64, i64, u64)> = Vec::new();
            for (id, declared, samples) in &series {
                for (i, &(t, bits)) in samples.iter().enumerate() {
                    writer.push(*id, (*declared && i == 0).then_some(&labels), Sample { t, v: f64::from_bits(bits) });
                    pushed.push((*id, t, bits));
                }
            }
            let back = decode(&writer.finish().unwrap()).unwrap();
            let flat: Vec<(u64, i64, u64)> =
                back.iter().flat_map(|one| one.samples.iter().map(|s| (one.id, s.t, s.v.to_bits()))).collect();
            prop_assert_eq!(flat, pushed);
            prop_assert_eq!(
                back.iter().filter(|one| one.labels.as_ref() == Some(&labels)).count(),
                series.iter().filter(|(_, declared, _)| *declared).count()
            );
        }
    }

    #[test]
    fn samples_of_one_collection_take_few_bytes() {
        let mut writer = RecordWriter::default();
        for id in 1..1_001 {
            writer.push(id, None, Sample { t: 1_790_000_000_000, v: (id * 4096) as f64 });
        }
        assert!(writer.finish().unwrap().len() < 4_100);
    }
}
