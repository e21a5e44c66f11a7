//! `/sys/devices/system/cpu/vulnerabilities`: which faults of the silicon this host has, and what the kernel does about
//! them. It hardly ever changes while the host runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Faults of the silicon.
pub(super) struct CpuVulnerabilities {
    folder: PathBuf,
    reader: AttributeReader,
}

const INFO: Column = gauge(
    "node_cpu_vulnerabilities_info",
    "Details of each CPU vulnerability reported by sysfs. The value of the series is an int encoded state of the vulnerability. \
     The same state is stored as a string in the label",
);
/// How a file begins, and the state that says.
const STATES: [(&str, &str); 4] = [
    ("Not affected", "not affected"),
    ("Vulnerable", "vulnerable"),
    ("Mitigation", "mitigation"),
    ("Unknown", "unknown"),
];

impl CpuVulnerabilities {
    pub(super) fn new(roots: &Roots) -> CpuVulnerabilities {
        CpuVulnerabilities {
            folder: roots.sysfs.join("devices/system/cpu/vulnerabilities"),
            reader: AttributeReader::new(),
        }
    }
}

impl Collector for CpuVulnerabilities {
    fn name(&self) -> &'static str {
        "cpu_vulnerabilities"
    }

    fn pace(&self) -> Pace {
        // A late load of microcode changes them.
        Pace::Apart { every: Duration::from_secs(600), within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let Ok(names) = names_in(&self.folder) else {
            return Err(CollectError::Absent { path: self.folder.clone() });
        };
        let mut info = INFO.family();
        for name in names {
            let Some(text) = self.reader.word(&self.folder.join(&name)) else { continue };
            let (state, mitigation) = state(&text);
            info.push(&[("codename", &name), ("mitigation", mitigation), ("state", state)], 1.0);
        }
        families.push(info);
        Ok(())
    }
}

/// The state, and what is done about the fault. Guests' side of a fault is told after `KVM: `.
fn state(text: &str) -> (&'static str, &str) {
    let text = text.strip_prefix("KVM: ").unwrap_or(text);
    STATES
        .iter()
        .find_map(|(begin, state)| Some((*state, text.strip_prefix(begin)?)))
        .map_or(("unknown", text), |(state, rest)| (state, rest.strip_prefix(": ").unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        for (text, expected) in [
            ("Not affected", ("not affected", "")),
            ("Vulnerable: No microcode", ("vulnerable", "No microcode")),
            ("Mitigation: Retpolines, IBPB: conditional", ("mitigation", "Retpolines, IBPB: conditional")),
            ("KVM: Mitigation: VMX disabled", ("mitigation", "VMX disabled")),
            ("Unknown: No mitigations", ("unknown", "No mitigations")),
            ("Processor is odd", ("unknown", "Processor is odd")),
            ("", ("unknown", "")),
        ] {
            assert_eq!(state(text), expected);
        }
    }
}
