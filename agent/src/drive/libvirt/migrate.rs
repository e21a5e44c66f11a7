//! Moving a guest: checked against what is there now, capped in bandwidth, watched, broken off at its time-out, and judged
//! by where the guest is seen to run afterwards, never by the exit of a program alone.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::arguments::{Arguments, meets, wrong};
use super::super::{Act, ActError, Checked, Looked, Object, Refusal, Watch};
use super::{Libvirt, MIGRATE, is_remote_uri};
use crate::error_chain::chain;
use crate::libvirt::VirshError;
use crate::stream::protocol::{Guest, Order, Owner};

/// One question to a libvirt, its own or the destination's.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How long breaking off may take: libvirt itself gives up a dead destination after about 30 s.
const BREAK_OFF_WITHIN: Duration = Duration::from_secs(45);
/// After a migration the guest is resumed on one side; it may be seen paused on the way.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// How often a state that should change is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One order, read.
struct Move<'a> {
    uuid: &'a str,
    destination_host: &'a str,
    destination_uri: &'a str,
    bandwidth_mib_s: u64,
}

/// Where a guest is, seen from one libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Running,
    /// Known there, and in this other state.
    Other(String),
    Absent,
    /// It could not be asked.
    Unreadable(String),
}

/// How the call of virsh ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exit {
    Well,
    /// With these words.
    Badly(String),
    TimedOut,
    Cancelled,
}

