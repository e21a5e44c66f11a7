//! `/proc/loadavg`: the load averages of one, five and fifteen minutes.

use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Load averages.
pub(super) struct Loadavg {
    file: KernelFile,
}

const AVERAGES: [(&str, &str); 3] =
    [("node_load1", "1m load average."), ("node_load5", "5m load average."), ("node_load15", "15m load average.")];

impl Loadavg {
    pub(super) fn new(roots: &Roots) -> Loadavg {
        Loadavg { file: KernelFile::new(roots.procfs.join("loadavg")) }
    }
}

impl Collector for Loadavg {
    fn name(&self) -> &'static str {
        "loadavg"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut fields = text.as_str().split_whitespace();
        for (name, help) in AVERAGES {
            let value = text.number(fields.next(), text.as_str())?;
            families.push(Family::new(Kind::Gauge, name, help).with(value));
        }
        Ok(())
    }
}
