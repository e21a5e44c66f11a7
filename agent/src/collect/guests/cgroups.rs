//! Which control group is which guest, by the names that libvirt and systemd give to a guest's scope. What the groups use is told
//! by `kernel::cgroup_slices`; with this a guest is known by name also where libvirt is not asked or does not answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::kernel::cgroup1::Hierarchies;
use super::super::kernel::cgroup2::unescaped;
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Where libvirt puts guests.
const MACHINES: &str = "machine.slice";
/// Most scopes that are looked at, as many as have figures.
const SCOPES_MAX: usize = 512;
/// How often the list is made anew: guests come and go seldom.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// The collector.
pub(super) struct GuestCgroups {
    sysfs: PathBuf,
    /// Groups with the guests' names, and when they were listed.
    listed: Option<(Instant, Vec<(String, String)>)>,
}

impl GuestCgroups {
    pub(super) fn new(roots: &Roots) -> GuestCgroups {
        GuestCgroups { sysfs: roots.sysfs.clone(), listed: None }
    }

    fn list(&self) -> Result<Vec<(String, String)>, CollectError> {
        let tree = Hierarchies::find(&self.sysfs).filter(|tree| tree.has(MACHINES));
        let tree = tree.ok_or_else(|| CollectError::Absent { path: self.sysfs.join("fs/cgroup").join(MACHINES) })?;
        let (scopes, _) = tree.children(MACHINES, SCOPES_MAX);
        let named = scopes.iter().filter_map(|scope| {
            let scope = unescaped(scope);
            Some((format!("{MACHINES}/{scope}"), guest(&scope)?.to_owned()))
        });
        let mut named: Vec<(String, String)> = named.collect();
        // Two names that differ only in their escapes would give one label set twice.
        named.sort_unstable();
        named.dedup_by(|a, b| a.0 == b.0);
        Ok(named)
    }
}

impl Collector for GuestCgroups {
    fn name(&self) -> &'static str {
        "guest_cgroups"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.listed.as_ref().is_none_or(|(at, _)| at.elapsed() >= LIST_EVERY) {
            self.listed = None;
            self.listed = Some((Instant::now(), self.list()?));
        }
        let help = "The control group of a guest, by the name of its scope; petrel_cgroup_* has what it uses.";
        let mut info = Family::new(Kind::Gauge, "petrel_guest_cgroup_info", help);
        for (group, name) in self.listed.iter().flat_map(|(_, named)| named) {
            info.push(&[("cgroup", group), ("name", name)], 1.0);
        }
        families.push(info);
        Ok(())
    }
}

/// The guest of a scope: `machine-qemu-7-web.scope` is `web`. libvirt cuts long names at 64 characters.
fn guest(scope: &str) -> Option<&str> {
    let rest = scope.strip_suffix(".scope")?.strip_prefix("machine-")?;
    let (driver, rest) = rest.split_once('-')?;
    let (number, name) = rest.split_once('-')?;
    let is_guest = matches!(driver, "qemu" | "lxc") && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_guest && !number.is_empty() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::CollectConfig;
    use crate::collect::text::render;

    #[test]
    fn scopes_are_guests() {
        for (scope, name) in [
            ("machine-qemu-7-web.scope", Some("web")),
            ("machine-qemu-12-my-db.scope", Some("my-db")),
            ("machine-lxc-1-box.scope", Some("box")),
            ("machine-container.scope", None),
            ("machine-qemu-x-web.scope", None),
            ("libvirt-qemu.scope", None),
        ] {
            assert_eq!(guest(scope), name, "{scope}");
        }
    }

    #[test]
    fn a_host_with_a_guest() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sys/fs/cgroup");
        std::fs::create_dir_all(root.join(r"machine.slice/machine-qemu\x2d1\x2dmy\x20web.scope")).unwrap();
        std::fs::write(root.join("cgroup.controllers"), "cpu").unwrap();
        let config = CollectConfig::at(&folder.path().join("proc"), &folder.path().join("sys"));
        let mut families = Vec::new();
        GuestCgroups::new(&config.roots).collect(&mut families).unwrap();
        let text = render(&families);
        let series = r#"petrel_guest_cgroup_info{cgroup="machine.slice/machine-qemu-1-my web.scope",name="my web"} 1"#;
        assert!(text.lines().any(|line| line == series), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(scope in "(machine-|qemu-|[0-9]-|\\.scope|.){0,12}") {
            guest(&scope);
        }
    }
}
