//! The libvirt driver against real libvirt: three hosts of the lab, guests that run and move.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_agent::collect::text::render;
use petrel_agent::collect::{Collectors, RawCollectConfig};
use petrel_agent::drive::{Act, ActError, DriveConfig, Libvirt, LibvirtConfig, Opening, Read, Watch};
use petrel_agent::libvirt::{Shell, Virsh};
use petrel_agent::stream::protocol::{Guest, Hypervisor, Order, OrderOutcome, Owner};
use petrel_tests::lab::Lab;
use petrel_tests::process::wait_for;
use serde_json::json;

use crate::conformance::{Subject, carry_out, conforms, executor, order, refused};

/// The lab with a virsh for each host, which runs in that host.
struct Fleet {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn start() -> Option<Fleet> {
        let lab = Lab::libvirt(3, "drivers::libvirt")?;
        let folder = tempfile::tempdir().unwrap();
        for host in ["h1", "h2", "h3"] {
            let program = folder.path().join(host);
            let script = format!("#!/bin/sh\nexec {} exec {host} virsh \"$@\"\n", lab.script("hosts.sh").display());
            // A child writes it: what this process has open for writing, and every child forked meanwhile, cannot be run.
            let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
            let written = Command::new("sh").args(["-c", write, "sh", &script]).arg(&program).status().unwrap();
            assert!(written.success());
        }
        Some(Fleet { lab, folder })
    }

    fn config(&self, host: &str) -> LibvirtConfig {
        LibvirtConfig {
            shell: Fleet::shell(self.folder.path().join(host), "qemu:///system"),
            own: vec!["vm*".to_owned()],
            migration_uri: uri(host),
            bandwidth_max_mib_s: 200,
            migration_tls: false,
            carries_petrel: false,
            shared_paths: Vec::new(),
            metadata_ignored: Vec::new(),
        }
    }

    fn shell(program: PathBuf, uri: &str) -> Arc<Shell> {
        Arc::new(Shell::of(Virsh { program, uri: uri.to_owned() }, 7))
    }

    fn driver(&self, host: &str) -> Arc<Libvirt> {
        Arc::new(Libvirt::over(self.config(host), host.to_owned()))
    }

    fn see(&self, host: &str) -> Hypervisor {
        let mut reading = self.driver(host).read();
        assert!(reading.problems.is_empty(), "{reading:?}");
        reading.hypervisors.remove(0)
    }

    fn guest(&self, host: &str, name: &str) -> Guest {
        let seen = self.see(host);
        seen.guests
            .iter()
            .find(|guest| guest.name == name)
            .unwrap_or_else(|| panic!("{name} on {host}: {seen:?}"))
            .clone()
    }

    fn virsh(&self, host: &str, arguments: &[&str]) {
        self.lab.run("libvirt.sh", &[&["virsh", host], arguments].concat());
    }

    /// An order to move a guest from h1.
    fn migrate(&self, name: &str, destination: &str, (step, bandwidth): (u32, u64)) -> Order {
        order(
            "libvirt.migrate",
            step,
            &json!({
                "guest_uuid": self.guest("h1", name).uuid, "destination_host": destination,
                "destination_uri": uri(destination), "bandwidth_mib_s": bandwidth,
            }),
        )
    }

    fn state(&self) -> String {
        let guests = |host: &str| {
            let seen = self.see(host);
            seen.guests.iter().map(|guest| format!("{host}: {} {}", guest.name, guest.state)).collect::<Vec<_>>()
        };
        [guests("h1"), guests("h2")].concat().join("\n")
    }
}

fn uri(host: &str) -> String {
    format!("qemu+tcp://10.77.0.{}/system", &host[1..])
}

