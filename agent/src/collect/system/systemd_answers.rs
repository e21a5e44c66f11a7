//! What `systemctl` answers, read.

use std::collections::{BTreeMap, BTreeSet};

/// A line of `systemctl list-units`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit<'a> {
    pub(super) name: &'a str,
    /// `loaded`, `not-found`, `masked`, …
    pub(super) load: &'a str,
    /// `active`, `failed`, …
    pub(super) active: &'a str,
}

/// What `systemctl show` says of a unit; `None` where its kind has no such thing.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Details {
    /// A service's type, `notify` or `oneshot`; empty for others.
    pub(super) kind: String,
    pub(super) restarts: Option<f64>,
    pub(super) accepted: Option<f64>,
    pub(super) connections: Option<f64>,
    pub(super) refused: Option<f64>,
}

/// Most units that are read: what is beyond that is no host of ours.
const UNITS_MAX: usize = 16_384;

impl<'a> Unit<'a> {
    /// What stands after the name's last dot.
    pub(super) fn kind(&self) -> &'a str {
        self.name.rsplit_once('.').map_or("", |(_, kind)| kind)
    }
}

/// Reads `list-units --plain --no-legend`: name, load, active, sub, description. Old versions put a dot before units that
/// failed. A name that comes twice counts once.
pub(super) fn units(out: &str) -> Vec<Unit<'_>> {
    let mut names = BTreeSet::new();
    let mut units = Vec::new();
    for line in out.lines().take(UNITS_MAX) {
        let mut words = line.split_ascii_whitespace().skip_while(|word| matches!(*word, "●" | "*"));
        let (Some(name), Some(load), Some(active)) = (words.next(), words.next(), words.next()) else { continue };
        if names.insert(name) {
            units.push(Unit { name, load, active });
        }
    }
    units
}

/// Reads `show`: blocks of `Key=value` with an empty line between them.
pub(super) fn details(out: &str) -> BTreeMap<String, Details> {
    let mut all = BTreeMap::new();
    for block in out.split("\n\n").take(UNITS_MAX) {
        let mut details = Details::default();
        let mut name = "";
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            let number = value.parse::<u64>().ok().map(|number| number as f64);
            match key {
                "Id" => name = value,
                "Type" => value.clone_into(&mut details.kind),
                "NRestarts" => details.restarts = number,
                "NAccepted" => details.accepted = number,
                "NConnections" => details.connections = number,
                "NRefused" => details.refused = number,
                _ => {}
            }
        }
        if !name.is_empty() {
            all.insert(name.to_owned(), details);
        }
    }
    all
}

/// Reads `--version`, whose first line is `systemd 252 (252.39-1~deb12u2)`; old versions have no parentheses.
pub(super) fn version(out: &str) -> Option<String> {
    let mut words = out.lines().next()?.split_ascii_whitespace().skip(1);
    let number = words.next()?;
    let whole = words.next().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
    Some(whole.unwrap_or(number).chars().take(100).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    const LIST: &str =
        "● a.service loaded failed failed A b\nsystem-getty.slice loaded active active Slice /system/getty\n";
    const SHOW: &str = "Type=notify\nNRestarts=2\nId=a.service\n\nId=b.socket\nNAccepted=5\nNConnections=x\n";

    #[test]
    fn lists_and_details() {
        let read = units(LIST);
        assert_eq!(read[0], Unit { name: "a.service", load: "loaded", active: "failed" });
        assert_eq!(read[1].kind(), "slice");
        let known = details(SHOW);
        assert_eq!(
            known["a.service"],
            Details { kind: "notify".to_owned(), restarts: Some(2.0), ..Details::default() }
        );
        assert_eq!((known["b.socket"].accepted, known["b.socket"].connections), (Some(5.0), None));
        assert_eq!(version("systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT\n").as_deref(), Some("252.39-1~deb12u2"));
        assert_eq!(version("systemd 219\n").as_deref(), Some("219"));
        assert_eq!((units(LIST).len(), version(""), units("x\n").len()), (2, None, 0));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(list in trial::near(LIST), show in trial::near(SHOW)) {
            let (list, show) = (String::from_utf8_lossy(&list), String::from_utf8_lossy(&show));
            let _ = (units(&list), details(&show), version(&list));
        }
    }
}
