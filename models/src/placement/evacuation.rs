//! The moves that empty a host. A search over assignments, largest guest first, each leaf proven against every single loss
//! of a further host; bounded, so that a hopeless cluster is refused and not pondered over.

use super::capacity::{Guest, Shape, View, loss_that_does_not_fit};

/// Complete assignments that are tried before the search gives up. With largest first and most room first the first one
/// nearly always holds; the bound keeps the worst case of 1,000 hosts in seconds.
const LEAVES_MAX: u32 = 200;
/// Partial assignments that are tried; bounds dead ends that never reach a leaf.
const NODES_MAX: u32 = 20_000;

/// One guest to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The guest's identity.
    pub guest_uuid: String,
    /// The guest's name.
    pub guest_name: String,
    /// The host it goes to.
    pub to: String,
}

/// What the caller wants beyond the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Guests, by name or UUID, that must stay where they are; a host with one of them is not evacuated.
    pub never_move: Vec<String>,
}

/// Why a host is not evacuated. Always safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such host.
    #[error("host {host} is in no inventory; install an agent there and allow its libvirt driver")]
    UnknownHost {
        /// The host.
        host: String,
    },
    /// The source carries Petrel.
    #[error("host {host} carries Petrel itself and is never evacuated by it; move Petrel first")]
    CarriesPetrel {
        /// The host.
        host: String,
    },
    /// Guests of others run there.
    #[error("host {host} has foreign guests that Petrel must not touch: {}", guests.join("; "))]
    ForeignGuests {
        /// The host.
        host: String,
        /// Each guest with what is known of its owner.
        guests: Vec<String>,
    },
    /// Guests there cannot be moved live.
    #[error("host {host} has guests that cannot be moved live: {}", guests.join("; "))]
    Obstacles {
        /// The host.
        host: String,
        /// Each guest with what is in the way.
        guests: Vec<String>,
    },
    /// A guest runs in two places.
    #[error("guest {guest} is seen running on {}; clear that up before anything moves", hosts.join(" and "))]
    SeenTwice {
        /// The guest.
        guest: String,
        /// Where.
        hosts: Vec<String>,
    },
    /// No host has room for a guest.
    #[error("guest {guest} fits on no other host{}", if excluded.is_empty() { String::new() } else { format!(" (not considered: {})", excluded.join("; ")) })]
    DoesNotFit {
        /// The first guest without a place.
        guest: String,
        /// Hosts that were not considered, with the reason.
        excluded: Vec<String>,
    },
    /// It would fit, but then one more loss would not.
    #[error("after moving the guests of {host}, the loss of {lost} would leave guests without a place (N+1)")]
    BreaksNPlusOne {
        /// The host to be emptied.
        host: String,
        /// The further loss that does not fit.
        lost: String,
    },
    /// A planned target is gone or no longer eligible.
    #[error("host {host} can no longer take guests: {reason}")]
    TargetLost {
        /// The target.
        host: String,
        /// Why.
        reason: String,
    },
}

/// Finds a place for every running guest of `source`, so that no host is overcommitted and every single further loss fits.
///
/// Largest guest first; among the hosts with room, those of the source's failure domain last, then the one with the most
/// memory left, then by name. Same view, same moves.
///
/// # Errors
/// A [`Refusal`] where it is not allowed, not possible, or not proven within the bound of the search.
pub fn plan_evacuation(view: &View, source: &str, options: &Options) -> Result<Vec<Move>, Refusal> {
    let guests = movable_guests(view, source, options)?;
    let mut search = Search::over(view, source);
    if search.assign(&guests, 0) {
        let name = |&host: &usize| view.hosts[host].name.clone();
        let moves = guests.iter().zip(&search.chosen);
        return Ok(moves
            .map(|(guest, to)| Move { guest_uuid: guest.uuid.clone(), guest_name: guest.name.clone(), to: name(to) })
            .collect());
    }
    Err(match search.lost {
        Some(lost) => Refusal::BreaksNPlusOne { host: source.to_owned(), lost: view.hosts[lost].name.clone() },
        None => Refusal::DoesNotFit { guest: guests[search.deepest].name.clone(), excluded: excluded(view, source) },
    })
}

