//! Works on a store as `petrel_tests::crash::workload` says: `store_workload DIR WORD SEED COUNT FROM…` with one FROM for each lane. Started by the crash tests
//! alone, with everything recorded that it does to files.

use std::path::Path;

use petrel_tests::crash::workload::work;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, word, numbers @ ..] = &arguments[..] else { usage() };
    let numbers: Vec<u64> = numbers.iter().map(|text| text.parse().unwrap_or_else(|_| usage())).collect();
    let [seed, count, from @ ..] = &numbers[..] else { usage() };
    let Ok(from) = from.try_into() else { usage() };
    work(Path::new(dir), Path::new(word), *seed, from, *count);
}

fn usage() -> ! {
    eprintln!("usage: store_workload DIR WORD SEED COUNT FROM…");
    std::process::exit(2);
}
