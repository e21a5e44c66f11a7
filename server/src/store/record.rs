//! One journal record: the samples that one group commit accepted, self-contained. A series' labels stand in the first record
//! of each journal file that has samples of it, so that a journal can be replayed without any other file.

use super::index::SeriesId;
use super::packed;
use super::varint::{self, DecodeError, Reader};
use crate::series::{Labels, Sample};

/// Version of the layout, the first byte after unpacking.
const VERSION: u8 = 1;
/// zstd level of records: they live for minutes, so speed counts more than size.
const LEVEL: i32 = 1;

/// Builds a record, series by series.
pub struct RecordWriter {
    body: Vec<u8>,
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

impl Default for RecordWriter {
    fn default() -> RecordWriter {
        RecordWriter { body: vec![VERSION] }
    }
}

impl RecordWriter {
    /// Appends the samples of a series; `labels` where this journal file does not know the series yet.
    pub fn push(&mut self, id: SeriesId, labels: Option<&Labels>, samples: &[Sample]) {
        varint::put(&mut self.body, id << 1 | u64::from(labels.is_some()));
        if let Some(labels) = labels {
            put_labels(&mut self.body, labels);
        }
        varint::put(&mut self.body, samples.len() as u64);
        let mut before = 0i64;
        for sample in samples {
            varint::put_signed(&mut self.body, sample.t.wrapping_sub(before));
            before = sample.t;
        }
        for sample in samples {
            self.body.extend_from_slice(&sample.v.to_le_bytes());
        }
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.body.len() <= 1
    }

    /// The bytes for the journal.
    ///
    /// # Errors
    /// zstd cannot allocate.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        packed::pack(&self.body, LEVEL)
    }
}

/// Appends a label set.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    varint::put(out, labels.len() as u64);
    for (name, value) in labels.iter() {
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
        VERSION => {}
        found => return Err(DecodeError::Unknown { what: "record version", found }),
    }
    let mut all = Vec::new();
    while !reader.is_empty() {
        let head = reader.unsigned()?;
        let labels = if head & 1 == 1 { Some(labels(&mut reader)?) } else { None };
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
        }

        #[test]
        fn records_come_back(
            series in prop::collection::vec(
                (0u64..1 << 40, any::<bool>(), prop::collection::vec((any::<i64>(), any::<u64>()), 0..5)),
                0..20,
            )
        ) {
            let mut writer = RecordWriter::default();
            let labels = Labels::new([("__name__", "up"), ("instance", "h1")]);
            let pair = |&(t, bits): &(i64, u64)| Sample { t, v: f64::from_bits(bits) };
            for (id, declared, samples) in &series {
                let samples: Vec<Sample> = samples.iter().map(pair).collect();
                writer.push(*id, declared.then_some(&labels), &samples);
            }
            let back = decode(&writer.finish().unwrap()).unwrap();
            prop_assert_eq!(back.len(), series.len());
            for (got, (id, declared, samples)) in back.iter().zip(&series) {
                let bits: Vec<(i64, u64)> = got.samples.iter().map(|s| (s.t, s.v.to_bits())).collect();
                prop_assert_eq!((got.id, got.labels.is_some(), &bits), (*id, *declared, samples));
            }
        }
    }
}
