//! libvirt by virsh: reads this host, its guests and who owns them; moves a running guest to another host.
//! Never touches a guest that is not Petrel's at that moment, never moves without a bandwidth cap, and after a failure says
//! where the guest runs. Whatever could not be read is a problem, never an empty list.

mod dirty_rate;
mod migrate;
mod tables;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use self::dirty_rate::DirtyRate;
use self::tables::{Job, Listed, Node, Statistics};
use super::{LibvirtConfig, Read, Reading};
use crate::collect::Family;
use crate::error_chain::chain;
use crate::libvirt::domain::{Domain, Storage, described, obstacles};
use crate::libvirt::owner::{Claims, Cluster, owner};
use crate::libvirt::{Answer, Virsh, VirshError, pacemaker, unreadable};
use crate::stream::protocol::{Guest, Hypervisor, Owner};

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
    dirty_rate: DirtyRate,
}

/// One guest with what it was judged by.
#[derive(Debug, Clone)]
struct Survey {
    node: Node,
    guests: Vec<Guest>,
    /// Whether a guest is in it whose description could not be used.
    is_spoilt: bool,
}

/// What a guest's description says, or why it cannot be used.
type Described = Result<Domain, String>;

impl Libvirt {
    /// A driver of this host's libvirt. `host` is the name by which the server knows the host.
    pub fn over(config: LibvirtConfig, host: String) -> Libvirt {
        let virsh = config.shell.virsh().clone();
        Libvirt { config, host, virsh, cpu_model: OnceLock::new(), dirty_rate: DirtyRate::default() }
    }

    /// The host and all its guests, as they are now.
    fn survey(&self) -> Result<Survey, VirshError> {
        let deadline = Instant::now() + READ_WITHIN;
        match self.survey_once(deadline) {
            // A guest that ends or leaves between two calls spoils the reading; the next one does not know it.
            Err(VirshError::Unreadable { .. } | VirshError::Failed { .. }) => self.survey_once(deadline),
            Ok(survey) if survey.is_spoilt => self.survey_once(deadline),
            other => other,
        }
    }

    fn survey_once(&self, deadline: Instant) -> Result<Survey, VirshError> {
        let parts = [
            "nodeinfo",
            "nodememstats",
            "list --all --uuid --name",
            "domstats --nowait --state --cpu-total --balloon --vcpu",
        ];
        let said = self.ask(&parts, deadline)?;
        let node = tables::node(&said[0], &said[1])?;
        let listed = tables::listed(&said[2]);
        let statistics = tables::statistics(&said[3])?;
        let descriptions = self.descriptions(&listed, deadline)?;
        let jobs = self.jobs(&listed, &descriptions, &statistics, deadline)?;
        let cluster = pacemaker::cluster();
        let storage = self.storage()?;
        let guests = listed.iter().zip(&descriptions).map(|(listed, description)| {
            let statistics = statistics.get(listed.name).ok_or_else(|| VirshError::Unreadable {
                what: "domstats",
                problem: format!("it does not name {}", listed.name),
            })?;
            let job = jobs.get(listed.uuid).cloned().unwrap_or_default();
            Ok(match description {
                Ok(domain) => self.guest(domain, statistics, job, (&cluster, &storage)),
                Err(problem) => undescribed(listed, statistics, job, problem),
            })
        });
        let guests = guests.collect::<Result<_, VirshError>>()?;
        Ok(Survey { node, guests, is_spoilt: descriptions.iter().any(Result::is_err) })
    }

