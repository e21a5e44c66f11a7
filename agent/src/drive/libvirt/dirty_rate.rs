//! How fast guests change their memory, measured only while somebody plans to move them: qemu looks at samples of a guest's pages
//! for a second, and `virsh domstats --dirtyrate` says later what it found. Changes nothing in a guest.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use crate::collect::{Family, Kind};
use crate::error_chain::chain;
use crate::libvirt::{Shell, Virsh, domstats};
use crate::stream::protocol::Guest;

/// Guests measured with one reading; the others have their turn with the next ones.
const GUESTS_AT_ONCE: usize = 16;
/// To start a measurement and to read the last one takes some milliseconds.
const WITHIN: Duration = Duration::from_secs(4);
/// What was found, of guests that run.
const FOUND: &str = "domstats --nowait --list-running --dirtyrate";
/// libvirt's word for a measurement that came to its end.
const MEASURED: &str = "2";
const BYTES_PER_MIB: f64 = 1_048_576.0;

/// Until when it is measured, whose turn it is, and what was found.
#[derive(Debug, Default)]
pub(super) struct DirtyRate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    turn: usize,
    /// Bytes a second, by UUID and name.
    found: BTreeMap<(String, String), f64>,
}

impl DirtyRate {
    /// Measure until then.
    pub(super) fn ask(&self, until: Instant) {
        self.state().until = Some(until);
    }

    /// If somebody asked for it: reads through `shell` what was found, and has `virsh`, which may do more than read, measure the guests
    /// whose turn it is. What cannot be measured is not: plans do without.
    pub(super) fn measure(&self, (shell, virsh): (&Shell, &Virsh), guests: &[Guest], now: Instant) {
        let turn = self.turn(guests, now);
        if turn.is_empty() {
            return;
        }
        let deadline = now + WITHIN;
        match shell.ask(&[FOUND], deadline) {
            Ok(answers) => self.take(answers.first().map_or("", |answer| &answer.out), guests),
            Err(error) => debug!(error = chain(&error), "dirty rates cannot be read"),
        }
        for uuid in turn {
            if let Err(error) = virsh.ask(&["domdirtyrate-calc", uuid, "--seconds", "1"], deadline) {
                debug!(uuid, error = chain(&error), "a guest's dirty rate is not measured");
            }
        }
    }

    /// What was found last, while it is measured.
    pub(super) fn families(&self) -> Vec<Family> {
        let state = self.state();
        if state.found.is_empty() {
            return Vec::new();
        }
        let help = "Memory that the guest changes in a second, measured while somebody plans to move it.";
        let mut family = Family::new(Kind::Gauge, "petrel_guest_dirty_bytes_per_second", help);
        for ((uuid, name), rate) in &state.found {
            family.push(&[("domain", name), ("uuid", uuid)], *rate);
        }
        vec![family]
    }

    /// The guests whose turn it is, while somebody asks.
    fn turn<'a>(&self, guests: &'a [Guest], now: Instant) -> Vec<&'a str> {
        let mut state = self.state();
        if state.until.is_none_or(|until| now >= until) {
            *state = State::default();
            return Vec::new();
        }
        let running: Vec<&str> =
            guests.iter().filter(|guest| guest.state == "running").map(|guest| guest.uuid.as_str()).collect();
        let count = running.len().min(GUESTS_AT_ONCE);
        let turn = (0..count).map(|place| running[(state.turn + place) % running.len()]).collect();
        state.turn = if running.is_empty() { 0 } else { (state.turn + count) % running.len() };
        turn
    }

    fn take(&self, found: &str, guests: &[Guest]) {
        let uuids: BTreeMap<&str, &str> =
            guests.iter().map(|guest| (guest.name.as_str(), guest.uuid.as_str())).collect();
        let rate = |record: &domstats::Record<'_>| -> Option<((String, String), f64)> {
            let uuid = (*uuids.get(record.name)?).to_owned();
            let mebibytes: f64 = record.get("dirtyrate.megabytes_per_second")?.parse().ok()?;
            let is_measured = record.get("dirtyrate.calc_status") == Some(MEASURED);
            (is_measured && mebibytes.is_finite()).then(|| ((uuid, record.name.to_owned()), mebibytes * BYTES_PER_MIB))
        };
        let records = domstats::records(found).unwrap_or_default();
        self.state().found = records.iter().filter_map(rate).collect();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::text::render;
    use crate::stream::protocol::Owner;

    fn guest(uuid: usize, state: &str) -> Guest {
        Guest {
            uuid: uuid.to_string(),
            name: format!("vm{uuid}"),
            state: state.to_owned(),
            memory_bytes: 1,
            vcpus: 1,
            cpu_seconds_total: 0.0,
            owner: Owner::Petrel,
            obstacles: Vec::new(),
            migrating: false,
        }
    }

    #[test]
    fn guests_are_measured_in_turns_and_only_while_somebody_asks() {
        let (rate, now) = (DirtyRate::default(), Instant::now());
        let mut guests: Vec<Guest> = (0..20).map(|uuid| guest(uuid, "running")).collect();
        guests.push(guest(20, "paused"));
        assert_eq!(rate.turn(&guests, now), Vec::<&str>::new());
        rate.ask(now + WITHIN);
        let first = rate.turn(&guests, now);
        assert_eq!((first.len(), first[0]), (16, "0"));
        let second = rate.turn(&guests, now);
        assert_eq!((second[0], second[4]), ("16", "0"));
        assert!(!second.contains(&"20"), "only guests that run");
        assert_eq!(rate.turn(&[], now), Vec::<&str>::new());
        assert_eq!(rate.turn(&guests, now + WITHIN), Vec::<&str>::new());
    }

    /// The words of virsh 9.0 for a guest under load, and for one whose measurement has not ended.
    #[test]
    fn what_was_found_is_told_until_nobody_asks() {
        let (rate, now) = (DirtyRate::default(), Instant::now());
        let guests = [guest(1, "running"), guest(2, "running")];
        rate.ask(now + WITHIN);
        let said = "Domain: 'vm1'\n  dirtyrate.calc_status=2\n  dirtyrate.calc_start_time=54454\n  dirtyrate.calc_period=1\n  \
                    dirtyrate.calc_mode=page-sampling\n  dirtyrate.megabytes_per_second=52\n\n\
                    Domain: 'vm2'\n  dirtyrate.calc_status=1\n  dirtyrate.megabytes_per_second=7\n\n\
                    Domain: 'gone'\n  dirtyrate.calc_status=2\n  dirtyrate.megabytes_per_second=7\n";
        rate.take(said, &guests);
        let shown = render(&rate.families());
        let series: Vec<&str> = shown.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(series, ["petrel_guest_dirty_bytes_per_second{domain=\"vm1\",uuid=\"1\"} 54525952"]);
        rate.turn(&guests, now + WITHIN);
        assert_eq!(rate.families(), vec![]);
    }
}
