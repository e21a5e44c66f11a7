//! Tests that need `../shared` run where it stands beside the checkout; elsewhere each says its name here, so that
//! `tests/run` can count and list what a green run did not cover.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use crate::tree::repository;

/// The folder `../shared/PART` where it exists; otherwise notes `test` as left out and returns nothing.
pub fn shared(part: &str, test: &str) -> Option<PathBuf> {
    let path = repository().join("../shared").join(part);
    if path.exists() {
        return Some(path);
    }
    note(test, &format!("needs shared/{part} beside the checkout"));
    None
}

/// Notes that `test` did not run, and why.
pub fn note(test: &str, why: &str) {
    println!("left out: {test}: {why}");
    if let Some(list) = std::env::var_os("PETREL_TESTS_LEFT_OUT") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).expect("tests/run made the list");
        writeln!(list, "{test}: {why}").expect("the list can be written");
    }
}
