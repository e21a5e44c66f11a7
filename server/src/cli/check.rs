//! `petrel check`: what is wrong with config, rule and runbook files, with positions, without starting anything.

use std::path::PathBuf;

use super::exit;

/// Checks the files, prints each problem and a line a file, and returns the exit code.
pub fn check(files: &[PathBuf]) -> u8 {
    let mut problems = 0;
    for path in files {
        let found = crate::config::lint(path);
        match found.as_slice() {
            [] => println!("{}: fine", path.display()),
            found => println!("{}", found.join("\n")),
        }
        problems += found.len();
    }
    if problems == 0 { exit::DONE } else { exit::NO }
}
