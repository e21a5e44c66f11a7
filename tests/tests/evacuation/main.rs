//! Evacuation on real libvirt: a host whose disk is predicted to run out is emptied while its guests run. First in shadow mode,
//! where nothing moves; then in earnest, with the server killed in the middle; then with a target that loses its power in the
//! middle of a migration. Whatever Petrel says is checked against libvirt and against the guests' own consoles.

mod fleet;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use fleet::{Fleet, HOSTS, at_the_seat, wait_for_a_tick, write};
use petrel_tests::lab::Lab;
use petrel_tests::process::wait_for;
use petrel_tests::tree::repository;
use serde_json::Value;

/// From the first byte that fills the disk to a run: half a minute of samples, an outlook, a rule, a plan.
const PREDICTED_WITHIN: Duration = Duration::from_secs(90);
/// Two guests, each seen to have moved by the inventories of both ends, which come every ten seconds.
const MOVED_WITHIN: Duration = Duration::from_secs(90);
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/1.1";

#[test]
fn a_host_is_emptied_before_its_disk_is_full() {
    let Some(mut fleet) = Fleet::start(server_config, |lab| mark_as_nova(lab, "--set")) else { return };
    only_who_has_a_token_is_answered(&fleet);
    a_foreign_guest_forbids_the_evacuation(&fleet);
    let filler = fleet.fill_disk("h1");
    shadow_moves_nothing_and_says_what_would_have(&fleet);
    guests_move_and_a_killed_server_goes_on(&mut fleet);
    drop(filler);
    a_target_that_dies_leaves_the_guest_at_the_source(&fleet);
}

fn only_who_has_a_token_is_answered(fleet: &Fleet) {
    let nobody = fleet.petrel_with(&["runs"], &["--ca-file", "ca.pem"]);
    assert!(nobody.status.code() == Some(2) && text(&nobody).contains("bearer token"), "{nobody:?}");
    let agent = fleet.petrel_with(&["runs"], &["--ca-file", "ca.pem", "--token-file", "h1-token"]);
    assert!(!agent.status.success(), "an agent's token opens nothing but its own paths: {agent:?}");
    let unknown_authority = fleet.petrel_with(&["runs"], &["--token-file", "user-token"]);
    assert_eq!(unknown_authority.status.code(), Some(3), "{unknown_authority:?}");
    let bare = ["serve", "--listen", "10.77.0.254:0", "--data", "bare"];
    let open = at_the_seat("petrel").current_dir(fleet.file("")).args(bare).output().expect("petrel can be run");
    assert!(!open.status.success() && text(&open).contains("so tls and auth must be set"), "{open:?}");
    wait_for("all hosts to be believed healthy by their heartbeats", Duration::from_secs(30), || {
        let hosts = fleet.ask(&["hosts"]).unwrap_or_default();
        let healthy = |name: &&str| {
            hosts
                .as_array()
                .is_some_and(|rows| rows.iter().any(|row| row["name"] == *name && row["verdict"] == "healthy"))
        };
        HOSTS.iter().all(healthy)
    });
}

fn a_foreign_guest_forbids_the_evacuation(fleet: &Fleet) {
    let plan = fleet.wait_for_plan("h1's guests to be seen", |plan| {
        plan["refused"].as_str().is_some_and(|reason| reason.contains("foreign"))
    });
    let refused = fleet.petrel(&["plan", "evacuate", "h1"]);
    let said = text(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("vm1") && said.contains("Nova"), "{said} {plan:#}");
    assert!(!said.contains("vm2"), "{said}");
    mark_as_nova(fleet.lab(), "--remove");
    fleet
        .wait_for_plan("a plan for both guests", |plan| plan["moves"].as_array().is_some_and(|moves| moves.len() == 2));
}