/// Whether the `moves` that are left of an earlier plan still hold in this view: each guest may still be moved, each target still
/// takes guests, nothing is overcommitted, and every single further loss fits.
///
/// # Errors
/// The [`Refusal`] that stands against it.
pub fn check_moves(view: &View, source: &str, moves: &[Move]) -> Result<(), Refusal> {
    let guests = movable_guests(view, source, &Options::default())?;
    let mut search = Search::over(view, source);
    for planned in moves {
        let Some(guest) = guests.iter().find(|guest| guest.uuid == planned.guest_uuid) else { continue };
        let target = view.hosts.iter().position(|host| host.name == planned.to);
        let target = target.filter(|&host| search.takes[host]).ok_or_else(|| Refusal::TargetLost {
            host: planned.to.clone(),
            reason: view.host(&planned.to).and_then(|host| host.excluded.clone()).unwrap_or("not seen".to_owned()),
        })?;
        if !guest.demand.fits(search.room[target]) {
            return Err(Refusal::DoesNotFit { guest: guest.name.clone(), excluded: Vec::new() });
        }
        search.place(guest.demand, target);
    }
    match loss_that_does_not_fit(&search.load, &search.room, &search.takes) {
        Some(lost) => Err(Refusal::BreaksNPlusOne { host: source.to_owned(), lost: view.hosts[lost].name.clone() }),
        None => Ok(()),
    }
}

fn excluded(view: &View, source: &str) -> Vec<String> {
    let others = view.hosts.iter().filter(|host| host.name != source);
    others.filter_map(|host| host.excluded.as_ref().map(|reason| format!("{}: {reason}", host.name))).collect()
}

/// The running guests of the source, largest first, after every rule that forbids to touch them.
fn movable_guests<'a>(view: &'a View, source: &str, options: &Options) -> Result<Vec<&'a Guest>, Refusal> {
    let unknown = || Refusal::UnknownHost { host: source.to_owned() };
    let host = view.host(source).ok_or_else(unknown)?;
    if host.carries_petrel {
        return Err(Refusal::CarriesPetrel { host: source.to_owned() });
    }
    if let Some((guest, hosts)) = view.seen_twice() {
        let hosts = hosts.into_iter().map(str::to_owned).collect();
        return Err(Refusal::SeenTwice { guest: guest.name.clone(), hosts });
    }
    let mut guests: Vec<&Guest> = host.guests.iter().filter(|guest| guest.running).collect();
    let foreign: Vec<String> = guests
        .iter()
        .filter_map(|guest| guest.foreign.as_ref().map(|reason| format!("{} ({reason})", guest.name)))
        .collect();
    if !foreign.is_empty() {
        return Err(Refusal::ForeignGuests { host: source.to_owned(), guests: foreign });
    }
    let stays = |guest: &Guest| options.never_move.iter().any(|name| *name == guest.name || *name == guest.uuid);
    let obstacles: Vec<String> = guests
        .iter()
        .filter_map(|guest| match (stays(guest), guest.obstacles.is_empty()) {
            (true, _) => Some(format!("{} (never_move)", guest.name)),
            (false, false) => Some(format!("{} ({})", guest.name, guest.obstacles.join(", "))),
            (false, true) => None,
        })
        .collect();
    if !obstacles.is_empty() {
        return Err(Refusal::Obstacles { host: source.to_owned(), guests: obstacles });
    }
    guests.sort_by(|a, b| {
        let by_cores = b.demand.cores.total_cmp(&a.demand.cores);
        b.demand.memory_bytes.cmp(&a.demand.memory_bytes).then(by_cores).then_with(|| a.uuid.cmp(&b.uuid))
    });
    Ok(guests)
}

/// The state of the search: what each host carries after the moves chosen so far.
struct Search<'a> {
    view: &'a View,
    source_domain: &'a str,
    load: Vec<Vec<Shape>>,
    room: Vec<Shape>,
    takes: Vec<bool>,
    chosen: Vec<usize>,
    /// The deepest guest that found no place, for the refusal.
    deepest: usize,
    /// The loss that spoilt the last complete assignment.
    lost: Option<usize>,
    leaves: u32,
    nodes: u32,
}

