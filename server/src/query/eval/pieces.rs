//! Work over many series in pieces, shared with a few threads where there is enough of it. The results stand in the order of
//! the series, whoever made them, so that sums come out the same to the last bit.

use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Series in a piece: at least so many that what each piece costs by itself does not show, at most so many that two threads end
/// at about the same time.
const PIECE_MIN: usize = 64;
const PIECE_MAX: usize = 256;
/// Pieces that a thread would get, were all equally fast.
const PIECES_PER_THREAD: usize = 4;

/// Work that must be left, as far as the pieces done so far tell, for others to be called. On a machine that has no idle core after all
/// a helper begins only after some 4 ms, and has to be waited for.
const WORTH_HELP: Duration = Duration::from_millis(2);

/// Cores besides the one that each query has anyway. Reading it takes longer than a small query.
static SPARE_CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(0, |cores| cores.get() - 1));
/// Threads that help queries now, over all queries; at most [`SPARE_CORES`]. Who finds none works alone.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Helpers of one query; given back when dropped.
struct Helpers(usize);

impl Helpers {
    fn take(wanted: usize) -> Helpers {
        let mut got = 0;
        let take = |taken: usize| {
            got = wanted.min(SPARE_CORES.saturating_sub(taken));
            (got > 0).then_some(taken + got)
        };
        match HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Helpers(got),
            Err(_) => Helpers(0),
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        HELPERS.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The results of `work` on pieces of `0..count`, strung together in their order. After an error no new piece is begun.
///
/// # Errors
/// The error of the first piece that failed.
pub(crate) fn in_pieces<T: Send, E: Send>(
    count: usize,
    work: impl Fn(Range<usize>) -> Result<Vec<T>, E> + Sync,
) -> Result<Vec<T>, E> {
    if count < 2 * PIECE_MIN {
        return work(0..count);
    }
    let size = (count / ((1 + *SPARE_CORES) * PIECES_PER_THREAD)).clamp(PIECE_MIN, PIECE_MAX);
    let pieces = count.div_ceil(size);
    let next = AtomicUsize::new(0);
    let take_one = || {
        let piece = next.fetch_add(1, Ordering::Relaxed);
        (piece < pieces).then(|| {
            let result = work(piece * size..count.min((piece + 1) * size));
            if result.is_err() {
                next.store(pieces, Ordering::Relaxed);
            }
            (piece, result)
        })
    };
    let help = || std::iter::from_fn(take_one).collect::<Vec<_>>();
    let started = Instant::now();
    let mut helpers = None;
    let mut done = thread::scope(|scope| {
        let mut others = Vec::new();
        let mut done = Vec::with_capacity(pieces);
        while let Some(one) = take_one() {
            done.push(one);
            let left = pieces.saturating_sub(next.load(Ordering::Relaxed));
            if helpers.is_none() && started.elapsed() * left as u32 / done.len() as u32 > WORTH_HELP {
                let taken = helpers.insert(Helpers::take(left));
                let spawn = |_| thread::Builder::new().name("query".to_owned()).spawn_scoped(scope, help).ok();
                others.extend((0..taken.0).filter_map(spawn));
            }
        }
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    drop(helpers);
    done.sort_unstable_by_key(|(piece, _)| *piece);
    let mut all = Vec::with_capacity(count);
    for (_, result) in done {
        all.append(&mut result?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_order() {
        for count in [0, 1, PIECE_MIN, 2 * PIECE_MIN, 2 * PIECE_MIN + 1, 5000] {
            let all = in_pieces(count, |piece| Ok::<_, ()>(piece.collect())).unwrap();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!(HELPERS.load(Ordering::Relaxed).min(*SPARE_CORES), HELPERS.load(Ordering::Relaxed));
    }

    #[test]
    fn the_first_error_wins() {
        let failed = in_pieces(5000, |piece| if piece.contains(&1000) { Err("first") } else { Ok(vec![0]) });
        assert_eq!(failed, Err("first"));
    }
}
