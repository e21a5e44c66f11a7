//! `/sys/class/powercap`: energy that processors, their memory and the whole board used (RAPL). Only root may read it on
//! most kernels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{NamedFamilies, number};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Energy.
pub(super) struct Rapl {
    class: PathBuf,
    reader: AttributeReader,
}

/// Most zones: a machine with eight processors has about 30.
const ZONES_MAX: usize = 256;

impl Rapl {
    pub(super) fn new(roots: &Roots) -> Rapl {
        Rapl { class: roots.sysfs.join("class/powercap"), reader: AttributeReader::new() }
    }
}

impl Collector for Rapl {
    fn name(&self) -> &'static str {
        "rapl"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let zones = names_in(&self.class).unwrap_or_default();
        let mut named = NamedFamilies::default();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for zone in zones.iter().take(ZONES_MAX) {
            let folder = self.class.join(zone);
            // The control type itself, `intel-rapl`, has neither name nor energy.
            let Some(name) = self.reader.word(&folder.join("name")) else { continue };
            let (name, index) = split(&name, &mut seen);
            let Ok(energy) = self.reader.read(&folder.join("energy_uj")) else { continue };
            let Some(microjoules) = number(&energy) else { continue };
            let make = || {
                let metric = format!("node_rapl_{}_joules_total", metric_part(&name));
                Family::new(Kind::Counter, metric, format!("Current RAPL {name} value in joules"))
            };
            let labels = [("index", index.as_str()), ("path", &*folder.to_string_lossy())];
            named.at(&metric_part(&name), make).push(&labels, microjoules / 1e6);
        }
        let found = named.into_families();
        if found.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("intel-rapl:0/energy_uj") });
        }
        families.extend(found);
        Ok(())
    }
}

/// `package-0` is the package with index 0; `dram` says no index, so they are counted.
fn split(name: &str, seen: &mut BTreeMap<String, u32>) -> (String, String) {
    let with_index = name.split_once('-').and_then(|(begin, index)| Some((begin, index.parse::<u32>().ok()?)));
    let (name, index) = with_index.unwrap_or((name, seen.get(name).copied().unwrap_or(0)));
    seen.insert(name.to_owned(), index.saturating_add(1));
    (name.to_owned(), index.to_string())
}

/// What may stand in a metric's name.
fn metric_part(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_counted_where_they_have_no_index() {
        let mut seen = BTreeMap::new();
        let told: Vec<String> = ["package-0", "dram", "package-1", "dram", "package-0-die-1", "psys"]
            .map(|name| {
                let (name, index) = split(name, &mut seen);
                format!("{}/{index}", metric_part(&name))
            })
            .to_vec();
        assert_eq!(told, ["package/0", "dram/0", "package/1", "dram/1", "package_0_die_1/0", "psys/0"]);
    }
}
