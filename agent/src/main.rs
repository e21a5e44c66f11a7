//! The `petrel-agent` program.
fn main() {}
