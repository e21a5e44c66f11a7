//! libvirt by virsh: reads this host, its guests and who owns them; moves a running guest to another host.
//! Never touches a guest that is not Petrel's at that moment, never moves without a bandwidth cap, and after a failure says
//! where the guest runs. Whatever could not be read is a problem, never an empty list.

mod domain;
mod migrate;
mod owner;
mod pacemaker;
mod tables;
mod virsh;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use self::domain::{Domain, Storage, domains, obstacles};
use self::owner::{Claims, Cluster, owner};
use self::tables::{Job, Node, Statistics};
use self::virsh::{Virsh, VirshError};
use super::{LibvirtConfig, Read, Reading};
use crate::error_chain::chain;
use crate::stream::protocol::{Guest, Hypervisor};

/// Actions of this driver.
pub const ACTIONS: [&str; 1] = [MIGRATE];
/// Moves a running guest to another host.
pub const MIGRATE: &str = "libvirt.migrate";

/// A whole reading takes some tenths of a second; a libvirt that needs longer than this is taken to hang.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// Guests asked for in one call: far below the kernel's limit of 128 KiB for one argument.
const GUESTS_PER_CALL: usize = 200;
/// Begins each guest's part in the answer to several commands at once.
const MARK: &str = "@@petrel@@";

/// The driver.
#[derive(Debug)]
pub struct Libvirt {
    config: LibvirtConfig,
    /// The agent's id, which is the host's name to the server.
    host: String,
    virsh: Virsh,
    /// Architecture and model of the processor: they do not change while the host is up.
    cpu_model: OnceLock<String>,
}

/// One guest with what it was judged by.
#[derive(Debug, Clone)]
struct Survey {
    node: Node,
    guests: Vec<Guest>,
}

impl Libvirt {
    /// A driver of this host's libvirt. `host` is the name by which the server knows the host.
    pub fn over(config: LibvirtConfig, host: String) -> Libvirt {
        let virsh = Virsh { program: config.virsh.clone(), uri: config.uri.clone() };
        Libvirt { config, host, virsh, cpu_model: OnceLock::new() }
    }

    /// The host and all its guests, as they are now.
    fn survey(&self) -> Result<Survey, VirshError> {
        let deadline = Instant::now() + READ_WITHIN;
        match self.survey_once(deadline) {
            // A guest that ends or leaves between two calls spoils the reading; the next one does not know it.
            Err(VirshError::Unreadable { .. } | VirshError::Failed { .. }) => self.survey_once(deadline),
            other => other,
        }
    }

    fn survey_once(&self, deadline: Instant) -> Result<Survey, VirshError> {
        let parts = ["nodeinfo", "nodememstats", "list --all --uuid", "domstats --state --cpu-total --balloon --vcpu"];
        let said = self.virsh.ask(&[&marked(&parts.map(|part| (part, part)))], deadline)?;
        let said = sections(&said);
        let part = |name: &str| said.get(name).copied().unwrap_or_default();
        let node = tables::node(part(parts[0]), part(parts[1]))?;
        let uuids: Vec<&str> = part(parts[2]).split_whitespace().collect();
        let statistics = tables::statistics(part(parts[3]))?;
        let domains = self.domains(&uuids, deadline)?;
        let jobs = self.jobs(&domains, &statistics, deadline)?;
        let cluster = pacemaker::cluster();
        let storage = self.storage()?;
        let guests = domains.iter().map(|domain| {
            let statistics = statistics.get(&domain.name).ok_or_else(|| VirshError::Unreadable {
                what: "domstats",
                problem: format!("it does not name {}", domain.name),
            })?;
            Ok(self.guest(domain, statistics, jobs.get(&domain.uuid), (&cluster, &storage)))
        });
        Ok(Survey { node, guests: guests.collect::<Result<_, VirshError>>()? })
    }

