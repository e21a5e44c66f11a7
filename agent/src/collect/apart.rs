//! A collector that may be slow, on a thread of its own: rounds repeat its last reading while that is fresh and never wait
//! long for the next. A reading that hangs keeps its thread and its collector; no second one is started beside it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::{CollectError, Collector, Family};

/// A round may come this much before a reading is due and still start it, as rounds do not come to the millisecond.
const EARLY: Duration = Duration::from_millis(500);

/// A collector with its own rhythm.
pub(super) struct Apart {
    name: &'static str,
    every: Duration,
    within: Duration,
    state: State,
    started: Option<Instant>,
    last: Option<Reading>,
}

/// One reading.
pub(super) struct Reading {
    /// What was read, whole or, after an error, in part.
    pub(super) families: Vec<Family>,
    /// How it went.
    pub(super) outcome: Result<(), CollectError>,
    /// How long it took.
    pub(super) took: Duration,
}

/// What there is to know at a round.
pub(super) enum Look<'a> {
    /// A reading has come since the last round.
    Fresh(&'a mut Reading),
    /// The last reading still holds.
    Same(&'a Reading),
    /// Nothing yet, and not overdue.
    Waiting,
    /// A reading is overdue; this long it has run.
    Late(Duration),
    /// The collector panicked; it does not come back.
    Lost,
}

enum State {
    Idle(Box<dyn Collector>),
    Running(Receiver<(Box<dyn Collector>, Reading)>),
    Lost,
}

impl Apart {
    /// Takes a collector that is to be read at every `every` and has to answer within `within`.
    pub(super) fn new(collector: Box<dyn Collector>, every: Duration, within: Duration) -> Apart {
        Apart { name: collector.name(), every, within, state: State::Idle(collector), started: None, last: None }
    }

    /// Starts a reading if one is due at `now`, counted from start to start; not before `at_least` where that is longer.
    pub(super) fn start(&mut self, now: Instant, at_least: Option<Duration>) {
        self.start_on(Builder::new(), now, at_least);
    }

    fn start_on(&mut self, thread: Builder, now: Instant, at_least: Option<Duration>) {
        let every = at_least.map_or(self.every, |time| time.max(self.every));
        let is_due = self.started.is_none_or(|started| now.saturating_duration_since(started) + EARLY >= every);
        if !is_due || !matches!(self.state, State::Idle(_)) {
            return;
        }
        let State::Idle(collector) = std::mem::replace(&mut self.state, State::Lost) else { return };
        let (sender, receiver) = sync_channel(1);
        // A thread that cannot be started takes what it was given with it, but for what lies in here.
        let seat = Arc::new(Mutex::new(Some(collector)));
        let take =
            |seat: &Mutex<Option<Box<dyn Collector>>>| seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (its_seat, its_sender) = (Arc::clone(&seat), sender.clone());
        let read = move || {
            let Some(mut collector) = take(&its_seat) else { return };
            let (begun, mut families) = (Instant::now(), Vec::new());
            let outcome = collector.collect(&mut families);
            let reading = Reading { families, outcome, took: begun.elapsed() };
            // Nobody waits any more when the agent stops.
            drop(its_sender.send((collector, reading)));
        };
        if let Err(error) = thread.name(self.name.to_owned()).spawn(read) {
            // A host without a thread to spare, for now: this reading failed, and the next one is due as ever.
            let outcome = Err(CollectError::Asked(format!("no thread can be started to read it: {error}")));
            if let Some(collector) = take(&seat) {
                let reading = Reading { families: Vec::new(), outcome, took: Duration::ZERO };
                drop(sender.send((collector, reading)));
            }
        }
        self.started = Some(now);
        self.state = State::Running(receiver);
    }

    /// Forgets the last reading, which is not followed by another for now.
    pub(super) fn rest(&mut self) {
        self.last = None;
    }

    /// What there is at `now`, waiting until `patience` at most for a reading under way.
    pub(super) fn look(&mut self, now: Instant, patience: Instant) -> Look<'_> {
        if let State::Running(receiver) = &self.state {
            let left = patience.saturating_duration_since(Instant::now());
            let answer = if left.is_zero() {
                receiver.try_recv().map_err(|error| matches!(error, TryRecvError::Disconnected))
            } else {
                receiver.recv_timeout(left).map_err(|error| matches!(error, RecvTimeoutError::Disconnected))
            };
            match answer {
                Ok((collector, reading)) => {
                    self.state = State::Idle(collector);
                    return Look::Fresh(self.last.insert(reading));
                }
                Err(true) => self.state = State::Lost,
                Err(false) => {
                    let runs = self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
                    if runs > self.within {
                        self.last = None;
                        return Look::Late(runs);
                    }
                }
            }
        }
        if matches!(self.state, State::Lost) {
            return Look::Lost;
        }
        match &self.last {
            Some(reading) => Look::Same(reading),
            None => Look::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::collect::Kind;

    struct Gated(Arc<Barrier>, bool);

    impl Collector for Gated {
        fn name(&self) -> &'static str {
            "gated"
        }

        fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
            self.0.wait();
            assert!(!self.1, "told to panic");
            families.push(Family::new(Kind::Gauge, "x", "X.").with(1.0));
            Ok(())
        }
    }

    fn shown(look: &Look<'_>) -> &'static str {
        match look {
            Look::Fresh(_) => "fresh",
            Look::Same(_) => "same",
            Look::Waiting => "waiting",
            Look::Late(_) => "late",
            Look::Lost => "lost",
        }
    }

    #[test]
    fn a_reading_is_awaited_repeated_and_told_as_late() {
        let (gate, now) = (Arc::new(Barrier::new(2)), Instant::now());
        let (every, within) = (Duration::from_secs(60), Duration::from_secs(5));
        let mut apart = Apart::new(Box::new(Gated(Arc::clone(&gate), false)), every, within);
        assert_eq!(shown(&apart.look(now, now)), "waiting");
        apart.start(now, None);
        assert_eq!(shown(&apart.look(now, now)), "waiting");
        gate.wait();
        assert_eq!(shown(&apart.look(now, Instant::now() + Duration::from_secs(20))), "fresh");
        assert_eq!(shown(&apart.look(now, now)), "same");
        apart.start(now + Duration::from_secs(30), None);
        assert!(matches!(apart.state, State::Idle(_)), "not due yet");
        let later = now + Duration::from_secs(60);
        apart.start(later, None);
        assert_eq!(shown(&apart.look(later, now)), "same", "the last reading holds while the next is made");
        assert_eq!(shown(&apart.look(later + within * 2, now)), "late");
        apart.start(later + every, None);
        gate.wait();
        assert_eq!(shown(&apart.look(later, Instant::now() + Duration::from_secs(20))), "fresh");
        apart.rest();
        assert_eq!(shown(&apart.look(later, later)), "waiting", "while it rests nothing old is told");
    }

    #[test]
    fn a_lack_of_threads_fails_one_reading_and_no_more() {
        let (gate, now) = (Arc::new(Barrier::new(1)), Instant::now());
        let mut apart = Apart::new(Box::new(Gated(gate, false)), Duration::ZERO, Duration::from_secs(20));
        // No address space has room for this stack.
        apart.start_on(Builder::new().stack_size(1 << 60), now, None);
        let Look::Fresh(reading) = apart.look(now, now) else { panic!("the failure is told at once") };
        assert!(matches!(&reading.outcome, Err(CollectError::Asked(why)) if why.contains("no thread")));
        apart.start(now, None);
        let Look::Fresh(reading) = apart.look(now, Instant::now() + Duration::from_secs(20)) else {
            panic!("not read")
        };
        assert!(reading.outcome.is_ok());
    }

    #[test]
    fn a_collector_that_panics_is_lost_and_does_no_more_harm() {
        let (gate, now) = (Arc::new(Barrier::new(2)), Instant::now());
        let mut apart = Apart::new(Box::new(Gated(Arc::clone(&gate), true)), Duration::ZERO, Duration::ZERO);
        apart.start(now, None);
        gate.wait();
        assert_eq!(shown(&apart.look(now, Instant::now() + Duration::from_secs(20))), "lost");
        apart.start(now, None);
        assert_eq!(shown(&apart.look(now, now)), "lost");
    }
}
