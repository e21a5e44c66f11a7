//! A store in a directory of its own that can be stopped and killed, for tests that look at it from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::query::source::{Source as _, TimeRange};
use crate::series::{Labels, Sample, Timestamp};
use crate::store::{Batch, Store, StoreOptions};

pub const NOW: Timestamp = 1_790_000_000_000;
pub const ALL: TimeRange = TimeRange { from: 0, to: i64::MAX };

/// Takes samples of any age and keeps no reserve.
pub fn options() -> StoreOptions {
    StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() }
}

pub fn open_with(dir: &Path, options: StoreOptions) -> Arc<Store> {
    Store::open(dir, options, &[], NOW).unwrap()
}

pub fn labels(n: u8) -> Labels {
    Labels::new([("__name__", "m".to_owned()), ("n", n.to_string())])
}

pub struct World {
    pub dir: TempDir,
    pub store: Arc<Store>,
    options: StoreOptions,
}

impl World {
    pub fn new(options: StoreOptions) -> World {
        let dir = tempfile::tempdir().unwrap();
        World { store: open_with(dir.path(), options.clone()), dir, options }
    }

    pub fn append(&self, n: u8, pairs: &[(i64, f64)]) {
        self.append_at(n, pairs, NOW);
    }

    pub fn append_at(&self, n: u8, pairs: &[(i64, f64)], now: Timestamp) {
        let samples = pairs.iter().map(|&(t, v)| Sample { t, v }).collect();
        let batch = Batch { series: vec![(labels(n), samples)], ..Batch::default() };
        let committed = self.store.append_blocking(batch, now).unwrap();
        assert!(committed.refused.is_empty(), "{:?}", committed.refused);
    }

    pub fn reopen(&mut self) {
        self.store.close();
        self.store = open_with(self.dir.path(), self.options.clone());
    }

    /// Goes on with the files as `kill -9` would leave them now: nothing is closed or flushed.
    pub fn crash(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        self.store = open_with(copy.path(), self.options.clone());
        self.dir = copy;
    }

    pub fn contents(&self, range: TimeRange) -> BTreeMap<String, Vec<(i64, u64)>> {
        let selected = self.store.select(&[], range, u64::MAX).unwrap();
        let bits = |samples: &[Sample]| samples.iter().map(|sample| (sample.t, sample.v.to_bits())).collect();
        selected.into_iter().map(|one| (one.labels.to_string(), bits(&one.samples))).collect()
    }
}
