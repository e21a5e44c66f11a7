//! Health of disks, by `smartctl`: SATA, SAS and NVMe, also behind RAID controllers that it finds. A disk that sleeps is not
//! woken, nothing is written to a disk, and no self-test is started from here.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::smart_report::{COLUMNS, read};
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::Columns;
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Disks with S.M.A.R.T.
pub(super) struct Smart {
    devices: PathBuf,
}

/// Wear and defects grow over hours, and each reading costs the disk some commands.
const EVERY: Duration = Duration::from_secs(300);
/// All disks together. One that fails can take many seconds for a command.
const WITHIN: Duration = Duration::from_secs(240);
/// After this no more disks are asked, so that what was read comes before it is late.
const ASKED_WITHIN: Duration = Duration::from_secs(225);
/// One disk.
const DISK_WITHIN: Duration = Duration::from_secs(30);
/// Largest storage servers have about a hundred; their disks belong to software that watches them itself.
const DISKS_MAX: usize = 64;
const SCAN: [&str; 2] = ["--json", "--scan-open"];
/// What smartctl_exporter asks, with the logs that its families are made of; not the long ones that `-x` would add.
const REPORT: [&str; 13] = [
    "--json",
    "--info",
    "--health",
    "--attributes",
    "--format=brief",
    "--log=error",
    "--log=selftest",
    "--log=devstat",
    "--log=sataphy",
    "--log=scttempsts",
    "--log=scterc",
    "--tolerance=verypermissive",
    "--nocheck=standby",
];

impl Smart {
    pub(super) fn new(roots: &Roots) -> Smart {
        Smart { devices: roots.rootfs.join("dev") }
    }
}

impl Collector for Smart {
    fn name(&self) -> &'static str {
        "smart"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.devices)?;
        let deadline = Instant::now() + ASKED_WITHIN;
        let said = ask("smartctl", &SCAN, DISK_WITHIN)?;
        let disks = scanned(&said.out).ok_or_else(|| refused("smartctl", &SCAN, &said))?;
        if disks.is_empty() {
            return Err(CollectError::Absent { path: "a disk that smartctl can open".into() });
        }
        let mut columns = Columns::new(&COLUMNS);
        columns.push("smartctl_devices", &[], disks.len() as f64);
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut problems = each(&disks, left, |disk, left| report(disk, left.min(DISK_WITHIN), &mut columns));
        columns.append_to(families)?;
        if disks.len() > DISKS_MAX {
            let more = disks.len() - DISKS_MAX;
            problems.push(CollectError::Asked(format!("{more} disks above the limit of {DISKS_MAX} are not asked")));
        }
        problems.into_iter().next().map_or(Ok(()), Err)
    }
}

/// Asks one disk after the other while there is time left; says what went wrong, and how many were not asked.
fn each(
    disks: &[Disk],
    left: impl Fn() -> Duration,
    mut ask: impl FnMut(&Disk, Duration) -> Result<(), CollectError>,
) -> Vec<CollectError> {
    let mut problems = Vec::new();
    let asked = disks.len().min(DISKS_MAX);
    for (at, disk) in disks[..asked].iter().enumerate() {
        let left = left();
        if left.is_zero() {
            // First, as one is told: the disks that took the time are known by their own, which came before.
            let rest = asked - at;
            problems
                .insert(0, CollectError::Asked(format!("no time was left to ask {rest} of {asked} disks; one hangs")));
            break;
        }
        if let Err(error) = ask(disk, left) {
            problems.push(error);
        }
    }
    problems
}

/// A disk as smartctl found it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    name: String,
    /// How to reach it: `sat`, `nvme`, `megaraid,0`.
    kind: String,
}

fn report(disk: &Disk, within: Duration, columns: &mut Columns) -> Result<(), CollectError> {
    let kind = format!("--device={}", disk.kind);
    let arguments: Vec<&str> = REPORT.into_iter().chain([kind.as_str(), disk.name.as_str()]).collect();
    let said = ask("smartctl", &arguments, within)?;
    read(&said.out, &disk.label(), columns).ok_or_else(|| refused("smartctl", &arguments, &said))
}

/// Reads `smartctl --json --scan-open`; `None` for what is no answer. A disk that could not be opened has no health to tell.
fn scanned(text: &str) -> Option<Vec<Disk>> {
    let scan: Value = serde_json::from_str(text).ok()?;
    scan["smartctl"]["exit_status"].as_u64()?;
    let devices = scan["devices"].as_array().map_or(&[][..], Vec::as_slice);
    let disks = devices.iter().filter(|device| device["open_error"].is_null()).filter_map(|device| {
        let (name, kind) = (device["name"].as_str()?, device["type"].as_str()?);
        // What begins with a dash would be taken for an option.
        name.starts_with('/').then(|| Disk { name: name.to_owned(), kind: kind.to_owned() })
    });
    Some(disks.collect())
}

impl Disk {
    /// The label that smartctl_exporter makes: `sda`, `bus_0_megaraid_0`.
    fn label(&self) -> String {
        let name = self.name.strip_prefix("/dev/").unwrap_or(&self.name);
        let name = ["disk/by-id/", "disk/by-path/"].iter().find_map(|folder| name.strip_prefix(folder)).unwrap_or(name);
        let name = name.replace('/', "_");
        if self.kind.contains(',') { format!("{name}_{}", self.kind.replace(',', "_")) } else { name }
    }
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    drop(scanned(text));
    let _ = super::smart_report::read(text, "a", &mut Columns::new(&super::smart_report::COLUMNS));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn disks_are_found_and_named() {
        let disks = scanned(include_str!("../../../testdata/smart/scan.json")).unwrap();
        let labels: Vec<String> = disks.iter().map(|disk| format!("{} {}", disk.label(), disk.kind)).collect();
        assert_eq!(labels, ["sda sat", "nvme0 nvme", "bus_0_megaraid_0 megaraid,0"]);
        assert_eq!(scanned("{\"smartctl\":{\"exit_status\":0}}"), Some(Vec::new()));
        assert_eq!(scanned("sh: smartctl: not found"), None);
    }

    #[test]
    fn when_the_time_is_used_up_the_rest_is_not_asked_and_told() {
        let disk = |n: u32| Disk { name: format!("/dev/sd{n}"), kind: "sat".to_owned() };
        let disks: Vec<Disk> = (0..5).map(disk).collect();
        let time = std::cell::Cell::new(Duration::from_secs(50));
        let mut asked = Vec::new();
        let problems = each(
            &disks,
            || time.get(),
            |disk, _| {
                time.set(time.get().saturating_sub(Duration::from_secs(25)));
                asked.push(disk.label());
                Err(CollectError::Asked("slow".to_owned()))
            },
        );
        assert_eq!(asked, ["sd0", "sd1"]);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["no time was left to ask 3 of 5 disks; one hangs", "slow", "slow"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(\\{|\\}|\\[|\\]|,|:|\"(devices|name|type|smartctl|é)\"|[0-9]|null){0,40}", name in "\\PC{0,20}") {
            drop(scanned(&text));
            drop(Disk { name, kind: text }.label());
        }
    }
}