fn shadow_moves_nothing_and_says_what_would_have(fleet: &Fleet) {
    let run = fleet.wait_for_run(("h1", "shadow"), &["shadowed"], PREDICTED_WITHIN);
    assert_eq!(run["alertname"], "FilesystemFullSoon");
    let would_have = fleet.journal(&run, "would_have");
    for guest in ["vm1", "vm2"] {
        let said = would_have.iter().filter_map(|line| line["detail"].as_str());
        let mut said = said.filter(|said| said.contains(&format!("libvirt.migrate {guest} ")));
        assert!(said.any(|said| said.contains("destination_host=h")), "{guest} in {would_have:#?}");
    }
    let shown = text(&fleet.petrel(&["runs", "show", &run["id"].to_string()]));
    assert!(
        shown.contains("nothing was done") && shown.matches("would have done libvirt.migrate").count() == 2,
        "{shown}"
    );
    for what in ["ordered", "handed_out", "duty"] {
        assert!(fleet.journal(&run, what).is_empty(), "{what} in shadow mode");
    }
    for guest in ["vm1", "vm2"] {
        assert_eq!((fleet.places(guest), fleet.migrations_begun("h1", guest)), (vec!["h1"], 0));
    }
    assert_eq!(fleet.duty("h1").as_deref(), Some("active"));
}

fn guests_move_and_a_killed_server_goes_on(fleet: &mut Fleet) {
    // An operator has read the report and raises the mode, while the same alert fires.
    write(&fleet.file("evacuate.yaml"), &runbook(&fleet.disk(), "auto", 40));
    let run = fleet.wait_for_run(("h1", "auto"), &["running"], Duration::from_secs(30));
    wait_for("the first order to be with its agent", Duration::from_secs(20), || {
        !fleet.journal(&run, "handed_out").is_empty()
    });
    assert!(fleet.disk_bytes_avail("h1") > 0.0, "the guests are on their way before the disk is full");
    fleet.kill_and_restart_server();
    let done = fleet.wait_for_run(("h1", "auto"), &["done", "stopped"], MOVED_WITHIN);
    let stayed_as_it_was = (&done["id"], done["state"].as_str());
    assert_eq!(stayed_as_it_was, (&run["id"], Some("done")), "{:#?}", fleet.journal(&done, "failed"));
    for what in ["ordered", "handed_out", "verified"] {
        let steps: Vec<String> = fleet.journal(&done, what).iter().map(|line| line["step"].to_string()).collect();
        assert_eq!(steps, ["0", "1"], "{what}");
    }
    for guest in ["vm1", "vm2"] {
        let places = fleet.places(guest);
        assert!(places.len() == 1 && places[0] != "h1", "{guest} runs on {places:?}");
        let begun: usize = HOSTS.iter().map(|host| fleet.migrations_begun(host, guest)).sum();
        assert_eq!(begun, 1, "{guest} is moved once");
        wait_for_a_tick(guest);
    }
    assert_eq!(fleet.duty("h1").as_deref(), Some("quarantined"));
}

