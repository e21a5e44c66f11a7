//! Where Pacemaker may and may not run a resource: the location constraints of the cluster's configuration, asked by
//! `cibadmin`. A ban that somebody forgot keeps guests from moving.

use std::path::PathBuf;
use std::time::Duration;

use super::pacemaker::marker;
use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};
use crate::xml;

/// Location constraints.
pub(super) struct Constraints {
    marker: PathBuf,
}

/// People change these.
const EVERY: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(10);
/// From this node's own copy, which also answers without quorum.
const ARGUMENTS: [&str; 4] = ["--query", "--local", "--scope", "constraints"];
/// The exit code for a cluster that does not run; the `pacemaker` collector tells that.
const NOT_CONNECTED: i32 = 102;

const COLUMNS: [Column; 1] = [(
    "ha_cluster_pacemaker_location_constraints",
    Gauge,
    "Resource location constraints. The value indicates the score.",
)];

impl Constraints {
    pub(super) fn new(roots: &Roots) -> Constraints {
        Constraints { marker: marker(roots) }
    }
}

impl Collector for Constraints {
    fn name(&self) -> &'static str {
        "pacemaker_constraints"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.marker)?;
        let said = ask("cibadmin", &ARGUMENTS, WITHIN)?;
        if said.code == Some(NOT_CONNECTED) {
            return Ok(());
        }
        read(&said.out).ok_or_else(|| refused("cibadmin", &ARGUMENTS, &said))?.append_to(families)
    }
}

/// Reads the constraints wherever in the configuration they stand; `None` for what is no configuration.
fn read(text: &str) -> Option<Columns> {
    let roots = xml::read(text).ok()?;
    let [root] = roots.as_slice() else { return None };
    let mut columns = Columns::new(&COLUMNS);
    for constraint in root.all().into_iter().filter(|element| element.name == "rsc_location") {
        let text_of = |name| constraint.attribute(name).unwrap_or_default();
        let score = match text_of("score") {
            "INFINITY" | "+INFINITY" => f64::INFINITY,
            "-INFINITY" => f64::NEG_INFINITY,
            score => score.parse().unwrap_or(0.0),
        };
        let role = text_of("role").to_lowercase();
        let labels =
            [("constraint", text_of("id")), ("node", text_of("node")), ("resource", text_of("rsc")), ("role", &role)];
        columns.push(COLUMNS[0].0, &labels, score);
    }
    Some(columns)
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    drop(read(text));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::peer::assert_covers;
    use super::*;

    #[test]
    fn every_series_of_the_usual_exporter_is_there() {
        let theirs = include_str!("../../../testdata/pacemaker/exporter.prom");
        let theirs: String =
            theirs.split_inclusive('\n').filter(|line| line.contains("location_constraints")).collect();
        assert!(theirs.contains("cli-ban-vm-b-on-h1"));
        assert_covers(&read(include_str!("../../../testdata/pacemaker/cib.xml")).unwrap().render(), &theirs);
        assert_eq!(read("<constraints/>").unwrap().render(), "");
        assert!(read("Call cib_query failed").is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(<rsc_location( (id|score|rsc)=\"[^<\"]{0,8}\"){0,3}/?>|\\PC){0,8}") {
            drop(read(&text));
        }
    }
}
