//! Finding files by pattern: `*` and `?` inside one name of a path, nothing more. Follows no pattern upwards.

use std::path::{Path, PathBuf};

/// Most names of one folder that are looked at, so that a folder gone wild does not stall the tails.
const NAMES_MAX: usize = 20_000;

/// Whether a pattern may be followed: absolute and without `..`.
pub(super) fn is_allowed(pattern: &str) -> bool {
    pattern.starts_with('/') && !pattern.ends_with('/') && !pattern.split('/').any(|name| name == "..")
}

/// The regular files a pattern names now, sorted, at most `limit` of them. Rotated and compressed copies are left out:
/// their lines were read while the file had its own name.
pub(super) fn expand(pattern: &str, limit: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for name in pattern.split('/').filter(|name| !name.is_empty()) {
        if name.contains(['*', '?']) {
            found = found.iter().flat_map(|folder| matching(folder, name)).take(NAMES_MAX).collect();
        } else {
            for folder in &mut found {
                folder.push(name);
            }
        }
    }
    found.retain(|path| !is_rotated_copy(path) && path.is_file());
    found.sort();
    found.truncate(limit);
    found
}

/// Folders that a pattern's files can appear in: to be watched.
pub(super) fn folders(pattern: &str) -> Vec<PathBuf> {
    let Some((folder, _)) = pattern.rsplit_once('/') else { return Vec::new() };
    let mut found = vec![PathBuf::from("/")];
    for name in folder.split('/').filter(|name| !name.is_empty()) {
        if name.contains(['*', '?']) {
            found = found.iter().flat_map(|folder| matching(folder, name)).collect();
        } else {
            for folder in &mut found {
                folder.push(name);
            }
        }
    }
    found.retain(|path| path.is_dir());
    found
}

/// Whether a pattern names this very path.
pub(super) fn names(pattern: &str, path: &str) -> bool {
    pattern.split('/').count() == path.split('/').count()
        && pattern.split('/').zip(path.split('/')).all(|(pattern, name)| fits(pattern.as_bytes(), name.as_bytes()))
}

fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES_MAX);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| fits(pattern.as_bytes(), name.as_bytes())))
        .map(|entry| entry.path())
        .collect()
}

/// Whether a name fits a pattern. O(pattern * name) at worst: on a mismatch only the last star is tried again.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (p, n) = (after, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

/// `syslog.1`, `x.log.2.gz`, `x.log-20261122`: what logrotate leaves behind.
fn is_rotated_copy(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return true };
    let compressed = [".gz", ".xz", ".bz2", ".zst", ".lz4", ".lzma", ".Z", ".zip", ".old", ".bak", ".swp", "~"]
        .iter()
        .any(|end| name.ends_with(end));
    let number = name.rsplit_once(['.', '-']).map_or("", |(_, end)| end);
    compressed || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.log", "a.log", true),
            ("*.log", ".log", true),
            ("*.log", "a.logs", false),
            ("a*b*c", "aXbXbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("**a", "bba", true),
            ("a", "b", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn never_panics(pattern in "([*?/]|a|\\PC){0,20}", name in "([a/]|\\PC){0,40}") {
            super::names(&pattern, &name);
        }
    }

    #[test]
    fn files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.log", "a.log.1", "c.log.gz", "d.log-20261122", "d.log.old", "x/e.log"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = folder.path().to_str().unwrap();
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(&format!("{root}/{pattern}"), 10);
            found.iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
        };
        assert_eq!(names("*log*"), ["a.log", "b.log"]);
        assert_eq!(names("*/*.log"), ["x/e.log"]);
        assert_eq!(names("a.log"), ["a.log"]);
        assert!(super::names("/var/log/*.log", "/var/log/a.log") && !super::names("/var/log/*", "/var/log/x/a.log"));
        assert_eq!(expand(&format!("{root}/*.log"), 1).len(), 1);
    }
}
