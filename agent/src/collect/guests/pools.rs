//! libvirt's storage pools, from `virsh pool-info`: how large, how much is allocated, whether they run. libvirt answers from what
//! it knew at the pool's last refresh, so asking once a minute misses nothing.

use std::sync::Arc;
use std::time::Duration;

use super::super::{CollectError, Collector, Family, Kind, Pace};
use super::LibvirtSource;
use crate::libvirt::Answer;

/// Time from one reading to the next.
const EVERY: Duration = Duration::from_secs(60);
/// What a reading may take: two questions.
const WITHIN: Duration = Duration::from_secs(8);
/// What a question may take. A pool on dead storage may hang, and keeps the questions about guests waiting for so long.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Pools that are told.
const POOLS_MAX: usize = 256;

/// The collector.
pub(super) struct Pools {
    source: Arc<LibvirtSource>,
}

impl Pools {
    pub(super) fn new(source: Arc<LibvirtSource>) -> Pools {
        Pools { source }
    }
}

impl Collector for Pools {
    fn name(&self) -> &'static str {
        "libvirt_pools"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if let Some(socket) = self.source.missing() {
            return Err(CollectError::Absent { path: socket.to_owned() });
        }
        let list = self.source.ask(&["pool-list --all --uuid"], ANSWER_WITHIN)?.pop().unwrap_or_default();
        if list.words.contains("no connection driver") || list.words.contains("not supported") {
            return Err(CollectError::Absent { path: "libvirt's storage driver".into() });
        }
        if !list.words.is_empty() {
            return Err(CollectError::Asked(format!("virsh said: {}", list.words)));
        }
        let commands: Vec<String> =
            list.out.split_whitespace().take(POOLS_MAX).map(|uuid| format!("pool-info --bytes {uuid}")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        families.extend(pools(&self.source.ask(&commands, ANSWER_WITHIN)?));
        Ok(())
    }
}

/// Series of all pools. One that went meanwhile says nothing.
fn pools(answers: &[Answer]) -> Vec<Family> {
    let gauge = |metric: &'static str, help: &'static str| Family::new(Kind::Gauge, metric, help);
    let mut running = gauge("petrel_pool_running", "Whether the storage pool is active.");
    let mut sizes = [
        ("Capacity", gauge("libvirt_pool_info_capacity_bytes", "Pool capacity, in bytes")),
        ("Allocation", gauge("libvirt_pool_info_allocation_bytes", "Pool allocation, in bytes")),
        ("Available", gauge("libvirt_pool_info_available_bytes", "Pool available, in bytes")),
    ];
    for answer in answers {
        let value = |wanted: &str| {
            let mut pairs = answer.out.lines().filter_map(|line| line.split_once(':'));
            pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim())
        };
        let (Some(name), Some(state)) = (value("Name"), value("State")) else { continue };
        let labels = [("pool", name)];
        running.push(&labels, f64::from(u8::from(state == "running")));
        for (key, family) in &mut sizes {
            if let Some(bytes) = value(key).and_then(|bytes| bytes.parse::<u64>().ok()) {
                family.push(&labels, bytes as f64);
            }
        }
    }
    std::iter::once(running).chain(sizes.map(|(_, family)| family)).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::text::render;

    /// As virsh 9.0.0 of the lab said it, of a pool that runs and one that does not.
    const RUNS: &str = "Name:           images\nUUID:           0d54e9d5-9a2a-4c38-a789-4e6c0fbcefec\nState:          running\n\
        Persistent:     yes\nAutostart:      no\nCapacity:       270553174016\nAllocation:     66569330688\nAvailable:      203983843328\n\n";
    const RESTS: &str =
        "Name:           old\nUUID:           1\nState:          inactive\nPersistent:     yes\nAutostart:      no\n\n";

    #[test]
    fn pools_have_sizes_while_they_run() {
        let answers = [RUNS, RESTS, ""].map(|out| Answer { out: out.to_owned(), words: String::new() });
        let text = render(&pools(&answers));
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            petrel_pool_running{pool="images"} 1
            petrel_pool_running{pool="old"} 0
            libvirt_pool_info_capacity_bytes{pool="images"} 270553174016
            libvirt_pool_info_allocation_bytes{pool="images"} 66569330688
            libvirt_pool_info_available_bytes{pool="images"} 203983843328"#]]
        .assert_eq(&told.join("\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(out in "(Name: |State: |Capacity: |.|\n){0,40}") {
            pools(&[Answer { out, words: String::new() }]);
        }
    }
}