impl<'a> Search<'a> {
    /// The source's own guests are not part of the load: they are about to leave, and the source takes nothing.
    fn over(view: &'a View, source: &str) -> Search<'a> {
        let demands = |host: &super::Host| -> Vec<Shape> {
            let running = host.guests.iter().filter(|guest| guest.running && host.name != source);
            running.map(|guest| guest.demand).collect()
        };
        Search {
            view,
            source_domain: view.host(source).map_or("", |host| &host.domain),
            load: view.hosts.iter().map(demands).collect(),
            room: view.hosts.iter().map(super::Host::room).collect(),
            takes: view.hosts.iter().map(|host| host.name != source && host.excluded.is_none()).collect(),
            chosen: Vec::new(),
            deepest: 0,
            lost: None,
            leaves: 0,
            nodes: 0,
        }
    }

    /// Depth-first over the guests from `index` on; true when a complete assignment holds. Depth is the number of guests.
    fn assign(&mut self, guests: &[&Guest], index: usize) -> bool {
        let Some(guest) = guests.get(index) else {
            self.leaves += 1;
            self.lost = loss_that_does_not_fit(&self.load, &self.room, &self.takes);
            return self.lost.is_none();
        };
        for target in self.candidates(guest) {
            self.nodes += 1;
            if self.leaves >= LEAVES_MAX || self.nodes >= NODES_MAX {
                return false;
            }
            let before = self.room[target];
            self.place(guest.demand, target);
            self.chosen.push(target);
            if self.assign(guests, index + 1) {
                return true;
            }
            self.chosen.pop();
            self.load[target].pop();
            self.room[target] = before;
        }
        self.deepest = self.deepest.max(index);
        false
    }

    fn place(&mut self, demand: Shape, target: usize) {
        self.load[target].push(demand);
        self.room[target] = self.room[target].minus(demand);
    }

    fn candidates(&self, guest: &Guest) -> Vec<usize> {
        let mut hosts: Vec<usize> =
            (0..self.view.hosts.len()).filter(|&host| self.takes[host] && guest.demand.fits(self.room[host])).collect();
        let same_domain = |host: usize| {
            let domain = &self.view.hosts[host].domain;
            !domain.is_empty() && domain == self.source_domain
        };
        hosts.sort_by(|&a, &b| {
            let by_room = self.room[b].memory_bytes.cmp(&self.room[a].memory_bytes);
            let by_name = || self.view.hosts[a].name.cmp(&self.view.hosts[b].name);
            same_domain(a).cmp(&same_domain(b)).then(by_room).then_with(by_name)
        });
        hosts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Host;
    use super::*;

    fn guest(name: &str, memory: u64) -> Guest {
        Guest {
            uuid: format!("u-{name}"),
            name: name.to_owned(),
            demand: Shape { memory_bytes: memory, cores: 0.1 },
            running: true,
            foreign: None,
            obstacles: Vec::new(),
        }
    }

    fn host(name: &str, capacity: u64, guests: Vec<Guest>) -> Host {
        let mut host = Host {
            name: name.to_owned(),
            capacity: Shape { memory_bytes: capacity, cores: 64.0 },
            memory_bytes_free: 0,
            excluded: None,
            carries_petrel: false,
            domain: String::new(),
            guests,
        };
        host.memory_bytes_free = host.capacity.minus(host.load()).memory_bytes;
        host
    }

    fn plan(hosts: Vec<Host>) -> String {
        match plan_evacuation(&View { hosts }, "h1", &Options::default()) {
            Ok(moves) => moves.iter().map(|m| format!("{}>{}", m.guest_name, m.to)).collect::<Vec<_>>().join(" "),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn guests_go_where_they_fit_and_one_more_loss_fits_too() {
        let hosts =
            || vec![host("h1", 8, vec![guest("a", 2), guest("b", 3)]), host("h2", 8, vec![]), host("h3", 8, vec![])];
        assert_eq!(plan(hosts()), "b>h2 a>h3");
        let mut tight = hosts();
        tight[2].guests.push(guest("c", 4));
        tight[2].memory_bytes_free = 4;
        assert_eq!(
            plan(tight),
            "after moving the guests of h1, the loss of h2 would leave guests without a place (N+1)"
        );
    }

    #[test]
    fn refusals_name_their_reason() {
        let mut foreign = guest("db", 1);
        foreign.foreign = Some("pacemaker resource vm-db".to_owned());
        let mut local = guest("disk", 1);
        local.obstacles = vec!["local disk vda".to_owned()];
        let two = |guests| vec![host("h1", 8, guests), host("h2", 8, vec![]), host("h3", 8, vec![])];
        let mut petrel = two(vec![]);
        petrel[0].carries_petrel = true;
        let mut excluded = two(vec![guest("a", 1)]);
        excluded[1].excluded = Some("inventory is 95 s old".to_owned());
        excluded[2].excluded = Some("held".to_owned());
        let mut twice = two(vec![guest("a", 1)]);
        twice[1].guests.push(guest("a", 1));
        for (hosts, want) in [
            (two(vec![foreign]), "foreign guests that Petrel must not touch: db (pacemaker resource vm-db)"),
            (two(vec![local]), "cannot be moved live: disk (local disk vda)"),
            (petrel, "carries Petrel itself"),
            (excluded, "fits on no other host (not considered: h2: inventory is 95 s old; h3: held)"),
            (twice, "guest a is seen running on h1 and h2"),
            (two(vec![guest("a", 9)]), "guest a fits on no other host"),
            (vec![], "host h1 is in no inventory"),
        ] {
            let said = plan(hosts);
            assert!(said.contains(want), "{said}");
        }
        let stays = Options { never_move: vec!["a".to_owned()] };
        let refused = plan_evacuation(&View { hosts: two(vec![guest("a", 1)]) }, "h1", &stays).unwrap_err();
        assert!(refused.to_string().contains("a (never_move)"));
    }

    #[test]
    fn a_plan_is_checked_again_before_each_step() {
        let mut view =
            View { hosts: vec![host("h1", 8, vec![guest("a", 3)]), host("h2", 8, vec![]), host("h3", 8, vec![])] };
        let moves = plan_evacuation(&view, "h1", &Options::default()).unwrap();
        assert_eq!(check_moves(&view, "h1", &moves), Ok(()));
        view.hosts[1].excluded = Some("quarantined".to_owned());
        assert!(matches!(check_moves(&view, "h1", &moves), Err(Refusal::TargetLost { .. })));
        view.hosts[1].excluded = None;
        view.hosts[1].memory_bytes_free = 2;
        assert!(matches!(check_moves(&view, "h1", &moves), Err(Refusal::DoesNotFit { .. })));
        view.hosts[1].memory_bytes_free = 8;
        view.hosts[2].excluded = Some("dead".to_owned());
        assert!(matches!(check_moves(&view, "h1", &moves), Err(Refusal::BreaksNPlusOne { .. })));
    }

    /// Exhaustive search, independent of the code under test: can all of `demands` be placed?
    fn placeable(demands: &[u64], room: &mut Vec<u64>, lost: usize, source: usize) -> bool {
        let Some((&first, rest)) = demands.split_first() else { return true };
        (0..room.len()).any(|target| {
            if target == lost || target == source || room[target] < first {
                return false;
            }
            room[target] -= first;
            let fits = placeable(rest, room, lost, source);
            room[target] += first;
            fits
        })
    }

    proptest! {
        #[test]
        fn moves_never_overcommit_and_always_keep_n_plus_one(
            shape in prop::collection::vec((4u64..16, prop::collection::vec(1u64..5, 0..4)), 2..6)
        ) {
            let hosts: Vec<Host> = shape.iter().enumerate().map(|(h, (capacity, guests))| {
                let guests = guests.iter().enumerate().map(|(g, &memory)| guest(&format!("g{h}-{g}"), memory)).collect();
                host(&format!("h{}", h + 1), *capacity, guests)
            }).collect();
            let view = View { hosts };
            let Ok(moves) = plan_evacuation(&view, "h1", &Options::default()) else { return Ok(()) };
            prop_assert_eq!(moves.len(), shape[0].1.len());
            prop_assert_eq!(&moves, &plan_evacuation(&view, "h1", &Options::default()).unwrap());
            let mut guests: Vec<Vec<u64>> = shape.iter().map(|(_, guests)| guests.clone()).collect();
            guests[0].clear();
            for planned in &moves {
                let target = view.hosts.iter().position(|host| host.name == planned.to).unwrap();
                prop_assert_ne!(target, 0);
                let moved = view.hosts[0].guests.iter().find(|guest| guest.uuid == planned.guest_uuid).unwrap();
                guests[target].push(moved.demand.memory_bytes);
                // A host that was over its capacity before may stay so, but nothing is ever added to it.
                prop_assert!(guests[target].iter().sum::<u64>() <= shape[target].0);
            }
            let room = |host: usize| shape[host].0.saturating_sub(guests[host].iter().sum());
            for (lost, demands) in guests.iter().enumerate().skip(1) {
                let mut room: Vec<u64> = (0..shape.len()).map(room).collect();
                prop_assert!(placeable(demands, &mut room, lost, 0), "loss of host {} does not fit", lost + 1);
            }
        }
    }
}
