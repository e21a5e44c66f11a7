//! The precursor library: lines that announce trouble on a hypervisor host, as data. One pass over a line looks for all
//! literals at once; only where one is found the pattern behind it is tried. Pure but for patterns made on first use.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::Severity;
use crate::collect::zone::Zone;

/// The library that is shipped.
const SHIPPED: &str = include_str!("../../data/precursors.yaml");
/// Most precursors, shipped ones included.
const PRECURSORS_MAX: usize = 1000;
/// Largest compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// One kind of line, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrecursor {
    /// Its name: label of its counter. A file of the host's own may replace a shipped one by its name.
    precursor: String,
    /// What part of the host it is about.
    category: String,
    /// `critical`: guests suffer or will; `warning`: somebody should look; `info`: worth knowing beside others.
    severity: Grade,
    /// What it means, and what to do.
    meaning: String,
    /// Programs that may say it, as in the line's tag; empty: any.
    #[serde(default)]
    from: Vec<String>,
    /// Texts of which one must stand in the line, as they are.
    any: Vec<String>,
    /// A regular expression that must match as well.
    #[serde(default)]
    r#match: Option<String>,
    /// Lines that it must find.
    examples: Vec<String>,
    /// Lines that it must leave alone.
    #[serde(default)]
    not: Vec<String>,
}

/// How grave a precursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    /// Worth knowing beside others.
    Info,
    /// Somebody should look.
    Warning,
    /// Guests suffer or will.
    Critical,
}

impl Grade {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Grade::Info => "info",
            Grade::Warning => "warning",
            Grade::Critical => "critical",
        }
    }

    /// The least level of a line that it is found in.
    pub(super) fn severity(self) -> Severity {
        match self {
            Grade::Info => Severity::Info,
            Grade::Warning => Severity::Warn,
            Grade::Critical => Severity::Error,
        }
    }
}

/// Why a library cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrecursorError {
    /// The file.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// One entry.
    #[error("{}: precursor `{name}`: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A name to leave out that none has.
    #[error("`{0}` is no precursor; the names stand in agent/data/precursors.yaml and in docs/guide/logs.md")]
    Unknown(String),
}

/// A checked precursor.
#[derive(Debug, Clone)]
pub(super) struct Precursor {
    pub(super) name: String,
    pub(super) grade: Grade,
    from: Vec<String>,
    literals: Vec<String>,
    pattern: Option<(String, OnceLock<Option<Regex>>)>,
}

/// All precursors of this host.
#[derive(Debug, Clone)]
pub(super) struct Precursors {
    all: Vec<Precursor>,
    literals: AhoCorasick,
    /// The precursor of each literal.
    owners: Vec<u16>,
}

impl Precursors {
    /// The shipped library, changed as the config says: files of the host's own, names left out.
    ///
    /// # Errors
    /// A file cannot be read or an entry makes no sense; the message names it.
    pub(super) fn load(files: &[PathBuf], without: &[String]) -> Result<Precursors, PrecursorError> {
        let mut raw = read_library(Path::new("precursors.yaml"), SHIPPED)?;
        for path in files {
            let failed = |problem: String| PrecursorError::File { path: path.clone(), problem };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            for own in read_library(path, &text)? {
                check_entry(path, &own)?;
                raw.retain(|shipped| shipped.precursor != own.precursor);
                raw.push(own);
            }
        }
        if let Some(unknown) = without.iter().find(|name| !raw.iter().any(|entry| entry.precursor == **name)) {
            return Err(PrecursorError::Unknown(unknown.clone()));
        }
        raw.retain(|entry| !without.contains(&entry.precursor));
        raw.truncate(PRECURSORS_MAX);
        Precursors::new(raw).map_err(|problem| PrecursorError::File { path: PathBuf::from("precursors"), problem })
    }

    fn new(raw: Vec<RawPrecursor>) -> Result<Precursors, String> {
        let all: Vec<Precursor> = raw
            .into_iter()
            .map(|entry| Precursor {
                name: entry.precursor,
                grade: entry.severity,
                from: entry.from,
                literals: entry.any,
                pattern: entry.r#match.map(|pattern| (pattern, OnceLock::new())),
            })
            .collect();
        let owned = all.iter().enumerate();
        let (owners, literals): (Vec<u16>, Vec<&str>) = owned
            .flat_map(|(place, entry)| entry.literals.iter().map(move |text| (place as u16, text.as_str())))
            .unzip();
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(literals)
            .map_err(|error| error.to_string())?;
        Ok(Precursors { all, literals, owners })
    }

    /// The precursor at a place.
    pub(super) fn get(&self, place: u16) -> &Precursor {
        &self.all[usize::from(place)]
    }

    /// Puts the places of all precursors that a message announces into `found`, each once. `program` is the line's tag.
    /// O(length) where there is none.
    pub(super) fn find(&self, program: &str, message: &str, found: &mut Vec<u16>) {
        found.clear();
        for hit in self.literals.find_overlapping_iter(message) {
            let place = self.owners[hit.pattern().as_usize()];
            if !found.contains(&place) && self.all[usize::from(place)].fits(program, message) {
                found.push(place);
            }
        }
    }
}

