//! What the server was last told of each origin of samples, this host or a target that it scrapes, so that series which are gone
//! can be ended. Told is what the spool kept: what a round ends that it refused, the next one ends again. Pure.

use crate::collect::Family;
use crate::probes::scrape::Reading;
use crate::stream::encode::{self, Encoded, Part, vanished};

/// Points of one batch beyond which scraped targets go into further ones: so many still serve as dictionary of the next.
const BATCH_POINTS_MAX: usize = 12_000;

/// The last reading of each origin that was kept: as many as the config has targets, and the host's own.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Vec<Reading>,
}

impl Told {
    /// Encodes readings as one batch, with the ends of series that the one before of the same origin had.
    pub(super) fn encode(&self, batch: &[Reading]) -> Encoded {
        let ended: Vec<Vec<Family>> = (0..batch.len()).map(|at| self.ended(batch, at)).collect();
        let parts: Vec<Part<'_>> =
            batch.iter().zip(&ended).map(|(reading, vanished)| part(reading, vanished)).collect();
        encode::metrics(&parts)
    }

    /// The batch is kept: the next one builds on it.
    pub(super) fn keep(&mut self, batch: Vec<Reading>) {
        for reading in batch {
            match self.last.iter_mut().find(|last| last.target == reading.target) {
                Some(last) => *last = reading,
                None => self.last.push(reading),
            }
        }
    }

    /// The series that end with one of a batch's readings.
    fn ended(&self, batch: &[Reading], at: usize) -> Vec<Family> {
        let mut before = batch[..at].iter().rev().chain(&self.last);
        let before = before.find(|other| other.target == batch[at].target);
        before.map_or_else(Vec::new, |before| vanished(&before.families, &batch[at].families))
    }
}

fn part<'a>(reading: &'a Reading, vanished: &'a [Family]) -> Part<'a> {
    let Reading { target, job, instance, at, families } = reading;
    match target {
        None => Part::host(instance, families, vanished, *at),
        Some(_) => Part { job, instance, families, vanished, at: *at },
    }
}

/// The host's round and what was scraped, in one batch, unless that would be a very large one.
pub(super) fn in_batches(readings: Vec<Reading>) -> Vec<Vec<Reading>> {
    let (mut batches, mut batch, mut points) = (Vec::new(), Vec::new(), 0);
    for reading in readings {
        let more = reading.families.iter().map(|family| family.points.len()).sum::<usize>();
        if points + more > BATCH_POINTS_MAX && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            points = 0;
        }
        points += more;
        batch.push(reading);
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::collect::Kind;

    /// A reading with one series of each of these names.
    pub(in super::super) fn reading(target: Option<usize>, names: &[&'static str]) -> Reading {
        let families = names.iter().map(|name| Family::new(Kind::Gauge, *name, "").with(1.0)).collect();
        Reading { target, job: "j".into(), instance: "i".into(), at: 1, families: Arc::new(families) }
    }

    fn ended(told: &Told, batch: &[Reading]) -> Vec<String> {
        let names =
            |at| told.ended(batch, at).iter().map(|family| family.name.to_string()).collect::<Vec<_>>().join(" ");
        (0..batch.len()).map(names).collect()
    }

    #[test]
    fn series_end_with_the_first_reading_that_is_kept_without_them() {
        let mut told = Told::default();
        let first = vec![reading(None, &["a", "b"]), reading(Some(0), &["a", "c"])];
        assert_eq!(ended(&told, &first), ["", ""]);
        told.keep(first);
        let second = vec![reading(None, &["b", "d"]), reading(Some(0), &["a"])];
        assert_eq!(ended(&told, &second), ["a", "c"]);
        // It is refused: the server heard of neither end, and never of `d`.
        let third = vec![reading(None, &["b"])];
        assert_eq!(ended(&told, &third), ["a"]);
        told.keep(third);
        assert_eq!(ended(&told, &[reading(None, &["b"])]), [""], "ended once, not again");
        // The target did not come: its own stands.
        let fourth = vec![reading(Some(0), &["c"]), reading(Some(0), &["a", "c"]), reading(Some(0), &[])];
        assert_eq!(ended(&told, &fourth), ["a", "", "a c"], "each ends what the one before it had");
        assert_eq!(ended(&told, &[reading(Some(1), &["x"])]), [""], "another origin");
    }

    #[test]
    fn a_batch_has_all_readings_unless_they_are_very_large() {
        let mut large = Family::new(Kind::Gauge, "l", "").with(1.0);
        large.points = vec![large.points.remove(0); BATCH_POINTS_MAX - 1];
        let large = |target| Reading { families: Arc::new(vec![large.clone()]), ..reading(target, &[]) };
        let sizes = |readings| in_batches(readings).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![reading(None, &["a"]), reading(Some(0), &["a"])]), [2]);
        assert_eq!(sizes(vec![large(None), reading(Some(0), &["a"]), large(Some(1)), large(Some(2))]), [2, 1, 1]);
    }
}
