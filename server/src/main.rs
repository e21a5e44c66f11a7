//! The `petrel` program.
fn main() {}
