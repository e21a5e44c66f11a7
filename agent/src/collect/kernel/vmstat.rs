//! `/proc/vmstat`: paging, swapping, faults and out-of-memory kills; the same choice of fields as node_exporter's default.

use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Virtual memory events.
pub(super) struct Vmstat {
    file: KernelFile,
}

impl Vmstat {
    pub(super) fn new(roots: &Roots) -> Vmstat {
        Vmstat { file: KernelFile::new(roots.procfs.join("vmstat")) }
    }
}

impl Collector for Vmstat {
    fn name(&self) -> &'static str {
        "vmstat"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let Some(key) = fields.next().filter(|key| is_wanted(key)) else { continue };
            let value = text.number(fields.next(), line)?;
            let help = format!("/proc/vmstat information field {key}.");
            families.push(Family::new(Kind::Untyped, format!("node_vmstat_{key}"), help).with(value));
        }
        Ok(())
    }
}

/// node_exporter's default: `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn is_wanted(key: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].iter().any(|begin| key.starts_with(begin))
        || key.strip_prefix("pg").is_some_and(|rest| rest.contains("fault"))
}
