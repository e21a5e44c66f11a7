//! The agent's metrics for node_exporter's own fixture tree are the ones node_exporter prints for it.

use std::process::Command;

use petrel_agent::collect::CollectConfig;
use petrel_tests::left_out;

/// What matters on every host. filesystem, netdev and uname ask the running kernel.
const CORE: &str = "core";
/// Those of special hardware and file systems. rapl names the folder it is read from, os-release is not in the fixtures.
const MORE: &str = "cpu_vulnerabilities,nvme,zoneinfo,interrupts,softirqs,buddyinfo,meminfo_numa,ksmd,cgroups,slabinfo,\
                    lnstat,xfrm,ipvs,nfs,nfsd,mountstats,btrfs,bcache,xfs,infiniband,fibrechannel,tapestats,watchdog,dmi,\
                    zfs,sysctl,pcidevice,dmmultipath,kernel_hung,time";

#[test]
fn every_series_of_the_fixtures_is_equal() {
    let Some(compat) = left_out::shared("compat", "every_series_of_the_fixtures_is_equal") else { return };
    let tool = compat.join("agentdiff.py");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let tree = folder.path().join("tree");
    let unpacked = Command::new(&tool).arg("--unpack").arg(&tree).output().expect("python3 is there");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));

    let printed = folder.path().join("once.prom");
    let config = CollectConfig::at(&tree.join("proc"), &tree.join("sys"));
    let text = petrel_agent::collect::once(config.with_textfile(Some(tree.join("textfile/two_metric_files"))));
    std::fs::write(&printed, text).expect("the folder can be written");
    for collectors in [CORE, MORE] {
        let compared = Command::new(&tool)
            .args(["--collectors", collectors, "--min-equal", "100", "-v", "--file"])
            .arg(&printed)
            .output()
            .expect("python3 is there");
        let report = String::from_utf8_lossy(&compared.stdout);
        let is_equal = report.contains(" 0 failed") && report.contains(" 0 families of another type");
        assert!(compared.status.success() && is_equal, "{report}");
    }
}