    fn guest(
        &self,
        domain: &Domain,
        statistics: &Statistics,
        job: Job,
        (cluster, storage): (&Cluster, &Storage),
    ) -> Guest {
        let claims = Claims { own: &self.config.own, metadata_ignored: &self.config.metadata_ignored };
        let mut obstacles = obstacles(domain, storage);
        if statistics.state != "running" {
            obstacles.push(format!("it is {}", statistics.state));
        }
        obstacles.extend(job.obstacles);
        let owner = owner(domain, &claims, cluster);
        guest((&domain.uuid, &domain.name), statistics, owner, (obstacles, job.migrating))
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

    /// What virsh says of each guest, or why that cannot be used.
    fn descriptions(&self, guests: &[Listed<'_>], deadline: Instant) -> Result<Vec<Described>, VirshError> {
        let commands: Vec<String> = guests.iter().map(|guest| format!("dumpxml {}", guest.uuid)).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let answers = self.config.shell.ask(&commands, deadline)?;
        let read = |(answer, guest): (Answer, &Listed<'_>)| match answer.words.as_str() {
            "" => match described(&answer.out, guest.uuid) {
                Ok(domain) if domain.name == guest.name => Ok(domain),
                Ok(domain) => Err(format!("virsh list calls it {}, and dumpxml {}", guest.name, domain.name)),
                Err(error) => Err(format!("cannot read what virsh dumpxml says: {error}")),
            },
            words => Err(format!("virsh dumpxml said: {words}")),
        };
        Ok(answers.into_iter().zip(guests).map(read).collect())
    }

    /// Jobs of the guests that are active: migrations, backups, block jobs.
    fn jobs(
        &self,
        listed: &[Listed<'_>],
        descriptions: &[Described],
        statistics: &BTreeMap<String, Statistics>,
        deadline: Instant,
    ) -> Result<BTreeMap<String, Job>, VirshError> {
        let is_active = |guest: &Listed<'_>| statistics.get(guest.name).is_some_and(Statistics::is_active);
        let mut commands = Vec::new();
        let mut asked: Vec<(&str, Vec<&str>)> = Vec::new();
        for (guest, description) in listed.iter().zip(descriptions).filter(|(guest, _)| is_active(guest)) {
            commands.push(format!("domjobinfo {}", guest.uuid));
            let disks = description.as_ref().map(|domain| domain.disks.as_slice()).unwrap_or_default();
            let disks = disks.iter().filter(|disk| disk.source.is_some() || disk.kind == "network");
            // Targets are libvirt's own names (vda, sdb1); any other would be read as another word.
            let is_plain = |target: &&str| target.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let targets: Vec<&str> = disks.map(|disk| disk.target.as_str()).filter(is_plain).collect();
            commands.extend(targets.iter().map(|target| format!("blockjob {} {target} --raw", guest.uuid)));
            asked.push((guest.uuid, targets));
        }
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let answers = self.config.shell.ask(&commands, deadline)?;
        let mut rest = answers.as_slice();
        let mut jobs = BTreeMap::new();
        for (uuid, targets) in asked {
            let Some((own, others)) = rest.split_at_checked(1 + targets.len()) else { break };
            let disks: Vec<(&str, &Answer)> = targets.into_iter().zip(&own[1..]).collect();
            jobs.insert(uuid.to_owned(), tables::job(&own[0], &disks));
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
        let Survey { node, guests, .. } = self.survey()?;
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

/// A guest whose description cannot be used: its memory, its state and a migration of it count for the host, but whose it is and
/// what ties it is unknown, so that it is foreign and nobody moves it. The other guests are not worse known for it.
fn undescribed(listed: &Listed<'_>, statistics: &Statistics, job: Job, problem: &str) -> Guest {
    let reason = format!("whose it is cannot be known: {problem}");
    let mut obstacles = vec!["its description cannot be read".to_owned()];
    obstacles.extend(job.obstacles);
    guest((listed.uuid, listed.name), statistics, Owner::Foreign { reason }, (obstacles, job.migrating))
}

fn guest(
    (uuid, name): (&str, &str),
    statistics: &Statistics,
    owner: Owner,
    (obstacles, migrating): (Vec<String>, bool),
) -> Guest {
    Guest {
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        state: statistics.state.clone(),
        memory_bytes: statistics.memory_bytes,
        vcpus: statistics.vcpus,
        cpu_seconds_total: statistics.cpu_seconds,
        owner,
        obstacles,
        migrating,
    }
}

impl Read for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn read(&self) -> Reading {
        match self.hypervisor() {
            Ok(hypervisor) => {
                self.dirty_rate.measure((&self.config.shell, &self.virsh), &hypervisor.guests, Instant::now());
                Reading { hypervisors: vec![hypervisor], ..Reading::default() }
            }
            Err(error) => Reading { problems: vec![chain(&error)], ..Reading::default() },
        }
    }

    fn measure_dirty_rate(&self, lasting: Duration) {
        self.dirty_rate.ask(Instant::now() + lasting);
    }

    fn families(&self) -> Vec<Family> {
        self.dirty_rate.families()
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
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::libvirt::Shell;

    const UUIDS: [&str; 2] = ["dfd9ab2e-f43a-474d-ae05-34f5adb249ea", "0b1c2d3e-0000-4000-8000-00000000000a"];

    /// A driver over a program in place of virsh that knows the guests `a` and `b b`, and of the second says `description`.
    fn driver(folder: &Path, description: &str) -> Libvirt {
        let [a, b] = UUIDS;
        let script = format!(
            "while read -r line; do echo \"virsh > $line\"; case \"$line\" in\n\
            'echo --err '*) echo \"error: ${{line#echo --err }}\" >&2;;\n\
            nodeinfo) echo 'CPU(s): 2'; echo 'Memory size: 1000000 KiB';;\n\
            nodememstats) echo 'free: 500000 KiB'; echo 'buffers: 0 KiB'; echo 'cached: 0 KiB';;\n\
            list*) echo '{a} a'; echo '{b} b b';;\n\
            domstats*) for name in a 'b b'; do echo \"Domain: '$name'\"; echo '  state.state=1'; echo '  balloon.maximum=1024'; \
            echo '  vcpu.maximum=1'; echo; done;;\n\
            'dumpxml {a}') echo '<domain><name>a</name><uuid>{a}</uuid></domain>';;\n\
            'dumpxml {b}') echo >> {log}; {description};;\n\
            'domjobinfo {b}') echo 'Job type: Unbounded'; echo 'Operation: Outgoing migration';;\n\
            domjobinfo*) echo 'Job type: None';;\nesac; done",
            log = folder.join("log").display()
        );
        let program = folder.join("virsh");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        assert!(Command::new("sh").args(["-c", write, "sh", &script]).arg(&program).status().unwrap().success());
        let config = LibvirtConfig {
            shell: Arc::new(Shell::of(Virsh { program, uri: "qemu:///system".to_owned() }, 0xab)),
            own: vec!["*".to_owned()],
            migration_uri: String::new(),
            bandwidth_max_mib_s: 1,
            migration_tls: true,
            carries_petrel: false,
            shared_paths: Vec::<PathBuf>::new(),
            metadata_ignored: Vec::new(),
        };
        Libvirt::over(config, "h1".to_owned())
    }

    #[test]
    fn a_guest_without_a_description_of_its_own_is_foreign_and_the_others_are_read() {
        let (folder, own) = (tempfile::tempdir().unwrap(), UUIDS[0]);
        for (description, reason) in [
            (
                format!("echo '<domain><name>a</name><uuid>{own}</uuid></domain>'"),
                "another guest than the one asked for",
            ),
            ("echo 'error: internal error' >&2".to_owned(), "virsh dumpxml said: internal error"),
            (format!("echo '<domain><name>c</name><uuid>{}</uuid></domain>'", UUIDS[1]), "virsh list calls it b b"),
        ] {
            let survey = driver(folder.path(), &description).survey().unwrap();
            let [a, b] = &survey.guests[..] else { panic!("{:?}", survey.guests) };
            let is_foreign = matches!(&b.owner, Owner::Foreign { reason: told } if told.contains(reason));
            assert!(is_foreign && b.obstacles.contains(&"its description cannot be read".to_owned()), "{b:?}");
            assert!(b.migrating && b.state == "running" && b.memory_bytes == 1 << 20 && b.uuid == UUIDS[1], "{b:?}");
            assert!((a.name.as_str(), &a.obstacles, a.migrating) == ("a", &vec![], false), "{a:?}");
            assert!(!matches!(&a.owner, Owner::Foreign { reason } if reason.contains("cannot be known")), "{a:?}");
        }
        // Each time it was asked once more, as it might have left meanwhile.
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap().lines().count(), 6);
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
