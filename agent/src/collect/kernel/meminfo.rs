//! `/proc/meminfo`: every field the kernel prints, in bytes where it prints kilobytes.

use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Memory.
pub(super) struct Meminfo {
    file: KernelFile,
}

impl Meminfo {
    pub(super) fn new(roots: &Roots) -> Meminfo {
        Meminfo { file: KernelFile::new(roots.procfs.join("meminfo")) }
    }
}

impl Collector for Meminfo {
    fn name(&self) -> &'static str {
        "meminfo"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, rest) = line.split_once(':').ok_or_else(|| text.malformed(line))?;
            let mut fields = rest.split_whitespace();
            let number = text.number(fields.next(), line)?;
            // `Active(anon)` becomes `Active_anon`.
            let key = key.trim().replace('(', "_").replace(')', "");
            let (field, value) = match fields.next() {
                Some("kB") => (format!("{key}_bytes"), number * 1024.0),
                _ => (key, number),
            };
            let help = format!("Memory information field {field}.");
            families.push(Family::new(Kind::Gauge, format!("node_memory_{field}"), help).with(value));
        }
        Ok(())
    }
}
