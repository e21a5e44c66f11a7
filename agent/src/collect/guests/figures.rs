//! What `virsh domstats` says of guests, as series with the names of the usual libvirt exporters (Tinkoff's and its heirs), each
//! with the guest's name and UUID as Debian's exporter has them: a guest keeps its UUID where its host changes. Times are
//! seconds and sizes bytes; a figure that libvirt does not give has no series. Pure.

use std::collections::BTreeMap;

use super::super::{Family, Kind};
use super::rules::{BLOCK, GUEST, NET, Rule, VCPU};
use crate::libvirt::domstats::Record;

/// Guests that are told; a host with more is none that we know of, and its series would drown the rest.
pub(super) const GUESTS_MAX: usize = 2000;
/// Processors, disks and network cards of one guest that are told, each.
const DEVICES_MAX: u32 = 512;

/// The families of all guests, filled guest by guest.
pub(super) struct Figures {
    guest: Vec<Family>,
    vcpu: Vec<Family>,
    block: Vec<Family>,
    net: Vec<Family>,
    perf: Family,
    used: Family,
}

impl Figures {
    /// Series of all guests in the answers to `domstats`; those without a known UUID came or went meanwhile and are left
    /// out. O(text).
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a Record<'a>>, uuids: &BTreeMap<&str, &str>) -> Vec<Family> {
        let table = |rules: &[Rule]| rules.iter().map(|rule| Family::new(rule.kind, rule.metric, rule.help)).collect();
        let mut figures = Figures {
            guest: table(&GUEST),
            vcpu: table(&VCPU),
            block: table(&BLOCK),
            net: table(&NET),
            perf: Family::new(
                Kind::Untyped,
                "petrel_guest_perf_events",
                "The guest's performance events that are switched on, by libvirt's name.",
            ),
            used: Family::new(
                Kind::Gauge,
                "libvirt_domain_memory_stats_used_percent",
                "The amount of memory in percent, that used by domain.",
            ),
        };
        for record in records.take(GUESTS_MAX) {
            if let Some(uuid) = uuids.get(record.name) {
                figures.add(record, uuid);
            }
        }
        let Figures { guest, vcpu, block, net, perf, used } = figures;
        [guest, vcpu, block, net, vec![perf, used]].concat()
    }

    fn add(&mut self, record: &Record<'_>, uuid: &str) {
        let name = record.name;
        // The device whose keys come now, and its name, which comes first.
        let (mut place, mut device) = ("", "");
        for (key, value) in &record.values {
            let Some((group, rest)) = key.split_once('.') else { continue };
            if let Some(at) = GUEST.iter().position(|rule| rule.key == *key) {
                fill(&GUEST[at], &mut self.guest[at], value, &[("domain", name), ("uuid", uuid)]);
                continue;
            }
            if group == "perf" {
                if let Ok(value) = value.parse::<f64>() {
                    self.perf.push(&[("domain", name), ("event", rest), ("uuid", uuid)], value);
                }
                continue;
            }
            let Some((number, figure)) = rest.split_once('.') else { continue };
            if number.parse::<u32>().is_ok_and(|number| number >= DEVICES_MAX) {
                continue;
            }
            let here = &key[..key.len() - figure.len()];
            if here != place {
                (place, device) = (here, "");
            }
            if figure == "name" {
                device = value;
                continue;
            }
            let (rules, families): (&[Rule], _) = match group {
                "vcpu" => (&VCPU, &mut self.vcpu),
                "block" => (&BLOCK, &mut self.block),
                "net" => (&NET, &mut self.net),
                _ => continue,
            };
            let Some(at) = rules.iter().position(|rule| rule.key == figure) else { continue };
            let labels = match group {
                "vcpu" => [("domain", name), ("uuid", uuid), ("vcpu", number)],
                _ if device.is_empty() => continue,
                _ => [("domain", name), ("target_device", device), ("uuid", uuid)],
            };
            fill(&rules[at], &mut families[at], value, &labels);
        }
        let number = |key: &str| record.get(key).and_then(|value| value.parse::<f64>().ok());
        if let (Some(available), Some(usable)) = (number("balloon.available"), number("balloon.usable"))
            && available > 0.0
        {
            self.used.push(&[("domain", name), ("uuid", uuid)], (available - usable) / available * 100.0);
        }
    }
}

/// Adds a figure, unless libvirt gives no number for it.
fn fill(rule: &Rule, family: &mut Family, value: &str, labels: &[(&'static str, &str)]) {
    if let Ok(value) = value.parse::<f64>() {
        family.push(labels, value / rule.unit);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::text::render;
    use crate::libvirt::domstats::records;

    #[test]
    fn figures_of_a_recorded_host() {
        let all = records(include_str!("../../../testdata/virsh-domstats.txt")).unwrap();
        let uuids = BTreeMap::from([
            ("vm1", "a7050ba4-4774-4ddd-b1f8-5d221a2c7c29"),
            ("vm2", "8cef8144-7567-4b38-94f2-8e338a467cd5"),
        ]);
        let text = render(&Figures::of(all.iter(), &uuids));
        let told: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        expect_file!["../../../testdata/virsh-domstats.prom"].assert_eq(&(told.join("\n") + "\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(Domain: 'vm1'\n|  (vcpu|block|net|balloon|perf|state)\\.[0-9]{0,4}\\.?(name|time|rd\\.bytes|usable)?=.{0,4}\n){0,40}") {
            let all = records(&text).unwrap();
            Figures::of(all.iter(), &BTreeMap::from([("vm1", "u")]));
        }
    }
}
