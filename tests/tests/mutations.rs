//! Every decoder that meets bytes from outside, driven by seeded changes of good bytes: it answers or refuses, and does not panic.
//! Short here; `tests/long mutations` goes on for longer, and `fuzz/` drives the same doors by coverage.

use std::time::{Duration, Instant};

use petrel_tests::dice::{Dice, setting};
use petrel_tests::hostile::{DOORS, Door, mutate, show};

/// A parser of user text runs on threads like this one.
const STACK_BYTES: usize = 2 << 20;

#[test]
fn no_mutation_of_good_bytes_panics() {
    let (count, seed) = (setting("PETREL_MUTATIONS", 100_000), setting("PETREL_MUTATIONS_SEED", 1));
    println!("PETREL_MUTATIONS_SEED={seed}");
    for door in &DOORS {
        let drive = move || drive(door, seed, count);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(drive).expect("a thread can be started");
        let (knocked, slowest) = thread.join().unwrap_or_else(|_| panic!("{}: a mutation panics", door.name));
        println!("{}: {knocked} mutations, slowest {slowest:?}", door.name);
    }
}

/// Large inputs take their time: so many bytes in all for each mutation asked for.
const BYTES_PER_MUTATION: u64 = 400;

/// Knocks so often, or with so many bytes; returns how often and how long the slowest took.
fn drive(door: &Door, seed: u64, count: u64) -> (u64, Duration) {
    let good = (door.corpus)();
    // What came through a door without an error cannot be seen from here; mutations of mutations go deep all the same.
    let mut pool = good.clone();
    let mut dice = Dice::new(seed, door.name.len() as u64);
    let (mut slowest, mut knocked, mut bytes_left) = (Duration::ZERO, 0, count * BYTES_PER_MUTATION);
    for bytes in &good {
        (door.knock)(bytes);
    }
    while knocked < count && bytes_left > 0 {
        let (one, other) =
            (&pool[dice.below(pool.len() as u64) as usize], &good[dice.below(good.len() as u64) as usize]);
        let bytes = mutate(one, other, &mut dice);
        (knocked, bytes_left) = (knocked + 1, bytes_left.saturating_sub(bytes.len() as u64));
        let knock = Instant::now();
        let passed = std::panic::catch_unwind(|| (door.knock)(&bytes)).is_ok();
        assert!(passed, "{} panics on {}", door.name, show(&bytes));
        slowest = slowest.max(knock.elapsed());
        if dice.once_in(50) {
            let at = dice.below(500) as usize + good.len();
            if at < pool.len() { pool[at] = bytes } else { pool.push(bytes) }
        }
    }
    (knocked, slowest)
}
