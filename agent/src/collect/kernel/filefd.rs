//! `/proc/sys/fs/file-nr`: open files of the whole machine and the limit on them.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Open files.
pub(super) struct Filefd {
    file: KernelFile,
}

impl Filefd {
    pub(super) fn new(roots: &Roots) -> Filefd {
        Filefd { file: KernelFile::new(roots.procfs.join("sys/fs/file-nr")) }
    }
}

impl Collector for Filefd {
    fn name(&self) -> &'static str {
        "filefd"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families)
    }
}

/// Three numbers: allocated, allocated but unused (zero since Linux 2.6), and the limit.
fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let line = text.as_str().trim();
    let mut fields = line.split_ascii_whitespace();
    let allocated = text.number(fields.next(), line)?;
    let maximum = text.number(fields.nth(1), line)?;
    let gauge = |name, help| Family::new(Kind::Gauge, name, help);
    families.push(gauge("node_filefd_allocated", "File descriptor statistics: allocated.").with(allocated));
    families.push(gauge("node_filefd_maximum", "File descriptor statistics: maximum.").with(maximum));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::trial;
    use super::*;

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near("1024\t0\t1631329\n")) {
            let _ = parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
