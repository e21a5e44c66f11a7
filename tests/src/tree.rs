//! The repository as text, for the tests `tidy` and `architecture`.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path below the repository.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// The top of the checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

/// All Rust files below a folder of the repository, sorted by path.
pub fn sources(folder: &str) -> Vec<Source> {
    files(folder).into_iter().filter(|source| source.path.extension().is_some_and(|end| end == "rs")).collect()
}

/// All text files below a folder of the repository, sorted by path; `target`, hidden folders and binary files are left out.
pub fn files(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&repository().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(repository()).expect("it lies in the repository").to_owned();
            found.push(Source { path, text });
        }
    }
}

impl Source {
    /// Whether the file holds tests alone, by its place or name.
    pub fn is_test(&self) -> bool {
        let in_folder = self.path.iter().any(|part| part == "tests" || part == "scenarios");
        let name = self.path.file_stem().and_then(|name| name.to_str()).unwrap_or("");
        in_folder || name == "tests" || name.ends_with("_tests")
    }

    /// The text before the inline tests, without comment lines; empty where the file holds tests alone.
    pub fn code(&self) -> String {
        if self.is_test() && !self.path.starts_with("tests") {
            return String::new();
        }
        // A module of tests begins here; `mod name;` names a file, which is looked at by itself.
        let is_tests = |at: usize| {
            let line = self.text[at..].lines().nth(1).unwrap_or("");
            line.contains('{')
                && ["mod ", "pub(super) mod ", "pub(crate) mod "].iter().any(|begin| line.starts_with(begin))
        };
        let mut marks = self.text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
        let end = marks.find(|at| is_tests(*at)).unwrap_or(self.text.len());
        self.text[..end].split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect()
    }

    /// How many `super::` lead from the file's module to the root of its package.
    pub fn depth(&self) -> usize {
        let below = self.path.iter().skip_while(|part| *part != "src").skip(1).count();
        if self.path.ends_with("mod.rs") { below - 1 } else { below }
    }

    /// The top-level module of its package that the file belongs to, `lib` for the root.
    pub fn module(&self) -> String {
        let mut parts = self.path.iter().skip_while(|part| *part != "src").skip(1);
        let first = parts.next().map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }
}
