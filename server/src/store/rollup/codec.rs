//! Rows as bytes: a column for each of their parts, each a chunk of the ordinary codec; columns that follow from others take a
//! byte. The layout stands in docs/formats/store.md.

use super::row::Row;
use crate::series::{Sample, Timestamp};
use crate::store::chunk::{self, Effort, EncodeError};
use crate::store::varint::{self, DecodeError, Reader};

const VERSION: u8 = 1;

/// A column: what a row has there, and what it would have if the column were left out.
struct Column {
    get: fn(&Row) -> f64,
    implied: fn(&Row) -> f64,
    set: fn(&mut Row, f64),
}

/// All columns but the count, which carries the rows' times, in the order of the layout: each may be implied by those before.
const COLUMNS: [Column; 8] = [
    Column {
        get: |row| row.begin.saturating_sub(row.start) as f64,
        implied: |_| 0.0,
        set: |row, v| row.begin = row.start.saturating_add(v as i64),
    },
    Column {
        get: |row| row.end.saturating_sub(row.start) as f64,
        implied: |row| row.begin.saturating_sub(row.start) as f64,
        set: |row, v| row.end = row.start.saturating_add(v as i64),
    },
    Column { get: |row| row.first, implied: |_| 0.0, set: |row, v| row.first = v },
    Column { get: |row| row.last, implied: |row| row.first, set: |row, v| row.last = v },
    Column {
        get: |row| row.least,
        implied: |row| if row.last < row.first { row.last } else { row.first },
        set: |row, v| row.least = v,
    },
    Column {
        get: |row| row.greatest,
        implied: |row| if row.last > row.first { row.last } else { row.first },
        set: |row, v| row.greatest = v,
    },
    Column { get: |row| row.sum, implied: |row| row.first * row.count as f64, set: |row, v| row.sum = v },
    Column { get: |row| row.increase, implied: |row| row.last - row.first, set: |row, v| row.increase = v },
];

/// Encodes 1 to 1440 rows, sorted and unique in time.
///
/// # Errors
/// The codec refuses; no data does that.
pub fn encode(rows: &[Row]) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![VERSION];
    let counts: Vec<Sample> = rows.iter().map(|row| Sample { t: row.start, v: row.count as f64 }).collect();
    varint::put_bytes(&mut out, &chunk::encode(&counts, Effort::Best)?);
    for column in &COLUMNS {
        let is_implied = rows.iter().all(|row| (column.get)(row).to_bits() == (column.implied)(row).to_bits());
        put(&mut out, rows, column.get, is_implied)?;
    }
    let ended = |row: &Row| row.ended.map_or(0.0, |at| (at - row.start + 1) as f64);
    put(&mut out, rows, ended, rows.iter().all(|row| row.ended.is_none()))?;
    Ok(out)
}

fn put(out: &mut Vec<u8>, rows: &[Row], get: impl Fn(&Row) -> f64, is_implied: bool) -> Result<(), EncodeError> {
    if is_implied {
        varint::put_bytes(out, &[]);
        return Ok(());
    }
    // The rows' numbers stand for times, which then take no room.
    let values: Vec<Sample> = rows.iter().enumerate().map(|(at, row)| Sample { t: at as i64, v: get(row) }).collect();
    varint::put_bytes(out, &chunk::encode(&values, Effort::Best)?);
    Ok(())
}

/// Decodes rows.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn decode(body: &[u8]) -> Result<Vec<Row>, DecodeError> {
    let mut reader = Reader(body);
    match reader.byte()? {
        VERSION => {}
        found => return Err(DecodeError::Unknown { what: "rollup version", found }),
    }
    let counts = chunk::decode(reader.bytes()?)?;
    let with_count = |sample: Sample| Row { count: sample.v as u64, ..Row::empty(sample.t) };
    let mut rows: Vec<Row> = counts.into_iter().map(with_count).collect();
    for column in &COLUMNS {
        match values(&mut reader, rows.len())? {
            Some(values) => rows.iter_mut().zip(values).for_each(|(row, sample)| (column.set)(row, sample.v)),
            None => rows.iter_mut().for_each(|row| (column.set)(row, (column.implied)(row))),
        }
    }
    if let Some(ended) = values(&mut reader, rows.len())? {
        for (row, sample) in rows.iter_mut().zip(ended) {
            row.ended = (sample.v >= 1.0).then_some(row.start + sample.v as Timestamp - 1);
        }
    }
    Ok(rows)
}

fn values(reader: &mut Reader<'_>, count: usize) -> Result<Option<Vec<Sample>>, DecodeError> {
    let body = reader.bytes()?;
    if body.is_empty() {
        return Ok(None);
    }
    let values = chunk::decode(body)?;
    if values.len() != count {
        return Err(DecodeError::Impossible { what: "length of a rollup's column" });
    }
    Ok(Some(values))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::row::from_samples;
    use super::*;
    use crate::series::STALE_NAN_BITS;

    fn bits(row: &Row) -> (i64, u64, i64, i64, [u64; 6], Option<i64>) {
        let values = [row.first, row.last, row.least, row.greatest, row.sum, row.increase];
        (row.start, row.count, row.begin, row.end, values.map(f64::to_bits), row.ended)
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => (0i64..1000).prop_map(|n| n as f64 / 10.0),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(f64::from_bits(STALE_NAN_BITS)),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back(steps in prop::collection::vec((1i64..200_000, any_value()), 1..300)) {
            let mut t = 1_700_000_000_000;
            let samples: Vec<Sample> = steps.into_iter().map(|(step, v)| { t += step; Sample { t, v } }).collect();
            let rows = from_samples(&samples, 300_000);
            let back = decode(&encode(&rows).unwrap()).unwrap();
            prop_assert_eq!(back.iter().map(bits).collect::<Vec<_>>(), rows.iter().map(bits).collect::<Vec<_>>());
        }

        #[test]
        fn damage_is_an_error_or_other_rows_but_never_a_panic(at in 0usize..400, xor in 1u8..) {
            let samples: Vec<Sample> = (0..3000).map(|i| Sample { t: i * 10_000, v: (i * i % 37) as f64 / 8.1 }).collect();
            let mut body = encode(&from_samples(&samples, 300_000)).unwrap();
            let at = at % body.len();
            body[at] ^= xor;
            let _ = decode(&body);
            body.truncate(at);
            prop_assert!(decode(&body).is_err());
        }
    }

    #[test]
    fn a_day_of_rows_takes_little_room() {
        let bytes = |value: fn(i64) -> f64| {
            let samples: Vec<Sample> = (0..8640).map(|i| Sample { t: i * 10_000, v: value(i) }).collect();
            encode(&from_samples(&samples, 300_000)).unwrap().len()
        };
        let constant = bytes(|_| 1.0);
        let counter = bytes(|i| (i * 7 + i * i % 13) as f64);
        assert!(constant < 100 && counter < 2_500, "constant {constant}, counter {counter}");
    }
}