impl Precursor {
    fn fits(&self, program: &str, message: &str) -> bool {
        let is_from = self.from.is_empty() || self.from.iter().any(|from| from == program);
        is_from
            && self.pattern.as_ref().is_none_or(|(pattern, made)| {
                made.get_or_init(|| compile(pattern).ok())
                    .as_ref()
                    .is_some_and(|made| made.is_match(message.as_bytes()))
            })
    }
}

/// A time after that of any example, 2100: their stamps are only there to be left out.
const FAR: i64 = 4_102_444_800_000;

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build()
}

fn read_library(path: &Path, text: &str) -> Result<Vec<RawPrecursor>, PrecursorError> {
    crate::yaml::read(path, text)
        .map_err(|problem| PrecursorError::File { path: path.to_owned(), problem: problem.to_string() })
}

fn check_entry(path: &Path, entry: &RawPrecursor) -> Result<(), PrecursorError> {
    let wrong =
        |problem: String| PrecursorError::Entry { path: path.to_owned(), name: entry.precursor.clone(), problem };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if !is_name(&entry.precursor) || !is_name(&entry.category) {
        return Err(wrong("precursor and category are words of lower-case letters, digits and `_`".to_owned()));
    }
    if entry.any.is_empty() || entry.any.iter().any(|text| text.len() < 3) {
        return Err(wrong("any: needs at least one text, each of three bytes or more".to_owned()));
    }
    if entry.meaning.is_empty() || entry.examples.is_empty() {
        return Err(wrong("meaning and examples must not be empty".to_owned()));
    }
    if let Some(pattern) = &entry.r#match {
        compile(pattern).map_err(|error| wrong(format!("match: {error}")))?;
    }
    let alone = Precursors::new(vec![entry.clone()]).map_err(wrong)?;
    let mut found = Vec::new();
    let mut finds = |line: &str| {
        let (program, message) = super::stamp::program(super::stamp::read(line, FAR, &Zone::utc()).message);
        alone.find(program, message, &mut found);
        !found.is_empty()
    };
    if let Some(line) = entry.examples.iter().find(|line| !finds(line)) {
        return Err(wrong(format!("does not find its example {line:?}")));
    }
    if let Some(line) = entry.not.iter().find(|line| finds(line)) {
        return Err(wrong(format!("finds {line:?}, which it must not")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_library_finds_its_examples_and_leaves_the_others_alone() {
        let path = Path::new("precursors.yaml");
        let raw = read_library(path, SHIPPED).unwrap();
        assert!(raw.len() >= 60, "{}", raw.len());
        let problems: Vec<String> =
            raw.iter().filter_map(|entry| check_entry(path, entry).err()).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        for (place, entry) in raw.iter().enumerate() {
            assert!(
                raw[..place].iter().all(|other| other.precursor != entry.precursor),
                "{} stands twice",
                entry.precursor
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn never_panics(library in "([-{}\\[\\]:,'\"#&*! \n]|precursor|any|match|(\\(){3}|\\PC){0,30}", program in "\\PC{0,9}",
                        message in "(I/O error|Out of memory|UE |CE on |[ :0-9]|\\PC){0,20}") {
            let _ = read_library(Path::new("x"), &library);
            let shipped = SHIPPED_LIBRARY.get_or_init(|| Precursors::load(&[], &[]).unwrap());
            let mut found = Vec::new();
            shipped.find(&program, &message, &mut found);
            proptest::prop_assert!(found.len() <= shipped.all.len());
        }
    }

    /// Made once for all cases.
    static SHIPPED_LIBRARY: OnceLock<Precursors> = OnceLock::new();

    #[test]
    fn own_files_add_replace_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.yaml");
        let own = |any: &str, example: &str| {
            std::fs::write(
                &path,
                format!("- {{precursor: disk_song, category: storage, severity: warning, meaning: m, from: [kernel], any: ['{any}'], match: 'sd[a-z]\\b', examples: ['{example}']}}"),
            )
            .unwrap();
            Precursors::load(std::slice::from_ref(&path), &["oom_kill".to_owned()])
        };
        let library = own("sings", "kernel: sda sings").unwrap();
        let mut found = Vec::new();
        for (program, line, expected) in [
            ("kernel", "sdb sings", 1),
            ("app", "sdb sings", 0),
            ("kernel", "nvme0 sings", 0),
            ("kernel", "Out of memory: Killed process 1 (x)", 0),
        ] {
            library.find(program, line, &mut found);
            assert_eq!(found.len(), expected, "{line}");
        }
        let told = own("sings", "kernel: sda hums").unwrap_err().to_string();
        assert!(told.ends_with("precursor `disk_song`: does not find its example \"kernel: sda hums\""), "{told}");
        assert!(own("x", "").unwrap_err().to_string().contains("three bytes"));
        assert!(
            Precursors::load(&[], &["none".to_owned()]).unwrap_err().to_string().starts_with("`none` is no precursor")
        );
        assert!(Precursors::load(&["/nonexistent".into()], &[]).is_err());
    }
}