impl Libvirt {
    fn order<'a>(&self, order: &'a Order) -> Result<Move<'a>, Refusal> {
        if order.action != MIGRATE {
            return Err(Refusal::UnknownAction { action: order.action.clone(), known: MIGRATE });
        }
        let mut with = Arguments::of(&order.with);
        let asked = Move {
            uuid: with.text("guest_uuid")?,
            destination_host: with.text("destination_host")?,
            destination_uri: with.text("destination_uri")?,
            bandwidth_mib_s: with.number("bandwidth_mib_s", 1..=u64::from(u32::MAX))?,
        };
        with.end()?;
        let hyphens = [8, 13, 18, 23];
        let is_uuid = asked.uuid.len() == 36
            && asked.uuid.bytes().enumerate().all(|(at, byte)| {
                if hyphens.contains(&at) { byte == b'-' } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') }
            });
        if !is_uuid {
            return Err(wrong("guest_uuid", "must be a UUID in lower case"));
        }
        if !is_remote_uri(asked.destination_uri) {
            return Err(wrong("destination_uri", "must be a remote libvirt URI, for example qemu+tls://h2/system"));
        }
        if asked.destination_host == self.host {
            return Err(wrong("destination_host", "is this host itself"));
        }
        let max = self.config.bandwidth_max_mib_s;
        if asked.bandwidth_mib_s > max {
            return Err(wrong("bandwidth_mib_s", format!("must be at most {max}, this host's bandwidth_max")));
        }
        Ok(asked)
    }

    /// The guest of an order, which must be Petrel's at this moment.
    fn own_guest(&self, asked: &Move<'_>) -> Result<Option<(Guest, Vec<Guest>)>, Refusal> {
        if self.config.carries_petrel {
            return Err(Refusal::driver("this host carries Petrel itself and is never touched"));
        }
        let mut guests = self.survey().map_err(|error| Refusal::driver(chain(&error)))?.guests;
        let Some(at) = guests.iter().position(|guest| guest.uuid == asked.uuid) else { return Ok(None) };
        let guest = guests.swap_remove(at);
        match &guest.owner {
            Owner::Petrel => Ok(Some((guest, guests))),
            Owner::Foreign { reason } => Err(Refusal::driver(format!("guest {} is foreign: {reason}", guest.name))),
        }
    }

    fn check_move(&self, order: &Order, asked: &Move<'_>) -> Result<Checked, Refusal> {
        let (guest, others) = self.own_guest(asked)?.ok_or_else(|| not_here(asked))?;
        let before = object(json!({ "host": self.host, "name": guest.name, "state": guest.state }));
        let mut facts = before.clone();
        facts.insert("memory_bytes".to_owned(), guest.memory_bytes.into());
        meets(&order.expect, &facts)?;
        if !guest.obstacles.is_empty() {
            return Err(Refusal::driver(format!("{} cannot be moved: {}", guest.name, guest.obstacles.join(", "))));
        }
        if let Some(other) = others.iter().find(|other| other.migrating) {
            return Err(Refusal::driver(format!("{} is being migrated; a host moves one guest at a time", other.name)));
        }
        match self.place(Some(asked.destination_uri), asked.uuid) {
            Place::Absent => {}
            Place::Other(state) if state == "shut off" => {}
            Place::Running | Place::Other(_) => {
                return Err(Refusal::driver(format!(
                    "{} is active on {} as well; look at both hosts before anything else",
                    guest.name, asked.destination_host
                )));
            }
            Place::Unreadable(problem) => {
                return Err(Refusal::driver(format!("{} cannot take it: {problem}", asked.destination_host)));
            }
        }
        let bandwidth = asked.bandwidth_mib_s.to_string();
        Ok(Checked { command: self.virsh.command(&self.arguments(asked, &bandwidth)), before })
    }

    fn check_undo(&self, asked: &Move<'_>) -> Result<Checked, Refusal> {
        // Not here: it has moved, and stays where it is.
        let Some((guest, _)) = self.own_guest(asked)? else { return Ok(Checked::default()) };
        let before = object(json!({ "host": self.host, "name": guest.name, "state": guest.state }));
        Ok(Checked { command: self.virsh.command(&["domjobabort", asked.uuid]), before })
    }

    fn arguments<'a>(&self, asked: &Move<'a>, bandwidth: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
        if self.config.migration_tls {
            arguments.push("--tls");
        }
        arguments.extend(["--bandwidth", bandwidth, asked.uuid, asked.destination_uri]);
        arguments
    }

    /// Runs the migration until it ends, is broken off, or the agent leaves.
    fn migrate(&self, asked: &Move<'_>, watch: &Watch) -> Result<Exit, ActError> {
        let bandwidth = asked.bandwidth_mib_s.to_string();
        let begun = self.virsh.start(&self.arguments(asked, &bandwidth));
        let mut running = begun.map_err(|error| ActError::failed(format!("nothing was changed: {}", chain(&error))))?;
        let stop = || watch.is_over() || watch.is_cancelled() || watch.is_leaving();
        if let Some(said) = running.wait(&stop) {
            return Ok(if said.well() { Exit::Well } else { Exit::Badly(said.words) });
        }
        if watch.is_leaving() {
            // libvirtd goes on; the next start looks it up.
            return Err(ActError::Left);
        }
        let cancelled = watch.is_cancelled();
        let end = Instant::now() + BREAK_OFF_WITHIN;
        while Instant::now() < end {
            if watch.is_leaving() {
                return Err(ActError::Left);
            }
            // Until virsh ends: the job may not have begun yet, or be past the point of return.
            drop(self.virsh.say(&["domjobabort", asked.uuid], Instant::now() + ASK_WITHIN));
            let pause = Instant::now() + LOOK_EVERY;
            if running.wait(&|| Instant::now() >= pause).is_some() {
                return Ok(if cancelled { Exit::Cancelled } else { Exit::TimedOut });
            }
        }
        running.kill();
        Ok(if cancelled { Exit::Cancelled } else { Exit::TimedOut })
    }

    /// Where the guest is, seen from this host's libvirt or from the one at `uri`.
    fn place(&self, uri: Option<&str>, uuid: &str) -> Place {
        let virsh = uri.map_or_else(|| self.virsh.clone(), |uri| self.virsh.to(uri));
        let ask = |arguments: &[&str]| virsh.ask(arguments, Instant::now() + ASK_WITHIN);
        let known = |list: String| list.split_whitespace().any(|known| known == uuid);
        let look = || -> Result<Place, VirshError> {
            if !known(ask(&["list", "--all", "--uuid"])?) {
                return Ok(Place::Absent);
            }
            let state = ask(&["domstate", uuid])?.trim().to_owned();
            Ok(if state == "running" { Place::Running } else { Place::Other(state) })
        };
        match look() {
            Ok(place) => place,
            // It may have left between the two questions.
            Err(_) => look().unwrap_or_else(|error| Place::Unreadable(chain(&error))),
        }
    }

    /// Whether a migration of the guest is under way here.
    fn is_migrating(&self, uuid: &str) -> Result<bool, VirshError> {
        let said = self.virsh.ask(&["domjobinfo", uuid], Instant::now() + ASK_WITHIN)?;
        Ok(said.contains("Operation:") && said.to_lowercase().contains("migration"))
    }

    /// Looks at both sides until they are in an order that can be judged, or for `SETTLE_WITHIN`.
    fn settled(&self, asked: &Move<'_>) -> (Place, Place) {
        let end = Instant::now() + SETTLE_WITHIN;
        loop {
            let here = self.place(None, asked.uuid);
            // A source that has the guest and moves it no more decides alone: the destination may be dead.
            if here == Place::Running && matches!(self.is_migrating(asked.uuid), Ok(false)) {
                return (here, Place::Unreadable("not asked".to_owned()));
            }
            let there = self.place(Some(asked.destination_uri), asked.uuid);
            let clear = here == Place::Absent && there == Place::Running;
            if clear {
                return (here, there);
            }
            if Instant::now() >= end {
                let still = here == Place::Running;
                return (if still { Place::Other("still being migrated".to_owned()) } else { here }, there);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn finish_undo(&self, asked: &Move<'_>) -> Result<(), ActError> {
        let end = Instant::now() + BREAK_OFF_WITHIN;
        loop {
            match self.place(None, asked.uuid) {
                Place::Running => match self.is_migrating(asked.uuid) {
                    Ok(false) => return Ok(()),
                    Ok(true) => drop(self.virsh.say(&["domjobabort", asked.uuid], Instant::now() + ASK_WITHIN)),
                    Err(error) => return Err(ActError::Unknown { reason: chain(&error) }),
                },
                Place::Absent => {
                    return match self.place(Some(asked.destination_uri), asked.uuid) {
                        Place::Running => Ok(()),
                        there => Err(ActError::Unknown {
                            reason: format!("the guest has left this host; on {}: {there}", asked.destination_host),
                        }),
                    };
                }
                // It is paused for a moment at the end of a migration.
                Place::Other(_) | Place::Unreadable(_) => {}
            }
            if Instant::now() >= end {
                let here = self.place(None, asked.uuid);
                return Err(ActError::Unknown {
                    reason: format!("the migration could not be broken off; here: {here}"),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Act for Libvirt {
    fn check(&self, order: &Order) -> Result<Checked, Refusal> {
        let asked = self.order(order)?;
        if order.undo_of.is_some() { self.check_undo(&asked) } else { self.check_move(order, &asked) }
    }

    fn apply(&self, order: &Order, _: &Checked, watch: &Watch) -> Result<(), ActError> {
        let asked = self.order(order).map_err(|refusal| ActError::failed(refusal.to_string()))?;
        let exit = self.migrate(&asked, watch)?;
        let (here, there) = self.settled(&asked);
        judge(&exit, &here, &there, asked.destination_host)
    }

    fn undo(&self, order: &Order, _: &Checked, _: &Watch) -> Result<(), ActError> {
        let asked = self.order(order).map_err(|refusal| ActError::failed(refusal.to_string()))?;
        self.finish_undo(&asked)
    }

    fn progress(&self, order: &Order, _: &Checked) -> Looked {
        let asked = match self.order(order) {
            Ok(asked) => asked,
            Err(refusal) => return Looked::Unknown { reason: refusal.to_string() },
        };
        if order.undo_of.is_some() {
            let here = self.place(None, asked.uuid);
            return match (here, self.is_migrating(asked.uuid)) {
                (Place::Running, Ok(false)) => Looked::Done,
                (here, _) => Looked::Unknown { reason: format!("the guest is, here: {here}") },
            };
        }
        let here = self.place(None, asked.uuid);
        if !matches!(here, Place::Absent) && matches!(self.is_migrating(asked.uuid), Ok(true)) {
            return Looked::Running;
        }
        match (here, self.place(Some(asked.destination_uri), asked.uuid)) {
            (Place::Absent, Place::Running) => Looked::Done,
            (here, there) => Looked::Unknown {
                reason: format!("the guest is, here: {here}; on {}: {there}", asked.destination_host),
            },
        }
    }
}

/// How a migration ended, by where the guest is seen.
fn judge(exit: &Exit, here: &Place, there: &Place, destination: &str) -> Result<(), ActError> {
    match (exit, here, there) {
        // Wherever virsh's connection broke: it is there and gone from here.
        (_, Place::Absent, Place::Running) => Ok(()),
        (Exit::Well, _, _) => Err(ActError::Unknown {
            reason: format!("virsh says it moved; yet here: {here}; on {destination}: {there}"),
        }),
        (_, Place::Running, _) => Err(ActError::failed(format!("{exit}; the guest runs on at the source"))),
        _ => Err(ActError::Unknown { reason: format!("{exit}; here: {here}; on {destination}: {there}") }),
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Well => f.write_str("it moved"),
            Exit::Badly(words) => write!(f, "virsh said: {words}"),
            Exit::TimedOut => f.write_str("the migration took longer than the order allows and was broken off"),
            Exit::Cancelled => f.write_str("the migration was broken off by its undo"),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Running => f.write_str("running"),
            Place::Other(state) => f.write_str(state),
            Place::Absent => f.write_str("absent"),
            Place::Unreadable(problem) => write!(f, "not to be seen ({problem})"),
        }
    }
}

fn not_here(asked: &Move<'_>) -> Refusal {
    wrong("guest_uuid", format!("is {}, and no such guest is on this host", asked.uuid))
}

fn object(value: serde_json::Value) -> Object {
    match value {
        serde_json::Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(exit: &Exit, here: &Place, there: &Place, expected: &Expect) {
        expected.assert_eq(&match judge(exit, here, there, "h2") {
            Ok(()) => "done".to_owned(),
            Err(ActError::Failed { reason }) => format!("failed: {reason}"),
            Err(ActError::Unknown { reason }) => format!("unknown: {reason}"),
            Err(ActError::Left) => "left".to_owned(),
        });
    }

    #[test]
    fn the_end_is_judged_by_where_the_guest_runs() {
        let badly = Exit::Badly("connection reset".to_owned());
        let unseen = Place::Unreadable("no route".to_owned());
        check(&Exit::Well, &Place::Absent, &Place::Running, &expect!["done"]);
        check(&badly, &Place::Absent, &Place::Running, &expect!["done"]);
        check(
            &badly,
            &Place::Running,
            &unseen,
            &expect!["failed: virsh said: connection reset; the guest runs on at the source"],
        );
        check(
            &Exit::TimedOut,
            &Place::Running,
            &Place::Absent,
            &expect![
                "failed: the migration took longer than the order allows and was broken off; the guest runs on at the source"
            ],
        );
        check(
            &Exit::Well,
            &Place::Absent,
            &unseen,
            &expect!["unknown: virsh says it moved; yet here: absent; on h2: not to be seen (no route)"],
        );
        check(
            &Exit::Well,
            &Place::Running,
            &Place::Absent,
            &expect!["unknown: virsh says it moved; yet here: running; on h2: absent"],
        );
        check(
            &badly,
            &Place::Other("paused".to_owned()),
            &Place::Other("paused".to_owned()),
            &expect!["unknown: virsh said: connection reset; here: paused; on h2: paused"],
        );
    }
}