fn reason(outcome: &OrderOutcome) -> &str {
    match outcome {
        OrderOutcome::Failed { reason } | OrderOutcome::Unknown { reason } | OrderOutcome::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// One test, since there is one lab: its parts follow each other on the same hosts.
#[test]
fn libvirt_in_the_lab() {
    let Some(fleet) = Fleet::start() else { return };
    fleet.lab.run("libvirt.sh", &["define", "vm1", "h1"]);
    fleet.lab.run("libvirt.sh", &["define", "vm2", "h1", "load"]);
    hosts_and_guests_are_seen(&fleet);
    guests_have_figures(&fleet);
    a_dirty_rate_is_measured_only_when_asked_for(&fleet);
    a_migration_has_figures(&fleet);
    foreign_guests_and_obstacles_are_refused(&fleet);
    a_guest_moves(&fleet);
    a_migration_that_takes_too_long_is_broken_off(&fleet);
    an_undo_breaks_a_migration_off(&fleet);
    what_a_crash_interrupts_is_looked_up(&fleet);
    a_destination_that_dies_leaves_the_guest_at_the_source(&fleet);
}

fn hosts_and_guests_are_seen(fleet: &Fleet) {
    let h1 = fleet.see("h1");
    assert_eq!((h1.host.as_str(), h1.migration_uri.as_str()), ("h1", "qemu+tcp://10.77.0.1/system"));
    assert!(h1.cpus > 0 && h1.memory_bytes > 1 << 30 && h1.memory_bytes_available > 0, "{h1:?}");
    assert!(h1.memory_bytes_available < h1.memory_bytes && h1.cpu_model.starts_with("x86_64"), "{h1:?}");
    assert_eq!(h1.guests.len(), 2);
    let vm1 = fleet.guest("h1", "vm1");
    assert_eq!((vm1.state.as_str(), vm1.memory_bytes, vm1.vcpus), ("running", 128 << 20, 1));
    assert_eq!((vm1.owner, vm1.obstacles, vm1.migrating), (Owner::Petrel, Vec::<String>::new(), false));
    assert!(vm1.cpu_seconds_total > 0.0);
    assert!(fleet.see("h2").guests.is_empty());
    let mut config = fleet.config("h1");
    config.shell = Fleet::shell(fleet.folder.path().join("h1"), "qemu:///nonsense");
    let blind = Libvirt::over(config, "h1".to_owned()).read();
    assert!(blind.hypervisors.is_empty() && blind.problems.len() == 1, "{blind:?}");
}

/// What the collectors say of h1, through the virsh of `config`.
fn collected(config: &LibvirtConfig) -> String {
    let drive = DriveConfig { libvirt: Some(config.clone()), ..DriveConfig::default() };
    let config = RawCollectConfig::default().check().unwrap().beside(&drive);
    let mut collectors = Collectors::new(&config);
    let mut text = String::new();
    wait_for("guests to be collected", Duration::from_secs(30), || {
        text = render(&collectors.collect());
        text.contains("libvirt_up 1") && text.contains("collector_success{collector=\"libvirt_pools\"}")
    });
    text
}

fn guests_have_figures(fleet: &Fleet) {
    let config = fleet.config("h1");
    let text = collected(&config);
    let vm1 = fleet.guest("h1", "vm1").uuid;
    for series in [
        format!("libvirt_domain_info_vstate{{domain=\"vm1\",uuid=\"{vm1}\"}} 1"),
        format!("libvirt_domain_info_maximum_memory_bytes{{domain=\"vm1\",uuid=\"{vm1}\"}} 134217728"),
        format!("libvirt_domain_vcpu_state{{domain=\"vm1\",uuid=\"{vm1}\",vcpu=\"0\"}} 1"),
        format!("petrel_guest_info{{name=\"vm1\",owner=\"petrel\",uuid=\"{vm1}\"}} 1"),
        "libvirt_domains 2".to_owned(),
        "petrel_collector_success{collector=\"libvirt_pools\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == series), "{series} in\n{text}");
    }
    let used = format!("libvirt_domain_info_cpu_time_seconds_total{{domain=\"vm1\",uuid=\"{vm1}\"}} ");
    let used = text.lines().find_map(|line| line.strip_prefix(&used)).unwrap();
    assert!(used.parse::<f64>().unwrap() > 0.0);
    // One virsh answers all of it, and reads no more than it did.
    let more = collected(&config);
    assert!(!more.contains("petrel_migration_active{"), "{more}");
}

fn a_dirty_rate_is_measured_only_when_asked_for(fleet: &Fleet) {
    let driver = fleet.driver("h1");
    driver.read();
    assert_eq!(driver.families(), vec![], "nobody asked");
    driver.measure_dirty_rate(Duration::from_secs(60));
    wait_for("a guest under load to change its memory", Duration::from_secs(30), || {
        driver.read();
        let text = render(&driver.families());
        let mut rates = text.lines().filter_map(|line| {
            line.strip_prefix("petrel_guest_dirty_bytes_per_second{domain=\"vm2\"")?
                .rsplit_once(' ')?
                .1
                .parse::<f64>()
                .ok()
        });
        rates.any(|rate| rate > 0.0)
    });
}

fn a_migration_has_figures(fleet: &Fleet) {
    let config = fleet.config("h1");
    fleet.virsh("h1", &["migrate-setspeed", "vm2", "1"]);
    let mut away = Command::new(config.shell.virsh().program.clone())
        .args(["-q", "-c", "qemu:///system", "migrate", "--live", "--p2p", "vm2", &uri("h2")])
        .spawn()
        .unwrap();
    let series = "petrel_migration_active{direction=\"out\",domain=\"vm2\"";
    let mut text = String::new();
    wait_for("the migration to be told", Duration::from_secs(30), || {
        text = collected(&config);
        // While it is set up, nothing is known of the memory yet.
        text.contains(series) && text.contains("libvirt_domain_job_info_memory_remaining_bytes{domain=\"vm2\"")
    });
    assert!(text.contains("petrel_migration_iteration{domain=\"vm2\""), "{text}");
    fleet.virsh("h1", &["domjobabort", "vm2"]);
    away.wait().unwrap();
    fleet.virsh("h1", &["migrate-setspeed", "vm2", "8796093022207"]);
    assert!(!collected(&config).contains(series));
}

fn foreign_guests_and_obstacles_are_refused(fleet: &Fleet) {
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = fleet.driver("h1");
    let hands = executor("libvirt", &driver, "libvirt.migrate", folder.path());

    let nova = "http://openstack.org/xmlns/libvirt/nova/1.1";
    let mark = ["metadata", "vm1", "--live", "--uri", nova];
    fleet.virsh("h1", &[&mark[..], &["--key", "nova", "--set", "<instance/>"]].concat());
    refused(&hands, fleet.migrate("vm1", "h2", (1, 100)), "belongs to OpenStack Nova");
    fleet.virsh("h1", &[&mark[..], &["--remove"]].concat());

    let mut config = fleet.config("h1");
    config.own = vec!["web*".to_owned()];
    let other: Arc<dyn Act> = Arc::new(Libvirt::over(config, "h1".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let others = executor("libvirt", &other, "libvirt.migrate", folder.path());
    refused(&others, fleet.migrate("vm1", "h2", (2, 100)), "does not claim it");

    let mut config = fleet.config("h1");
    config.carries_petrel = true;
    let petrels: Arc<dyn Act> = Arc::new(Libvirt::over(config, "h1".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let carrier = executor("libvirt", &petrels, "libvirt.migrate", folder.path());
    refused(&carrier, fleet.migrate("vm1", "h2", (2, 100)), "carries Petrel itself");

    let disk = fleet.folder.path().join("disk.raw");
    std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let disk = disk.display().to_string();
    fleet.virsh("h1", &["attach-disk", "vm1", &disk, "vdb", "--targetbus", "virtio", "--live"]);
    refused(&hands, fleet.migrate("vm1", "h2", (3, 100)), "local disk vdb");
    fleet.virsh("h1", &["detach-disk", "vm1", "vdb", "--live"]);
    wait_for("the disk to be gone", Duration::from_secs(30), || fleet.guest("h1", "vm1").obstacles.is_empty());

    fleet.virsh("h1", &["suspend", "vm1"]);
    refused(&hands, fleet.migrate("vm1", "h2", (4, 100)), "it is paused");
    fleet.virsh("h1", &["resume", "vm1"]);
    refused(&hands, fleet.migrate("vm1", "h1", (5, 100)), "is this host itself");
    let mut away = fleet.migrate("vm1", "h2", (6, 100));
    away.with.insert("destination_uri".to_owned(), json!("qemu+tcp://127.0.0.1:1/system"));
    refused(&hands, away, "h2 cannot take it");
}

fn a_guest_moves(fleet: &Fleet) {
    let mut blind = fleet.config("h1");
    blind.shell = Fleet::shell(PathBuf::from("/bin/false"), "qemu:///system");
    conforms(&Subject {
        name: "libvirt",
        driver: fleet.driver("h1"),
        blind: Arc::new(Libvirt::over(blind, "h1".to_owned())),
        good: fleet.migrate("vm1", "h2", (0, 100)),
        wrong: vec![
            ("guest_uuid", json!("vm1"), "must be a UUID"),
            ("guest_uuid", json!("00000000-0000-4000-8000-0000000000ff"), "no such guest"),
            ("destination_uri", json!("--unsafe"), "must be a remote libvirt URI"),
            ("bandwidth_mib_s", json!(201), "must be at most 200"),
            ("bandwidth_mib_s", json!(0), "must be a whole number"),
        ],
        unmet: ("state", json!("paused")),
        state: &|| fleet.state(),
        undo_restores: false,
    });
    assert_eq!(fleet.guest("h2", "vm1").state, "running");
    assert!(fleet.see("h1").guests.iter().all(|guest| guest.name != "vm1"));
}

fn a_migration_that_takes_too_long_is_broken_off(fleet: &Fleet) {
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = fleet.driver("h1");
    let hands = executor("libvirt", &driver, "libvirt.migrate", folder.path());
    let mut slow = fleet.migrate("vm2", "h2", (0, 1));
    slow.timeout_ms = 2_000;
    let answer = carry_out(&hands, slow);
    assert_eq!(
        reason(&answer.outcome),
        "the migration took longer than the order allows and was broken off; the guest runs on at the source"
    );
    let vm2 = fleet.guest("h1", "vm2");
    assert_eq!((vm2.state.as_str(), vm2.migrating), ("running", false));
}

fn an_undo_breaks_a_migration_off(fleet: &Fleet) {
    let driver = fleet.driver("h1");
    let slow = fleet.migrate("vm2", "h2", (0, 1));
    let watch = Watch::lasting(Duration::from_secs(600));
    let checked = driver.check(&slow).unwrap();
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| driver.apply(&slow, &checked, &watch));
        wait_for("the migration to begin", Duration::from_secs(30), || fleet.guest("h1", "vm2").migrating);
        let second = driver.check(&fleet.migrate("vm2", "h3", (1, 1))).unwrap_err();
        assert!(second.to_string().contains("being migrated"), "{second}");
        watch.cancel.cancel();
        let error = moving.join().unwrap().unwrap_err();
        assert!(
            matches!(&error, ActError::Failed { reason } if reason.contains("by its undo; the guest runs on")),
            "{error}"
        );
    });
}

fn what_a_crash_interrupts_is_looked_up(fleet: &Fleet) {
    let folder = tempfile::tempdir().unwrap();
    let driver: Arc<dyn Act> = fleet.driver("h1");
    let hands = executor("libvirt", &driver, "libvirt.migrate", folder.path());
    let slow = fleet.migrate("vm2", "h2", (0, 1));
    let Opening::Begun(prepared) = hands.open(slow.clone(), Instant::now()) else { panic!("it begins") };

    // The agent leaves in the middle: the order has no end, and the migration goes on without it.
    let watch = Watch::lasting(Duration::from_secs(600));
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| hands.perform(&prepared, watch.clone()));
        wait_for("the migration to begin", Duration::from_secs(30), || fleet.guest("h1", "vm2").migrating);
        watch.leave.cancel();
        assert_eq!(moving.join().unwrap(), None);
    });
    assert!(fleet.guest("h1", "vm2").migrating, "libvirtd goes on");
    drop(hands);

    // The next process finds it at work; then an operator breaks it off, and how it ended cannot be told.
    let hands = executor("libvirt", &driver, "libvirt.migrate", folder.path());
    let begun = hands.unfinished().remove(0);
    std::thread::scope(|scope| {
        let resolving = scope.spawn(|| hands.resolve(&begun, Watch::lasting(Duration::from_secs(600))));
        fleet.virsh("h1", &["domjobabort", "vm2"]);
        let answer = resolving.join().unwrap().expect("nobody stops it");
        assert!(matches!(answer.outcome, OrderOutcome::Unknown { .. }), "{answer:?}");
        assert!(reason(&answer.outcome).contains("here: running; on h2: absent"), "{answer:?}");
    });
    assert_eq!(fleet.guest("h1", "vm2").state, "running");
    assert!(hands.unfinished().is_empty());
}

fn a_destination_that_dies_leaves_the_guest_at_the_source(fleet: &Fleet) {
    let driver = fleet.driver("h1");
    let slow = fleet.migrate("vm2", "h3", (0, 1));
    let checked = driver.check(&slow).unwrap();
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| driver.apply(&slow, &checked, &Watch::lasting(Duration::from_secs(120))));
        wait_for("the migration to begin", Duration::from_secs(30), || fleet.guest("h1", "vm2").migrating);
        fleet.lab.run("hosts.sh", &["kill", "h3"]);
        let error = moving.join().unwrap().unwrap_err();
        assert!(
            matches!(&error, ActError::Failed { reason } if reason.ends_with("the guest runs on at the source")),
            "{error}"
        );
    });
    let vm2 = fleet.guest("h1", "vm2");
    assert_eq!((vm2.state.as_str(), vm2.migrating, vm2.obstacles), ("running", false, Vec::<String>::new()));
}