    fn guest(
        &self,
        domain: &Domain,
        statistics: &Statistics,
        job: Option<&Job>,
        (cluster, storage): (&Cluster, &Storage),
    ) -> Guest {
        let claims = Claims { own: &self.config.own, metadata_ignored: &self.config.metadata_ignored };
        let mut obstacles = obstacles(domain, storage);
        let job = job.cloned().unwrap_or_default();
        if statistics.state != "running" {
            obstacles.push(format!("it is {}", statistics.state));
        }
        obstacles.extend(job.obstacles);
        Guest {
            uuid: domain.uuid.clone(),
            name: domain.name.clone(),
            state: statistics.state.clone(),
            memory_bytes: statistics.memory_bytes,
            vcpus: statistics.vcpus,
            cpu_seconds_total: statistics.cpu_seconds,
            owner: owner(domain, &claims, cluster),
            obstacles,
            migrating: job.migrating,
        }
    }

    fn domains(&self, uuids: &[&str], deadline: Instant) -> Result<Vec<Domain>, VirshError> {
        let mut all = Vec::with_capacity(uuids.len());
        for some in uuids.chunks(GUESTS_PER_CALL) {
            let commands: Vec<String> = some.iter().map(|uuid| format!("dumpxml {uuid}")).collect();
            let text = self.virsh.ask(&[&commands.join("; ")], deadline)?;
            all.extend(domains(&text).map_err(|error| unreadable("dumpxml", error.to_string()))?);
        }
        let missing = uuids.iter().find(|uuid| !all.iter().any(|domain| domain.uuid == **uuid));
        missing.map_or(Ok(all), |uuid| Err(unreadable("dumpxml", format!("guest {uuid} is missing"))))
    }

    /// Jobs of the guests that are active: migrations, backups, block jobs.
    fn jobs(
        &self,
        domains: &[Domain],
        statistics: &BTreeMap<String, Statistics>,
        deadline: Instant,
    ) -> Result<BTreeMap<String, Job>, VirshError> {
        let active: Vec<&Domain> =
            domains.iter().filter(|domain| statistics.get(&domain.name).is_some_and(Statistics::is_active)).collect();
        let mut jobs = BTreeMap::new();
        for some in active.chunks(GUESTS_PER_CALL) {
            let mut commands = Vec::new();
            for domain in some {
                commands.push((domain.uuid.clone(), format!("domjobinfo {}", domain.uuid)));
                for disk in domain.disks.iter().filter(|disk| disk.source.is_some() || disk.kind == "network") {
                    let target = &disk.target;
                    // Targets are libvirt's own names (vda, sdb1); any other would be read as another word.
                    if target.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                        let command = format!("blockjob {} {target} --raw", domain.uuid);
                        commands.push((format!("{} {target}", domain.uuid), command));
                    }
                }
            }
            let pairs: Vec<(&str, &str)> =
                commands.iter().map(|(key, command)| (key.as_str(), command.as_str())).collect();
            let said = self.virsh.say(&[&marked(&pairs)], deadline)?;
            let said_parts = sections(&said.out);
            for domain in some {
                jobs.insert(domain.uuid.clone(), tables::job(&domain.uuid, &said_parts, &said.words));
            }
        }
        Ok(jobs)
    }

    fn storage(&self) -> Result<Storage, VirshError> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| unreadable("dumpxml", format!("/proc/self/mountinfo: {error}")))?;
        Ok(Storage::of(&mounts, self.config.shared_paths.clone()))
    }

    fn cpu_model(&self) -> Result<&str, VirshError> {
        if let Some(model) = self.cpu_model.get() {
            return Ok(model);
        }
        let text = self.virsh.ask(&["capabilities"], Instant::now() + READ_WITHIN)?;
        let model = tables::cpu_model(&text)?;
        Ok(self.cpu_model.get_or_init(|| model))
    }

    fn hypervisor(&self) -> Result<Hypervisor, VirshError> {
        let Survey { node, guests } = self.survey()?;
        let cpu_model = self.cpu_model()?.to_owned();
        let promised = guests.iter().filter(|guest| guest.state != "shut off").map(|guest| guest.memory_bytes).sum();
        Ok(Hypervisor {
            host: self.host.clone(),
            migration_uri: self.config.migration_uri.clone(),
            memory_bytes: node.memory_bytes,
            // What running guests were promised may not be used yet, and what is used may not be guests'.
            memory_bytes_available: node.memory_bytes_available.min(node.memory_bytes.saturating_sub(promised)),
            cpus: node.cpus,
            cpu_model,
            carries_petrel: self.config.carries_petrel,
            guests,
        })
    }
}

