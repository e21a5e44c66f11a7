//! Fills a store and says how much memory that takes: `store_memory DIR full SERIES`, `store_memory DIR churn HOSTS SECONDS DAYS`, as
//! `petrel_tests::scale` and `petrel_tests::churn` say. Started by the scale tests alone.

use std::path::Path;

use petrel_tests::churn::Churn;
use petrel_tests::scale::full;

/// That of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, what, numbers @ ..] = &arguments[..] else { usage() };
    let numbers: Vec<u32> = numbers.iter().map(|text| text.parse().unwrap_or_else(|_| usage())).collect();
    match (what.as_str(), &numbers[..]) {
        ("full", [series]) => full(Path::new(dir), u64::from(*series)),
        ("churn", [hosts, seconds, days]) => {
            Churn { hosts: i64::from(*hosts), seconds: i64::from(*seconds) }.run(Path::new(dir), i64::from(*days));
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: store_memory DIR full SERIES | store_memory DIR churn HOSTS SECONDS DAYS");
    std::process::exit(2);
}
