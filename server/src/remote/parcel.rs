//! Journal records cut into requests. Each series goes to one shard, and a shard's parcels keep the order of the commits: remote
//! engines want the samples of a series in the order of time, and Prometheus refuses what lies far behind its newest sample.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use super::wire::{self, WriteSeries};
use crate::series::{Labels, Sample};

/// Samples of one request, by series and time.
#[derive(Debug, Default)]
pub struct Parcel {
    series: Vec<Labels>,
    /// With the place of their series.
    samples: Vec<(u32, Sample)>,
}

impl Parcel {
    /// How many samples it has.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// The body of a request with some of its samples, compressed.
    pub fn body(&self, part: Range<usize>) -> Vec<u8> {
        let samples = self.samples.get(part).unwrap_or_default();
        let flat: Vec<Sample> = samples.iter().map(|(_, sample)| *sample).collect();
        let mut from = 0;
        let series = samples.chunk_by(|a, b| a.0 == b.0).filter_map(|run| {
            let of_series = flat.get(from..from + run.len())?;
            from += run.len();
            Some(WriteSeries { labels: self.series.get(run.first()?.0 as usize)?, samples: of_series })
        });
        let plain = wire::write_request(series);
        let mut packed = vec![0; snap::raw::max_compress_len(plain.len())];
        // Fails only for more than 4 GiB or too small a buffer; a request has a hundred thousand samples at most.
        let bytes = snap::raw::Encoder::new().compress(&plain, &mut packed).unwrap_or(0);
        packed.truncate(bytes);
        packed
    }

    /// In the order in which they go: by series, then by time. Of two samples at one time the later accepted stays.
    fn finish(&mut self) {
        self.samples.sort_by_key(|(series, sample)| (*series, sample.t));
        self.samples.reverse();
        self.samples.dedup_by_key(|(series, sample)| (*series, sample.t));
        self.samples.reverse();
    }
}

/// Cuts what was committed into parcels of so many samples, shard by shard.
pub struct Packer {
    batch_samples: usize,
    shards: Vec<Shard>,
}

#[derive(Default)]
struct Shard {
    parcels: Vec<Parcel>,
    open: Parcel,
    places: HashMap<Labels, u32>,
}

impl Packer {
    /// A packer of nothing yet.
    pub fn new(batch_samples: usize, shards: usize) -> Packer {
        Packer { batch_samples, shards: (0..shards.max(1)).map(|_| Shard::default()).collect() }
    }

    /// Adds the samples of a series, which were accepted later than those added before.
    pub fn add(&mut self, labels: &Labels, samples: &[Sample]) {
        let mut hasher = DefaultHasher::new();
        labels.hash(&mut hasher);
        let at = hasher.finish() % self.shards.len() as u64;
        let Some(shard) = self.shards.get_mut(at as usize) else { return };
        for sample in samples {
            let place = if let Some(place) = shard.places.get(labels) {
                *place
            } else {
                let place = shard.open.series.len() as u32;
                shard.open.series.push(labels.clone());
                shard.places.insert(labels.clone(), place);
                place
            };
            shard.open.samples.push((place, *sample));
            if shard.open.samples.len() >= self.batch_samples {
                shard.close();
            }
        }
    }

    /// The parcels of each shard, in the order in which they go.
    pub fn finish(self) -> Vec<Vec<Parcel>> {
        let finish = |mut shard: Shard| {
            shard.close();
            shard.parcels
        };
        self.shards.into_iter().map(finish).collect()
    }
}

impl Shard {
    fn close(&mut self) {
        if self.open.samples.is_empty() {
            return;
        }
        let mut parcel = std::mem::take(&mut self.open);
        parcel.finish();
        self.parcels.push(parcel);
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_goes_once_in_order_and_the_last_of_two_stays() {
        let name = |i: i64| Labels::new([("__name__", format!("m{i}"))]);
        let mut packer = Packer::new(3, 2);
        for t in 0..5 {
            for i in 0..4 {
                packer.add(&name(i), &[Sample { t, v: i as f64 }]);
            }
        }
        packer.add(&name(0), &[Sample { t: 4, v: 100.0 }]);
        let shards = packer.finish();
        let mut seen: HashMap<Labels, Vec<(i64, f64)>> = HashMap::new();
        for parcel in shards.iter().flatten() {
            assert!(parcel.len() <= 3);
            for (series, sample) in &parcel.samples {
                seen.entry(parcel.series[*series as usize].clone()).or_default().push((sample.t, sample.v));
            }
        }
        for i in 0..4 {
            let mut got = seen[&name(i)].clone();
            // Both may go where they fall into two parcels; then the later one goes later.
            got.reverse();
            got.dedup_by_key(|(t, _)| *t);
            got.reverse();
            let last = if i == 0 { 100.0 } else { i as f64 };
            let want: Vec<(i64, f64)> = (0..5).map(|t| (t, if t == 4 { last } else { i as f64 })).collect();
            assert_eq!(got, want, "series {i}");
        }
    }
}
