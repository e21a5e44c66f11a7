//! Whose guest it is. Petrel's only when local config claims it and nobody else is found; whatever is not understood
//! makes it foreign. Pure.

use std::collections::BTreeMap;

use super::domain::Domain;
use crate::stream::protocol::Owner;

/// What the cluster manager of the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster {
    /// There is none.
    Absent,
    /// The guests it manages, each with its resource.
    Guests(BTreeMap<String, String>),
    /// There is one, and what it manages cannot be read.
    Unreadable(String),
}

/// An owner that is known by name: its word in metrics, and its name for people.
type Known = (&'static str, &'static str);

const NOVA: Known = ("nova", "OpenStack Nova");
const OVIRT: Known = ("ovirt", "oVirt (vdsm)");
const KUBEVIRT: Known = ("kubevirt", "KubeVirt");
const CLOUDSTACK: Known = ("cloudstack", "CloudStack");
/// The word for a guest whose owner is not known.
const UNKNOWN: &str = "unknown";

/// Namespaces of metadata, by their beginning, that name an owner.
const OWNERS: [(&str, Known); 5] = [
    ("http://openstack.org/xmlns/libvirt/nova", NOVA),
    ("http://ovirt.org/", OVIRT),
    ("http://kubevirt.io", KUBEVIRT),
    ("https://kubevirt.io", KUBEVIRT),
    ("http://cloudstack.apache.org", CLOUDSTACK),
];
/// Words in the firmware tables that name an owner, lower case.
const FIRMWARE: [(&str, Known); 5] =
    [("openstack", NOVA), ("ovirt", OVIRT), ("rhev", OVIRT), ("kubevirt", KUBEVIRT), ("cloudstack", CLOUDSTACK)];
/// Namespaces of metadata, by their beginning, that describe a guest and own nothing.
const DESCRIPTIONS: [&str; 3] = [
    "http://libosinfo.org/xmlns/libvirt/domain/",
    "http://libosinfo.org/linux/",
    "https://github.com/cockpit-project/cockpit-machines",
];

/// What the host's config says.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// Name patterns and UUIDs.
    pub own: &'a [String],
    /// Metadata namespaces that own nothing.
    pub metadata_ignored: &'a [String],
}

/// Decides.
pub fn owner(domain: &Domain, claims: &Claims<'_>, cluster: &Cluster) -> Owner {
    match foreign(domain, claims, cluster) {
        None => Owner::Petrel,
        Some((_, reason)) => Owner::Foreign { reason },
    }
}

/// The owner's word in metrics: `petrel`, `pacemaker`, `nova`, `ovirt`, `kubevirt`, `cloudstack` or `unknown`.
pub fn owner_word(domain: &Domain, claims: &Claims<'_>, cluster: &Cluster) -> &'static str {
    foreign(domain, claims, cluster).map_or("petrel", |(word, _)| word)
}

/// Why the guest is not Petrel's, with the owner's word.
fn foreign(domain: &Domain, claims: &Claims<'_>, cluster: &Cluster) -> Option<(&'static str, String)> {
    for namespace in &domain.metadata {
        if let Some((_, (word, owner))) = OWNERS.iter().find(|(known, _)| namespace.starts_with(known)) {
            return Some((word, format!("it belongs to {owner}, by its metadata")));
        }
        let described = DESCRIPTIONS.iter().any(|known| namespace.starts_with(known));
        if !described && !claims.metadata_ignored.contains(namespace) {
            return Some((
                UNKNOWN,
                format!(
                    "its metadata {namespace} may name an owner that Petrel does not know; if not, list it under metadata_ignored"
                ),
            ));
        }
    }
    let firmware = domain.firmware.to_lowercase();
    if let Some((_, (word, owner))) = FIRMWARE.iter().find(|(word, _)| firmware.contains(word)) {
        return Some((word, format!("it belongs to {owner}, by its firmware tables")));
    }
    match cluster {
        Cluster::Absent => {}
        Cluster::Guests(guests) => {
            if let Some(resource) = guests.get(&domain.name) {
                return Some(("pacemaker", format!("it is Pacemaker's resource {resource}")));
            }
        }
        Cluster::Unreadable(reason) => return Some((UNKNOWN, format!("Pacemaker may own it: {reason}"))),
    }
    let claimed =
        claims.own.iter().any(|claim| claim.eq_ignore_ascii_case(&domain.uuid) || matches(claim, &domain.name));
    (!claimed).then(|| (UNKNOWN, "this host's config does not claim it (drive.libvirt.own)".to_owned()))
}

/// Whether a name fits a pattern with `*` and `?`. O(pattern · name), without recursion.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p).is_some_and(|letter| *letter == '?' || *letter == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            // The last star takes one letter more.
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(change: impl FnOnce(&mut Domain), cluster: &Cluster, expected: &Expect) {
        let mut domain = Domain { uuid: "0b1c".to_owned(), name: "vm1".to_owned(), ..Domain::default() };
        change(&mut domain);
        let own = ["vm*".to_owned(), "0B1C".to_owned()];
        let claims = Claims { own: &own, metadata_ignored: &["urn:ours".to_owned()] };
        expected.assert_eq(&match owner(&domain, &claims, cluster) {
            Owner::Petrel => "Petrel".to_owned(),
            Owner::Foreign { reason } => reason,
        });
    }

    #[test]
    fn claimed_and_nobody_elses() {
        check(|_| {}, &Cluster::Absent, &expect!["Petrel"]);
        check(|domain| domain.name = "db".to_owned(), &Cluster::Guests(BTreeMap::new()), &expect!["Petrel"]);
        check(
            |domain| {
                domain.metadata =
                    vec!["http://libosinfo.org/xmlns/libvirt/domain/1.0".to_owned(), "urn:ours".to_owned()];
            },
            &Cluster::Absent,
            &expect!["Petrel"],
        );
    }

    #[test]
    fn every_doubt_makes_it_foreign() {
        check(
            |domain| (domain.name, domain.uuid) = ("db".to_owned(), "1".to_owned()),
            &Cluster::Absent,
            &expect!["this host's config does not claim it (drive.libvirt.own)"],
        );
        check(
            |_| {},
            &Cluster::Guests(BTreeMap::from([("vm1".to_owned(), "res-vm1".to_owned())])),
            &expect!["it is Pacemaker's resource res-vm1"],
        );
        check(
            |_| {},
            &Cluster::Unreadable("cibadmin cannot be run".to_owned()),
            &expect!["Pacemaker may own it: cibadmin cannot be run"],
        );
        check(
            |domain| domain.metadata = vec!["http://openstack.org/xmlns/libvirt/nova/1.1".to_owned()],
            &Cluster::Absent,
            &expect!["it belongs to OpenStack Nova, by its metadata"],
        );
        check(
            |domain| domain.metadata = vec!["urn:other".to_owned()],
            &Cluster::Absent,
            &expect![
                "its metadata urn:other may name an owner that Petrel does not know; if not, list it under metadata_ignored"
            ],
        );
        check(
            |domain| domain.firmware = "oVirt oVirt Node".to_owned(),
            &Cluster::Absent,
            &expect!["it belongs to oVirt (vdsm), by its firmware tables"],
        );
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("vm*", "vm1", true),
            ("vm*", "xvm1", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "abc", false),
            ("v?1", "vm1", true),
            ("v?1", "v1", false),
            ("", "a", false),
            ("vm1", "vm1", true),
            ("vm1", "vm11", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