fn a_target_that_dies_leaves_the_guest_at_the_source(fleet: &Fleet) {
    // h1 is mended and takes guests again; now h2 fills, with a guest that writes faster than a narrow cap sends.
    let mended = fleet.petrel(&["hosts", "duty", "h1", "active"]);
    assert!(mended.status.success(), "{mended:?}");
    fleet.lab().run("hosts.sh", &["exec", "h1", "umount", &fleet.disk()]);
    write(&fleet.file("evacuate.yaml"), &runbook(&fleet.disk(), "auto", 1));
    fleet.lab().run("libvirt.sh", &["define", "vm3", "h2", "load"]);
    let _filler = fleet.fill_disk("h2");
    let run = fleet.wait_for_run(("h2", "auto"), &["running"], PREDICTED_WITHIN);
    let target = text_of(&run["steps"][0]["detail"], "destination_host=");
    wait_for("the migration to send memory", Duration::from_secs(60), || {
        let job = fleet.lab().output("libvirt.sh", &["virsh", "h2", "domjobinfo", "vm3"]);
        text(&job).contains("Data processed")
    });
    fleet.lab().run("hosts.sh", &["kill", &target]);
    let stopped = fleet.wait_for_run(("h2", "auto"), &["done", "stopped"], MOVED_WITHIN);
    assert_eq!((&stopped["id"], stopped["state"].as_str()), (&run["id"], Some("stopped")));
    let reason = stopped["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("step 0") && reason.contains("the guest runs on at the source"), "{reason}");
    assert_eq!(fleet.journal(&stopped, "ordered").len(), 1, "what is left of the run is not begun");
    assert_eq!(fleet.places("vm3"), ["h2"]);
    wait_for_a_tick("vm3");
    // Guests that were on the host without power are lost with it; all others run on where they were.
    for guest in ["vm1", "vm2"] {
        let places = fleet.places(guest);
        assert!(places.len() <= 1, "{guest} runs on {places:?}");
        if !places.is_empty() {
            wait_for_a_tick(guest);
        }
    }
    assert_eq!(fleet.duty("h2").as_deref(), Some("quarantined"));
}

/// The server's part: the shipped predictions and the shipped runbook, in faster time.
fn server_config(at: &Path) -> String {
    let rules = read("dashboards/rules/predictions.yaml").replace("interval: 30s", "interval: 1s");
    write(&at.join("predictions.yaml"), &replaced(&rules, "1h|6h", "2m"));
    write(&at.join("evacuate.yaml"), &runbook(&at.join("disk").display().to_string(), "shadow", 40));
    write(&at.join("fleet.yaml"), FACTS);
    format!(
        "rules: {{ shipped: false, files: [{0}/predictions.yaml] }}\n\
         predict: {{ interval: 1s, horizons: [2m], ledger_interval_min: 5s }}\n\
         remedy:\n  runbooks: [{0}/evacuate.yaml]\n  fleet: {0}/fleet.yaml\n  settle: 12s\n  evacuations_per_day: 2\n  \
         memory_reserve: 128MiB\n",
        at.display()
    )
}

const FACTS: &str = "
clusters: [{name: lab, hosts: [h1, h2, h3]}]
domains: [{name: rack1, hosts: [h1]}, {name: rack2, hosts: [h2]}, {name: rack3, hosts: [h3]}]
priorities: {vm3: 10}
";

/// The shipped runbook for this one file system, in this mode and with this cap.
fn runbook(disk: &str, mode: &str, bandwidth_mib_s: u32) -> String {
    let alert = r#"'alertname="FilesystemFullSoon"'"#;
    let mut book = read("dashboards/runbooks/evacuate-full-host.yaml");
    for (from, to) in [
        (alert, format!(r#"{alert}, 'mountpoint="{disk}"'"#)),
        ("mode: shadow", format!("mode: {mode}")),
        ("min_history: 6h", "min_history: 5s".to_owned()),
        ("bandwidth_mib_s: 40", format!("bandwidth_mib_s: {bandwidth_mib_s}")),
    ] {
        book = replaced(&book, from, &to);
    }
    book
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is no longer in:\n{text}");
    text.replace(from, to)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect("the repository has it")
}

fn mark_as_nova(lab: &Lab, how: &str) {
    let mark = ["virsh", "h1", "metadata", "vm1", "--live", "--uri", NOVA];
    let more: &[&str] = if how == "--set" { &["--key", "nova", "--set", "<instance/>"] } else { &[how] };
    lab.run("libvirt.sh", &[&mark[..], more].concat());
}

/// The word that follows `key` in a step's detail.
fn text_of(detail: &Value, key: &str) -> String {
    let detail = detail.as_str().unwrap_or_default();
    let (_, after) = detail.split_once(key).unwrap_or_else(|| panic!("`{key}` is not in `{detail}`"));
    after.split(' ').next().unwrap_or_default().to_owned()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
