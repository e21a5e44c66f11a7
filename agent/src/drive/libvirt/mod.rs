//! libvirt by virsh: reads this host, its guests and who owns them; moves a running guest to another host.
//! Never touches a guest that is not Petrel's at that moment, never moves without a bandwidth cap, and after a failure says
//! where the guest runs. Whatever could not be read is a problem, never an empty list.

mod migrate;
mod tables;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use self::tables::{Job, Node, Statistics};
use super::{LibvirtConfig, Read, Reading};
use crate::error_chain::chain;
use crate::libvirt::domain::{Domain, Storage, described, obstacles};
use crate::libvirt::owner::{Claims, Cluster, owner};
use crate::libvirt::{Answer, Virsh, VirshError, pacemaker, unreadable};
use crate::stream::protocol::{Guest, Hypervisor};

/// Actions of this driver.
pub const ACTIONS: [&str; 1] = [MIGRATE];
/// Moves a running guest to another host.
pub const MIGRATE: &str = "libvirt.migrate";

/// A whole reading takes some hundredths of a second; a libvirt that needs longer than this is taken to hang.
const READ_WITHIN: Duration = Duration::from_secs(15);

/// The driver.
#[derive(Debug)]
pub struct Libvirt {
    config: LibvirtConfig,
    /// The agent's id, which is the host's name to the server.
    host: String,
    /// Runs what changes something, and asks other hosts; questions to this host go to the config's shell.
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
        let virsh = config.shell.virsh().clone();
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
        let parts =
            ["nodeinfo", "nodememstats", "list --all --uuid", "domstats --nowait --state --cpu-total --balloon --vcpu"];
        let said = self.ask(&parts, deadline)?;
        let node = tables::node(&said[0], &said[1])?;
        let uuids: Vec<&str> = said[2].split_whitespace().collect();
        let statistics = tables::statistics(&said[3])?;
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

    /// Asks commands that all have to succeed.
    fn ask(&self, commands: &[&str], deadline: Instant) -> Result<Vec<String>, VirshError> {
        let answers = self.config.shell.ask(commands, deadline)?;
        let well = |(answer, command): (Answer, &&str)| match answer.words.as_str() {
            "" => Ok(answer.out),
            _ => Err(VirshError::Failed { command: self.virsh.command(&[*command]), words: answer.words }),
        };
        answers.into_iter().zip(commands).map(well).collect()
    }

    fn domains(&self, uuids: &[&str], deadline: Instant) -> Result<Vec<Domain>, VirshError> {
        let commands: Vec<String> = uuids.iter().map(|uuid| format!("dumpxml {uuid}")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let texts = self.ask(&commands, deadline)?;
        let read = |(text, uuid): (String, &&str)| {
            described(&text, uuid).map_err(|error| unreadable("dumpxml", format!("guest {uuid}: {error}")))
        };
        texts.into_iter().zip(uuids).map(read).collect()
    }

    /// Jobs of the guests that are active: migrations, backups, block jobs.
    fn jobs(
        &self,
        domains: &[Domain],
        statistics: &BTreeMap<String, Statistics>,
        deadline: Instant,
    ) -> Result<BTreeMap<String, Job>, VirshError> {
        let active = domains.iter().filter(|domain| statistics.get(&domain.name).is_some_and(Statistics::is_active));
        let mut commands = Vec::new();
        let mut asked: Vec<(&Domain, Vec<&str>)> = Vec::new();
        for domain in active {
            commands.push(format!("domjobinfo {}", domain.uuid));
            let disks = domain.disks.iter().filter(|disk| disk.source.is_some() || disk.kind == "network");
            // Targets are libvirt's own names (vda, sdb1); any other would be read as another word.
            let is_plain = |target: &&str| target.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let targets: Vec<&str> = disks.map(|disk| disk.target.as_str()).filter(is_plain).collect();
            commands.extend(targets.iter().map(|target| format!("blockjob {} {target} --raw", domain.uuid)));
            asked.push((domain, targets));
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let answers = self.config.shell.ask(&commands, deadline)?;
        let mut rest = answers.as_slice();
        let mut jobs = BTreeMap::new();
        for (domain, targets) in asked {
            let Some((own, others)) = rest.split_at_checked(1 + targets.len()) else { break };
            let disks: Vec<(&str, &Answer)> = targets.into_iter().zip(&own[1..]).collect();
            jobs.insert(domain.uuid.clone(), tables::job(&own[0], &disks));
            rest = others;
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
        let text = self.ask(&["capabilities"], Instant::now() + READ_WITHIN)?;
        let model = tables::cpu_model(&text[0])?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
