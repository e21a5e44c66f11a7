//! What Pacemaker manages on this host: the guests of its VirtualDomain resources, from the cluster's own configuration.
//! Where a cluster is found and cannot be read, that is said, and then every guest counts as foreign.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::owner::Cluster;
use crate::command::Tool;
use crate::xml::{Element, read};

/// Processes of a running cluster, as `/proc/PID/comm` cuts them.
const PROCESSES: [&str; 3] = ["pacemakerd", "corosync", "pacemaker-remot"];
/// The cluster's configuration on disk, for the time when it does not run.
const CIB: &str = "/var/lib/pacemaker/cib/cib.xml";
/// `cibadmin` waits for a cluster without quorum; then it is unreadable.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Looks for a cluster on this host.
pub fn cluster() -> Cluster {
    let text = match is_running() {
        Err(error) => return Cluster::Unreadable(format!("/proc cannot be read: {error}")),
        Ok(true) => {
            let deadline = Instant::now() + ANSWER_WITHIN;
            match Tool::new("cibadmin").run(&["--query", "--scope", "resources"], deadline) {
                Ok(said) if said.well() => said.out,
                Ok(said) => return Cluster::Unreadable(format!("cibadmin said: {}", said.words)),
                Err(error) => return Cluster::Unreadable(crate::error_chain::chain(&error)),
            }
        }
        Ok(false) => match std::fs::read_to_string(CIB) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Cluster::Absent,
            Err(error) => return Cluster::Unreadable(format!("{CIB} cannot be read: {error}")),
        },
    };
    guests(&text, &|path| std::fs::read_to_string(path).map_err(|error| error.to_string()))
}

fn is_running() -> std::io::Result<bool> {
    for entry in std::fs::read_dir("/proc")? {
        // A process may end while we look.
        let Ok(name) = std::fs::read_to_string(entry?.path().join("comm")) else { continue };
        if PROCESSES.contains(&name.trim()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The guests in a cluster's configuration. A resource names its guest by a file that describes it; the guest's name
/// stands in that file.
fn guests(cib: &str, describe: &dyn Fn(&Path) -> Result<String, String>) -> Cluster {
    let roots = match read(cib) {
        Ok(roots) => roots,
        Err(error) => return Cluster::Unreadable(error.to_string()),
    };
    let mut guests = BTreeMap::new();
    let elements: Vec<&Element> = roots.iter().flat_map(Element::all).collect();
    for resource in elements.iter().filter(|element| is_guest(element, &elements)) {
        let id = resource.attribute("id").unwrap_or("?").to_owned();
        let config =
            resource.all().into_iter().find(|pair| pair.name == "nvpair" && pair.attribute("name") == Some("config"));
        let Some(path) = config.and_then(|pair| pair.attribute("value")) else {
            return Cluster::Unreadable(format!("its resource {id} names no guest"));
        };
        let name = describe(Path::new(path)).and_then(|text| {
            let roots = read(&text).map_err(|error| error.to_string())?;
            let name = roots.first().and_then(|root| root.child("name"));
            name.map(|name| name.text.clone()).ok_or_else(|| "it describes no guest".to_owned())
        });
        match name {
            Ok(name) => guests.insert(name, id),
            Err(problem) => {
                return Cluster::Unreadable(format!("the guest of its resource {id} is in {path}: {problem}"));
            }
        };
    }
    Cluster::Guests(guests)
}

/// Whether the element is a resource that is a guest, by its own type or its template's.
fn is_guest(element: &Element, all: &[&Element]) -> bool {
    let template = element
        .attribute("template")
        .and_then(|id| all.iter().find(|other| other.name == "template" && other.attribute("id") == Some(id)));
    let kind = element.attribute("type").or_else(|| template?.attribute("type"));
    element.name == "primitive" && kind == Some("VirtualDomain")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(cib: &str, description: Result<&str, &str>, expected: &Expect) {
        let describe = |_: &Path| description.map(str::to_owned).map_err(str::to_owned);
        expected.assert_eq(&format!("{:?}", guests(cib, &describe)));
    }

    const RESOURCES: &str = r#"<resources><group id="g"><primitive id="vm-web" class="ocf" provider="heartbeat" type="VirtualDomain">
        <instance_attributes id="i"><nvpair id="n" name="config" value="/etc/libvirt/qemu/w.xml"/></instance_attributes></primitive></group>
        <primitive id="ip" class="ocf" type="IPaddr2"/></resources>"#;

    #[test]
    fn guests_are_found_by_their_description() {
        let described = Ok("<domain><name>web</name></domain>");
        check(RESOURCES, described, &expect![[r#"Guests({"web": "vm-web"})"#]]);
        check(
            r#"<resources><template id="t" type="VirtualDomain"/><primitive id="a" template="t"><nvpair name="config" value="/w.xml"/></primitive></resources>"#,
            described,
            &expect![[r#"Guests({"web": "a"})"#]],
        );
        check("<resources/>", described, &expect!["Guests({})"]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        check(
            RESOURCES,
            Err("gone"),
            &expect![[r#"Unreadable("the guest of its resource vm-web is in /etc/libvirt/qemu/w.xml: gone")"#]],
        );
        check(
            "Call failed",
            Ok(""),
            &expect![[r#"Unreadable("not readable as XML at byte 0: text outside of elements")"#]],
        );
        // One that was too long and was cut.
        let Cluster::Unreadable(_) = guests(&RESOURCES[..RESOURCES.len() / 2], &|_| Ok(String::new())) else {
            panic!("half of it must not be taken for all")
        };
        check(
            r#"<resources><primitive id="a" type="VirtualDomain"/></resources>"#,
            Ok(""),
            &expect![[r#"Unreadable("its resource a names no guest")"#]],
        );
    }
}
