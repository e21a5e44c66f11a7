//! Tables of metrics: most sources have fixed numbers, of which each device, zone or processor has its own. A table names
//! them once, and its families come out in its order.

use std::path::Path;

use super::attribute::AttributeReader;
use super::{Family, Kind};

/// A metric of a table: type, name, help.
#[derive(Debug, Clone, Copy)]
pub(in crate::collect) struct Column {
    kind: Kind,
    name: &'static str,
    help: &'static str,
}

/// A metric that only grows.
pub(in crate::collect) const fn counter(name: &'static str, help: &'static str) -> Column {
    Column { kind: Kind::Counter, name, help }
}

/// A metric that goes up and down.
pub(in crate::collect) const fn gauge(name: &'static str, help: &'static str) -> Column {
    Column { kind: Kind::Gauge, name, help }
}

impl Column {
    /// The metric's name.
    pub(in crate::collect) const fn name(&self) -> &'static str {
        self.name
    }

    /// The family without points yet.
    pub(in crate::collect) fn family(&self) -> Family {
        Family::new(self.kind, self.name, self.help)
    }
}

/// A metric that a file of sysfs holds, as it is in the file but for a factor.
#[derive(Debug, Clone, Copy)]
pub(in crate::collect) struct FileColumn {
    file: &'static str,
    column: Column,
    factor: f64,
}

/// The number in a file, as it is.
pub(in crate::collect) const fn file(file: &'static str, column: Column) -> FileColumn {
    FileColumn { file, column, factor: 1.0 }
}

impl FileColumn {
    /// The number in the file times a factor.
    pub(in crate::collect) const fn times(self, factor: f64) -> FileColumn {
        FileColumn { factor, ..self }
    }
}

/// Families that are filled from the files of one folder after the other.
pub(in crate::collect) struct FileTable {
    columns: &'static [FileColumn],
    families: Vec<Family>,
}

impl FileTable {
    pub(in crate::collect) fn new(columns: &'static [FileColumn]) -> FileTable {
        FileTable { columns, families: columns.iter().map(|file| file.column.family()).collect() }
    }

    /// Reads the files below a folder. What is not there, or holds no number, is left out: drivers differ in what they tell.
    pub(in crate::collect) fn read(
        &mut self,
        reader: &mut AttributeReader,
        folder: &Path,
        labels: &[(&'static str, &str)],
    ) {
        for (file, family) in self.columns.iter().zip(&mut self.families) {
            let value = reader.read(&folder.join(file.file)).ok().and_then(|text| number(&text));
            if let Some(value) = value {
                family.push(labels, value * file.factor);
            }
        }
    }

    /// The families; those without points are dropped by whoever takes them.
    pub(in crate::collect) fn into_families(self) -> Vec<Family> {
        self.families
    }
}

/// A number as drivers print it: decimal, with a minus or not, or hexadecimal after `0x`. All ones in 64 bits is how
/// drivers say that they do not count this.
pub(in crate::collect) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let value = match text.strip_prefix("0x") {
        Some(digits) => i128::from(u64::from_str_radix(digits, 16).ok()?),
        None => text.parse().ok()?,
    };
    let fits = i128::from(i64::MIN)..i128::from(u64::MAX);
    fits.contains(&value).then_some(value as f64)
}

/// Families whose names the source gives, in the order in which it gives them first.
#[derive(Default)]
pub(in crate::collect) struct NamedFamilies {
    families: Vec<Family>,
    keys: Vec<String>,
    next: usize,
}

impl NamedFamilies {
    /// The family for a key; made when the key is new. Cheap when keys come in the same order again and again.
    pub(in crate::collect) fn at(&mut self, key: &str, make: impl FnOnce() -> Family) -> &mut Family {
        let place = match self.keys.get(self.next) {
            Some(known) if known == key => self.next,
            _ => self.keys.iter().position(|known| known == key).unwrap_or(self.keys.len()),
        };
        if place == self.keys.len() {
            self.keys.push(key.to_owned());
            self.families.push(make());
        }
        self.next = place + 1;
        &mut self.families[place]
    }

    pub(in crate::collect) fn into_families(self) -> Vec<Family> {
        self.families
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::{text, trial};
    use super::*;

    #[test]
    fn numbers_as_drivers_print_them() {
        for (text, value) in [
            ("12\n", Some(12.0)),
            ("-3", Some(-3.0)),
            ("0x1f", Some(31.0)),
            ("0xffffffffffffffff", None),
            ("18446744073709551615", None),
            ("N/A (no PMA)", None),
            ("", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn a_folder_with_some_of_the_files() {
        const FILES: &[FileColumn] =
            &[file("a", gauge("a", "A.")), file("b", gauge("b", "B.")), file("c", counter("c_total", "C.")).times(4.0)];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "7\n").unwrap();
        std::fs::write(folder.path().join("b"), "none\n").unwrap();
        std::fs::write(folder.path().join("c"), "0x10\n").unwrap();
        let mut table = FileTable::new(FILES);
        table.read(&mut AttributeReader::new(), folder.path(), &[("device", "x")]);
        expect![[r#"
            a{device="x"} 7
            c_total{device="x"} 64
        "#]]
        .assert_eq(&trial::series(&text::render(&table.into_families())));
    }

    #[test]
    fn named_families_keep_their_first_order() {
        let mut named = NamedFamilies::default();
        for (key, value) in [("b", 1.0), ("a", 2.0), ("b", 3.0), ("c", 4.0), ("a", 5.0)] {
            named.at(key, || Family::new(Kind::Gauge, key.to_owned(), "x")).push(&[("v", &value.to_string())], value);
        }
        expect![[r#"
            b{v="1"} 1
            b{v="3"} 3
            a{v="2"} 2
            a{v="5"} 5
            c{v="4"} 4
        "#]]
        .assert_eq(&trial::series(&text::render(&named.into_families())));
    }
}
