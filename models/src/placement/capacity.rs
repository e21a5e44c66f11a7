//! What a host can carry and what a guest needs; and the proof that every single loss still fits. Never guesses: a host
//! whose state is not known well is not eligible, and its guests still count as demand.

use std::collections::BTreeMap;

/// What a guest is expected to need, at the quantile the caller plans for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Processor demand in cores.
    pub cores: f64,
}

/// One guest that exists somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// Identity across hosts.
    pub uuid: String,
    /// Name, for people.
    pub name: String,
    /// Expected demand.
    pub demand: Shape,
    /// Whether it runs now; a guest that does not needs no place and is not moved.
    pub running: bool,
    /// Why Petrel must not touch it, `None` where it is Petrel's own.
    pub foreign: Option<String>,
    /// Why it cannot be moved live; empty where it can.
    pub obstacles: Vec<String>,
}

/// One host of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What guests may use in total; the caller has subtracted the host's own reserve.
    pub capacity: Shape,
    /// Memory that is free for one more guest right now, bytes; the reserve is subtracted. What the host uses beside its
    /// guests is seen only here.
    pub memory_bytes_free: u64,
    /// Why it cannot take guests (stale, held, in maintenance, unreachable for migration), `None` where it can.
    pub excluded: Option<String>,
    /// Whether it carries Petrel itself; such a host is never evacuated.
    pub carries_petrel: bool,
    /// Failure domain, empty where unknown.
    pub domain: String,
    /// All guests defined there.
    pub guests: Vec<Guest>,
}

/// All hosts between which guests may move.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Sorted or not; names are unique.
    pub hosts: Vec<Host>,
}

impl Shape {
    /// Whether `self` fits where `room` is left. A core's thousandth is forgiven, for sums of fractions.
    pub fn fits(self, room: Shape) -> bool {
        self.memory_bytes <= room.memory_bytes && self.cores <= room.cores + 1e-3
    }

    /// The sum. Memory saturates.
    pub fn plus(self, other: Shape) -> Shape {
        Shape { memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes), cores: self.cores + other.cores }
    }

    /// What is left, zero where nothing is.
    pub fn minus(self, other: Shape) -> Shape {
        Shape {
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            cores: (self.cores - other.cores).max(0.0),
        }
    }
}

impl Host {
    /// The demand of the guests that run there.
    pub fn load(&self) -> Shape {
        self.guests.iter().filter(|guest| guest.running).fold(Shape::default(), |sum, guest| sum.plus(guest.demand))
    }

    /// What one more guest may need: capacity without the load, and never more memory than is free now.
    pub fn room(&self) -> Shape {
        let left = self.capacity.minus(self.load());
        Shape { memory_bytes: left.memory_bytes.min(self.memory_bytes_free), ..left }
    }
}

impl View {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// A guest that runs on two hosts at once, or is listed twice: nothing may be planned before that is cleared up.
    pub fn seen_twice(&self) -> Option<(&Guest, Vec<&str>)> {
        let mut seen: BTreeMap<&str, (&Guest, Vec<&str>)> = BTreeMap::new();
        for host in &self.hosts {
            for guest in host.guests.iter().filter(|guest| guest.running) {
                seen.entry(&guest.uuid).or_insert_with(|| (guest, Vec::new())).1.push(&host.name);
            }
        }
        seen.into_values().find(|(_, hosts)| hosts.len() > 1)
    }
}

/// Which host's loss would leave a guest without a place, `None` where every single loss fits.
///
/// `load` holds the demands of the guests that run on each host, by host index; `room` what each may still take, and only
/// hosts with `takes` receive. A loss fits when first-fit decreasing places all guests of the lost host on the others: that is
/// a constructive proof, so a yes is certain, while a no may be overcautious. O(hosts² · guests per host).
pub fn loss_that_does_not_fit(load: &[Vec<Shape>], room: &[Shape], takes: &[bool]) -> Option<usize> {
    (0..load.len()).find(|&lost| !loss_fits(lost, load, room, takes))
}

fn loss_fits(lost: usize, load: &[Vec<Shape>], room: &[Shape], takes: &[bool]) -> bool {
    let mut room = room.to_vec();
    let mut demands = load[lost].clone();
    demands.sort_by(|a, b| b.memory_bytes.cmp(&a.memory_bytes).then(b.cores.total_cmp(&a.cores)));
    demands.into_iter().all(|demand| {
        let target = (0..room.len()).find(|&host| host != lost && takes[host] && demand.fits(room[host]));
        if let Some(host) = target {
            room[host] = room[host].minus(demand);
        }
        target.is_some()
    })
}
