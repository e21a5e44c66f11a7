//! `/proc/net/stat/*`: what the kernel's network caches (neighbours, connection tracking) did, by processor. Off by
//! default: `conntrack` sums what matters.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::collect::attribute::names_in;
use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::NamedFamilies;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Network caches.
pub(super) struct Lnstat {
    folder: PathBuf,
    files: Vec<(String, KernelFile)>,
}

/// Most files that are kept open; kernels have about six.
const FILES_MAX: usize = 32;

impl Lnstat {
    pub(super) fn new(roots: &Roots) -> Lnstat {
        Lnstat { folder: roots.procfs.join("net/stat"), files: Vec::new() }
    }
}

impl Collector for Lnstat {
    fn name(&self) -> &'static str {
        "lnstat"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.files.is_empty() {
            let names = names_in(&self.folder).unwrap_or_default();
            let open = |name: String| {
                let file = KernelFile::new(self.folder.join(&name));
                (name, file)
            };
            self.files = names.into_iter().take(FILES_MAX).map(open).collect();
        }
        if self.files.is_empty() {
            return Err(CollectError::Absent { path: self.folder.clone() });
        }
        let mut named = NamedFamilies::default();
        let outcome = self.files.iter_mut().try_for_each(|(name, file)| parse(&file.read()?, name, &mut named));
        if outcome.is_err() {
            // A module that was unloaded took its file along.
            self.files.clear();
        }
        families.extend(named.into_families());
        outcome
    }
}

/// A line of names, then a line of hexadecimal numbers for each processor.
fn parse(text: &KernelText<'_>, subsystem: &str, named: &mut NamedFamilies) -> Result<(), CollectError> {
    let mut lines = text.lines();
    let mut seen = BTreeSet::new();
    let names: Vec<(&str, bool)> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(|name| (name, seen.insert(name))).collect();
    for (processor, line) in lines.enumerate() {
        let processor = processor.to_string();
        for ((name, is_first), field) in names.iter().zip(line.split_ascii_whitespace()) {
            let value = u64::from_str_radix(field, 16).map_err(|_| text.malformed(line))?;
            if !is_first {
                continue;
            }
            let make = || {
                let metric: String =
                    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
                Family::new(Kind::Counter, format!("node_lnstat_{metric}_total"), "linux network cache stats")
            };
            named.at(name, make).push(&[("cpu", &processor), ("subsystem", subsystem)], value as f64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "entries  allocs hits\n00000014  0000000a 0000000b\n00000014  0000000c 0000000d\n";

    #[test]
    fn two_files_share_families() {
        let mut named = NamedFamilies::default();
        parse(&KernelText::of(SAMPLE.as_bytes()), "arp_cache", &mut named).unwrap();
        parse(&KernelText::of(b"entries drop\n01 02\n"), "nf_conntrack", &mut named).unwrap();
        expect![[r#"
            node_lnstat_entries_total{cpu="0",subsystem="arp_cache"} 20
            node_lnstat_entries_total{cpu="1",subsystem="arp_cache"} 20
            node_lnstat_entries_total{cpu="0",subsystem="nf_conntrack"} 1
            node_lnstat_allocs_total{cpu="0",subsystem="arp_cache"} 10
            node_lnstat_allocs_total{cpu="1",subsystem="arp_cache"} 12
            node_lnstat_hits_total{cpu="0",subsystem="arp_cache"} 11
            node_lnstat_hits_total{cpu="1",subsystem="arp_cache"} 13
            node_lnstat_drop_total{cpu="0",subsystem="nf_conntrack"} 2
        "#]]
        .assert_eq(&trial::series(&text::render(&named.into_families())));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), "x", &mut NamedFamilies::default());
        }
    }
}
