//! Pacemaker, asked by `crm_mon`: nodes, resources, failures, fencing. What it says is read in `pacemaker_status`. It only
//! asks; the cluster's state is never changed from here.

use std::path::PathBuf;
use std::time::Duration;

use super::pacemaker_status::{NotUnderstood, read};
use crate::collect::asked::{ask, present, refused};
use crate::collect::zone::Zone;
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Pacemaker as this node sees it.
pub(super) struct Pacemaker {
    /// Where nodes keep the cluster's configuration.
    marker: PathBuf,
    zone_file: PathBuf,
}

/// On a cluster of three, ha_cluster_exporter's reading of Pacemaker by `crm_mon` and `cibadmin` took 34 ms.
const EVERY: Duration = Duration::from_secs(15);
/// `crm_mon` waits for daemons that are busy.
const WITHIN: Duration = Duration::from_secs(10);
/// Pacemaker since 2.0.3, and before.
const FORMS: [&[&str]; 2] = [&["--output-as", "xml", "-1", "--inactive"], &["--as-xml", "-1", "--inactive"]];

impl Pacemaker {
    pub(super) fn new(roots: &Roots) -> Pacemaker {
        Pacemaker { marker: marker(roots), zone_file: roots.rootfs.join("etc/localtime") }
    }
}

/// What a node of a Pacemaker cluster has.
pub(super) fn marker(roots: &Roots) -> PathBuf {
    roots.rootfs.join("var/lib/pacemaker/cib/cib.xml")
}

impl Collector for Pacemaker {
    fn name(&self) -> &'static str {
        "pacemaker"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.marker)?;
        let zone = Zone::load(&self.zone_file);
        let mut last = None;
        for form in FORMS {
            let said = ask("crm_mon", form, WITHIN)?;
            match read(&said.out, &zone) {
                Ok(columns) => return columns.append_to(families),
                Err(NotUnderstood) => last = Some(refused("crm_mon", form, &said)),
            }
        }
        last.map_or(Ok(()), Err)
    }
}