impl Read for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn read(&self) -> Reading {
        match self.hypervisor() {
            Ok(hypervisor) => Reading { hypervisors: vec![hypervisor], ..Reading::default() },
            Err(error) => Reading { problems: vec![chain(&error)], ..Reading::default() },
        }
    }
}

/// Ways to another host's libvirt. `ext` is none of them: it runs a program that the URI names.
const TRANSPORTS: [&str; 5] = ["tcp", "tls", "ssh", "libssh", "libssh2"];

/// Whether other hosts can use this URI to reach a libvirt. It comes from another host by way of the server and is opened with this
/// host's rights, so it may name a machine and nothing else: parameters (`?command=…`) and names that ssh reads as options
/// (`-oProxyCommand=…`) would run programs here.
pub fn is_remote_uri(uri: &str) -> bool {
    let rest = uri.strip_prefix("qemu+").and_then(|rest| rest.split_once("://"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]@/".contains(&byte);
    rest.is_some_and(|(transport, place)| {
        let authority = place.split('/').next().unwrap_or_default();
        let is_word = |word: &str| !word.is_empty() && !word.starts_with('-');
        TRANSPORTS.contains(&transport) && place.bytes().all(plain) && authority.split('@').all(is_word)
    })
}

/// Several commands for one virsh, each preceded by a line with its key.
fn marked(commands: &[(&str, &str)]) -> String {
    let one = |(key, command): &(&str, &str)| format!("echo '{MARK}{key}{MARK}'; {command}");
    commands.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The answers to commands of [`marked`], by key.
fn sections(text: &str) -> BTreeMap<&str, &str> {
    let mut parts = text.split(MARK).skip(1);
    let mut sections = BTreeMap::new();
    while let (Some(key), Some(said)) = (parts.next(), parts.next()) {
        sections.insert(key, said);
    }
    sections
}

fn unreadable(what: &'static str, problem: String) -> VirshError {
    VirshError::Unreadable { what, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_answers_are_told_apart() {
        assert_eq!(
            marked(&[("a", "nodeinfo"), ("b c", "list")]),
            "echo '@@petrel@@a@@petrel@@'; nodeinfo; echo '@@petrel@@b c@@petrel@@'; list"
        );
        let said = sections("@@petrel@@a@@petrel@@CPU: 2\n@@petrel@@b c@@petrel@@@@petrel@@d@@petrel@@x\n");
        assert_eq!(said, BTreeMap::from([("a", "CPU: 2\n"), ("b c", ""), ("d", "x\n")]));
    }

    #[test]
    fn remote_uris() {
        for (uri, remote) in [
            ("qemu+tls://h2/system", true),
            ("qemu+tcp://10.77.0.2/system", true),
            ("qemu+ssh://root@h2/system", true),
            ("qemu:///system", false),
            ("qemu+unix:///system", false),
            ("--copy-storage-all", false),
            ("qemu+tcp://h 2/", false),
        ] {
            assert_eq!(is_remote_uri(uri), remote, "{uri}");
        }
        // Each of these would run a program on the host that opens it.
        for uri in [
            "qemu+ext://h2/system?command=/tmp/x",
            "qemu+ssh://h2/system?command=/tmp/x",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://-oX@h2/system",
            "qemu+ssh://root@-h2/system",
        ] {
            assert!(!is_remote_uri(uri), "{uri}");
        }
        assert!(is_remote_uri("qemu+ssh://root@h2.example:22/system") && is_remote_uri("qemu+tls://[fd00::2]/system"));
    }
}
