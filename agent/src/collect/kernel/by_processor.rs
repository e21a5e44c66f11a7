//! `/proc/interrupts` and `/proc/softirqs`: tables with a column for each processor. Thousands of series on a large host,
//! so both collectors are off by default.

use std::collections::BTreeSet;

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Interrupts by device and processor.
pub(super) struct Interrupts {
    file: KernelFile,
}

/// Soft interrupts by kind and processor.
pub(super) struct Softirqs {
    file: KernelFile,
}

/// A line: its name, a number for each processor, and what follows them.
struct Row<'a> {
    name: &'a str,
    counts: Vec<f64>,
    rest: Vec<&'a str>,
}

impl Interrupts {
    pub(super) fn new(roots: &Roots) -> Interrupts {
        Interrupts { file: KernelFile::new(roots.procfs.join("interrupts")) }
    }
}

impl Softirqs {
    pub(super) fn new(roots: &Roots) -> Softirqs {
        Softirqs { file: KernelFile::new(roots.procfs.join("softirqs")) }
    }
}

impl Collector for Interrupts {
    fn name(&self) -> &'static str {
        "interrupts"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.push(interrupts(&self.file.read()?)?);
        Ok(())
    }
}

impl Collector for Softirqs {
    fn name(&self) -> &'static str {
        "softirqs"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.push(softirqs(&self.file.read()?)?);
        Ok(())
    }
}

fn interrupts(text: &KernelText<'_>) -> Result<Family, CollectError> {
    let mut family = Family::new(Kind::Counter, "node_interrupts_total", "Interrupt details.");
    for row in rows(text)? {
        // `ERR` and `MIS` count for the whole machine and describe nothing.
        let Some(first) = row.rest.first() else { continue };
        let is_numbered = row.name.bytes().all(|byte| byte.is_ascii_digit());
        let (info, devices) = if is_numbered {
            ((*first).to_owned(), row.rest[1..].join(" "))
        } else {
            (row.rest.join(" "), String::new())
        };
        for (processor, count) in row.counts.iter().enumerate() {
            let processor = processor.to_string();
            family.push(&[("cpu", &processor), ("devices", &devices), ("info", &info), ("type", row.name)], *count);
        }
    }
    Ok(family)
}

fn softirqs(text: &KernelText<'_>) -> Result<Family, CollectError> {
    let mut family = Family::new(Kind::Counter, "node_softirqs_functions_total", "Softirq counts per CPU.");
    for row in rows(text)? {
        for (processor, count) in row.counts.iter().enumerate() {
            family.push(&[("cpu", &processor.to_string()), ("type", row.name)], *count);
        }
    }
    Ok(family)
}

/// Rows with a number for each processor of the header. As node_exporter does, processors are numbered by their column.
fn rows<'a>(text: &'a KernelText<'_>) -> Result<Vec<Row<'a>>, CollectError> {
    let mut lines = text.lines();
    let processors = lines.next().unwrap_or_default().split_ascii_whitespace().count();
    let (mut rows, mut names) = (Vec::new(), BTreeSet::new());
    for line in lines {
        // Some machines leave no space between the colon and the first number.
        let Some((name, rest)) = line.split_once(':') else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let mut counts = Vec::with_capacity(processors);
        let columns: Vec<&str> = fields.by_ref().take(processors).collect();
        if columns.len() < processors || !names.insert(name.trim()) {
            continue;
        }
        for field in columns {
            counts.push(text.number(Some(field), line)?);
        }
        rows.push(Row { name: name.trim(), counts, rest: fields.collect() });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "\
           CPU0       CPU1
 16:     328511     322879  IR-IO-APIC-fasteoi   ehci_hcd:usb1, mmc0
 17:1 2  GIC-0  27 Level     arch_timer
LOC:  174326351  135776678   Local timer interrupts
ERR:          0
";

    #[test]
    fn devices_and_the_processors_own() {
        let shown = |family: Family| trial::series(&text::render(&[family]));
        expect![[r#"
            node_interrupts_total{cpu="0",devices="ehci_hcd:usb1, mmc0",info="IR-IO-APIC-fasteoi",type="16"} 328511
            node_interrupts_total{cpu="1",devices="ehci_hcd:usb1, mmc0",info="IR-IO-APIC-fasteoi",type="16"} 322879
            node_interrupts_total{cpu="0",devices="27 Level arch_timer",info="GIC-0",type="17"} 1
            node_interrupts_total{cpu="1",devices="27 Level arch_timer",info="GIC-0",type="17"} 2
            node_interrupts_total{cpu="0",devices="",info="Local timer interrupts",type="LOC"} 174326351
            node_interrupts_total{cpu="1",devices="",info="Local timer interrupts",type="LOC"} 135776678
        "#]]
        .assert_eq(&shown(interrupts(&KernelText::of(SAMPLE.as_bytes())).unwrap()));
        expect![[r#"
            node_softirqs_functions_total{cpu="0",type="HI"} 7
            node_softirqs_functions_total{cpu="1",type="HI"} 1
            node_softirqs_functions_total{cpu="0",type="NET_RX"} 3
            node_softirqs_functions_total{cpu="1",type="NET_RX"} 4
        "#]]
        .assert_eq(&shown(softirqs(&KernelText::of(b"   CPU0  CPU1\n  HI:  7  1\n NET_RX: 3 4\n")).unwrap()));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let text = KernelText::of(&bytes);
            let _ = (interrupts(&text), softirqs(&text));
        }
    }
}
