//! Guests by libvirt: their figures, whose they are, and jobs that run on them, all asked of one virsh (`crate::libvirt::shell`).
//! Reads only what libvirt can say at once (`--nowait`), and of guests that do not run nothing that touches their storage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{CollectError, Collector, Family, Kind, Pace};
use super::figures::{Figures, GUESTS_MAX};
use super::{LibvirtSource, jobs};
use crate::error_chain::chain;
use crate::libvirt::domain::described;
use crate::libvirt::domstats::{Record, records};
use crate::libvirt::owner::{Claims, Cluster, owner_word};
use crate::libvirt::{Answer, ShellError, pacemaker};

/// Time from one reading to the next; rounds may be more frequent.
const EVERY: Duration = Duration::from_secs(10);
/// What one reading may take, all questions together.
const WITHIN: Duration = Duration::from_secs(8);
/// What a question may take. libvirt answers within milliseconds, but for a guest whose monitor hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How often owners are looked at again; those of a guest not seen before at once.
const OWNERS_EVERY: Duration = Duration::from_secs(300);

/// Guests without a known job that are asked for one in a reading, in turns. A question takes 0.26 ms of processor time, so
/// asking all of them each time would cost more than everything else; with 50 guests a migration is seen within 40 s.
const JOBS_ASKED: usize = 16;

/// What is asked in each reading.
const QUESTIONS: [&str; 3] = [
    "list --all --uuid --name",
    "domstats --nowait --list-active --state --cpu-total --balloon --vcpu --interface --block --perf",
    "domstats --nowait --list-inactive --state --balloon --vcpu",
];

/// The collector.
pub(super) struct Libvirt {
    source: Arc<LibvirtSource>,
    /// The owner's word of each guest, by UUID.
    owners: BTreeMap<String, &'static str>,
    owners_at: Option<Instant>,
    /// Guests that had a job at the last reading, by UUID: they are asked each time.
    busy: BTreeSet<String>,
    /// Where the turns of the others stand.
    turn: usize,
}

impl Libvirt {
    pub(super) fn new(source: Arc<LibvirtSource>) -> Libvirt {
        Libvirt { source, owners: BTreeMap::new(), owners_at: None, busy: BTreeSet::new(), turn: 0 }
    }

