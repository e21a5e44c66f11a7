//! Settings and counts below `/proc/sys` that announce limits: open files and threads, and what seccomp can do. It is off
//! by default, as in node_exporter; `filefd` tells of open files too.

use std::path::PathBuf;

use crate::collect::attribute::AttributeReader;
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Settings of the kernel.
pub(super) struct Sysctl {
    folder: PathBuf,
    reader: AttributeReader,
}

/// Settings that are numbers: the name, and names for its fields where it has several.
const NUMBERS: [(&str, &[&str]); 2] = [("fs.file-nr", &["total", "current", "max"]), ("kernel.threads-max", &[])];
/// Settings that are words.
const WORDS: [&str; 1] = ["kernel.seccomp.actions_avail"];
const INFO: Column = gauge("node_sysctl_info", "sysctl info");
/// More words than any setting has.
const WORDS_MAX: usize = 64;

impl Sysctl {
    pub(super) fn new(roots: &Roots) -> Sysctl {
        Sysctl { folder: roots.procfs.join("sys"), reader: AttributeReader::new() }
    }

    fn read(&mut self, name: &str) -> Option<String> {
        self.reader.word(&self.folder.join(name.replace('.', "/")))
    }
}

impl Collector for Sysctl {
    fn name(&self) -> &'static str {
        "sysctl"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        for (name, fields) in NUMBERS {
            if let Some(text) = self.read(name) {
                families.extend(numbers(name, fields, &text));
            }
        }
        let mut info = INFO.family();
        for name in WORDS {
            let text = self.read(name).unwrap_or_default();
            for (index, word) in text.split_ascii_whitespace().take(WORDS_MAX).enumerate() {
                info.push(&[("index", &index.to_string()), ("name", name), ("value", word)], 1.0);
            }
        }
        families.push(info);
        Ok(())
    }
}

/// A number alone is one metric; several are one metric by index and one for each.
fn numbers(name: &str, fields: &[&str], text: &str) -> Vec<Family> {
    let metric = format!("node_sysctl_{}", name.replace(['.', '-'], "_"));
    let values: Vec<f64> = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).take(WORDS_MAX).collect();
    let mut all = Family::new(Kind::Untyped, metric.clone(), format!("sysctl {name}"));
    if let ([value], true) = (values.as_slice(), fields.is_empty()) {
        return vec![all.with(*value)];
    }
    let mut families = Vec::new();
    for (index, (field, value)) in fields.iter().zip(&values).enumerate() {
        let help = format!("sysctl {name}, field {index}");
        families.push(Family::new(Kind::Untyped, format!("{metric}_{field}"), help).with(*value));
    }
    for (index, value) in values.iter().enumerate() {
        all.push(&[("index", &index.to_string())], *value);
    }
    families.push(all);
    families
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::{text, trial};

    #[test]
    fn one_number_and_several() {
        let shown = |name, fields: &[&str], said| trial::series(&text::render(&numbers(name, fields, said)));
        expect![[r"
            node_sysctl_kernel_threads_max 7801
        "]]
        .assert_eq(&shown("kernel.threads-max", &[], "7801"));
        expect![[r#"
            node_sysctl_fs_file_nr_total 1024
            node_sysctl_fs_file_nr_current 0
            node_sysctl_fs_file_nr_max 99
            node_sysctl_fs_file_nr{index="0"} 1024
            node_sysctl_fs_file_nr{index="1"} 0
            node_sysctl_fs_file_nr{index="2"} 99
        "#]]
        .assert_eq(&shown("fs.file-nr", &["total", "current", "max"], "1024\t0\t99"));
        assert_eq!(shown("fs.file-nr", &["total"], "many"), "");
    }
}