    /// Looks up owners of the guests, when it is time or one is new.
    fn know_owners(&mut self, uuids: &[&str]) -> Result<(), CollectError> {
        let due = self.owners_at.is_none_or(|at| at.elapsed() >= OWNERS_EVERY);
        let is_wanted = |uuid: &&&str| due || !self.owners.contains_key(**uuid);
        let new: Vec<&str> = uuids.iter().filter(is_wanted).copied().collect();
        if due {
            self.owners_at = Some(Instant::now());
            self.owners.retain(|known, _| uuids.contains(&known.as_str()));
        }
        if new.is_empty() {
            return Ok(());
        }
        // One that is not understood is not asked for in every reading.
        self.owners.extend(new.iter().map(|uuid| ((*uuid).to_owned(), "unknown")));
        let wanted: Vec<String> = new.iter().map(|uuid| format!("dumpxml {uuid}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let answers = self.source.ask(&wanted, ANSWER_WITHIN)?;
        let cluster = if self.source.is_here { pacemaker::cluster() } else { Cluster::Absent };
        let LibvirtSource { own, metadata_ignored, .. } = self.source.as_ref();
        let claims = Claims { own, metadata_ignored };
        let mut misread = None;
        for (answer, uuid) in answers.iter().zip(&new) {
            match described(&answer.out, uuid) {
                Ok(domain) => {
                    self.owners.insert(domain.uuid.clone(), owner_word(&domain, &claims, &cluster));
                }
                // A guest that left meanwhile has no description.
                Err(_) if !answer.words.is_empty() => {}
                // Whose it is stays unknown: nobody may take it for ours.
                Err(error) => {
                    self.owners.insert((*uuid).to_owned(), "unknown");
                    misread =
                        Some(CollectError::Asked(format!("cannot read what virsh says of guest {uuid}: {error}")));
                }
            }
        }
        misread.map_or(Ok(()), Err)
    }

    fn read(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let answers = self.source.ask(&QUESTIONS, ANSWER_WITHIN)?;
        if let Some(refused) = answers.iter().find(|answer| !answer.words.is_empty()) {
            return Err(CollectError::Asked(format!("virsh said: {}", refused.words)));
        }
        let [list, active, inactive] = answers.as_slice() else {
            return Err(CollectError::Asked("virsh did not answer every question".to_owned()));
        };
        let uuids = uuids(list);
        let asked = |problem| CollectError::Asked(format!("cannot read what virsh domstats says: {problem}"));
        let (active, inactive) = (records(&active.out).map_err(asked)?, records(&inactive.out).map_err(asked)?);
        let domains = Family::new(Kind::Gauge, "libvirt_domains", "Number of domains, running or not.");
        families.push(domains.with(uuids.len() as f64));
        families.extend(Figures::of(active.iter().chain(&inactive), &uuids));
        let told: Vec<&str> = uuids.values().copied().take(GUESTS_MAX).collect();
        let known = self.know_owners(&told);
        let mut info = Family::new(Kind::Gauge, "petrel_guest_info", "A guest of this host and who owns it.");
        for (name, uuid) in uuids.iter().take(GUESTS_MAX) {
            let owner = self.owners.get(*uuid).copied().unwrap_or("unknown");
            info.push(&[("name", name), ("owner", owner), ("uuid", uuid)], 1.0);
        }
        families.push(info);
        known?;
        self.read_jobs(&active, &uuids, families)
    }

    fn read_jobs(
        &mut self,
        active: &[Record<'_>],
        uuids: &BTreeMap<&str, &str>,
        families: &mut Vec<Family>,
    ) -> Result<(), CollectError> {
        let guests = active.iter().filter_map(|record| Some((record.name, *uuids.get(record.name)?)));
        let guests: Vec<(&str, &str)> = guests.take(GUESTS_MAX).collect();
        let guests = in_turn(&guests, &self.busy, &mut self.turn);
        let commands: Vec<String> = guests.iter().map(|(_, uuid)| format!("domjobinfo {uuid}")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let answers = self.source.ask(&commands, ANSWER_WITHIN)?;
        let found = guests.iter().zip(&answers).filter(|(_, answer)| jobs::is_busy(answer));
        self.busy = found.map(|((_, uuid), _)| (*uuid).to_owned()).collect();
        families.extend(jobs::families(guests.into_iter().zip(&answers)));
        Ok(())
    }
}

impl Collector for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if let Some(socket) = self.source.missing() {
            return Err(CollectError::Absent { path: socket.to_owned() });
        }
        let outcome = self.read(families);
        if !matches!(outcome, Err(CollectError::Absent { .. })) {
            let up = Family::new(Kind::Gauge, "libvirt_up", "Whether scraping libvirt's metrics was successful.");
            families.push(up.with(f64::from(u8::from(outcome.is_ok()))));
        }
        outcome
    }
}

impl LibvirtSource {
    /// Asks the shell. A host without virsh does not have the source, whatever sockets there are.
    pub(super) fn ask(&self, commands: &[&str], within: Duration) -> Result<Vec<Answer>, CollectError> {
        self.shell.ask(commands, Instant::now() + within).map_err(|error| match &error {
            ShellError::Start(start) if start.is_absent() => {
                CollectError::Absent { path: PathBuf::from(&self.shell.virsh().program) }
            }
            _ => CollectError::Asked(chain(&error)),
        })
    }
}

/// The guests to be asked for jobs: those that had one, and some of the others, from where the last turn ended.
fn in_turn<'a>(guests: &[(&'a str, &'a str)], busy: &BTreeSet<String>, turn: &mut usize) -> Vec<(&'a str, &'a str)> {
    let is_busy = |guest: &&(&str, &str)| busy.contains(guest.1);
    let mut chosen: Vec<(&str, &str)> = guests.iter().filter(is_busy).copied().collect();
    let others: Vec<(&str, &str)> = guests.iter().filter(|guest| !is_busy(guest)).copied().collect();
    let count = others.len().min(JOBS_ASKED);
    if *turn >= others.len() {
        *turn = 0;
    }
    chosen.extend(others.iter().cycle().skip(*turn).take(count));
    *turn += count;
    chosen
}

/// UUIDs by name, from `list --uuid --name`.
fn uuids(list: &Answer) -> BTreeMap<&str, &str> {
    list.out.lines().filter_map(|line| line.trim().split_once(' ')).map(|(uuid, name)| (name.trim(), uuid)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_may_hold_spaces() {
        let out =
            "a7050ba4-4774-4ddd-b1f8-5d221a2c7c29 vm1\n8cef8144-7567-4b38-94f2-8e338a467cd5 my guest\n\n".to_owned();
        let list = Answer { out, words: String::new() };
        assert_eq!(
            uuids(&list),
            BTreeMap::from([
                ("vm1", "a7050ba4-4774-4ddd-b1f8-5d221a2c7c29"),
                ("my guest", "8cef8144-7567-4b38-94f2-8e338a467cd5"),
            ])
        );
    }

    #[test]
    fn every_guest_has_its_turn_and_busy_ones_always() {
        let uuids: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
        let guests: Vec<(&str, &str)> = uuids.iter().map(|uuid| ("vm", uuid.as_str())).collect();
        let busy = BTreeSet::from(["u7".to_owned()]);
        let (mut turn, mut asked) = (0, BTreeSet::new());
        for _ in 0..3 {
            let chosen = in_turn(&guests, &busy, &mut turn);
            assert_eq!((chosen.len(), chosen[0].1), (1 + JOBS_ASKED, "u7"));
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            asked.extend(chosen.into_iter().map(|(_, uuid)| uuid));
        }
        assert_eq!(asked.len(), 40);
        assert_eq!(in_turn(&guests[..3], &busy, &mut turn).len(), 3);
        assert!(in_turn(&[], &busy, &mut turn).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(out in "(.|\n){0,80}") {
            uuids(&Answer { out, words: String::new() });
        }
    }
}
