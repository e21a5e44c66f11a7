//! Whether the host waits for a reboot: because an upgrade said so, or because a newer kernel is installed than runs.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::Duration;

use crate::collect::attribute::names_in;
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Reboots that are due.
pub(super) struct Reboot {
    /// Debian's packages leave this file until the next boot.
    marks: [PathBuf; 2],
    boot: PathBuf,
    is_own_root: bool,
}

const REQUIRED: Column = gauge("petrel_reboot_required", "Whether a reboot is due, by reason (1 = yes, 0 = no).");
const EVERY: Duration = Duration::from_secs(60);
const KERNEL: &str = "vmlinuz-";

impl Reboot {
    pub(super) fn new(roots: &Roots) -> Reboot {
        Reboot {
            marks: ["run/reboot-required", "var/run/reboot-required"].map(|mark| roots.rootfs.join(mark)),
            boot: roots.rootfs.join("boot"),
            is_own_root: roots.rootfs.as_os_str() == "/",
        }
    }
}

impl Collector for Reboot {
    fn name(&self) -> &'static str {
        "reboot"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let names = names_in(&self.boot).unwrap_or_default();
        let kernels: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(KERNEL)).collect();
        let is_marked = self.marks.iter().any(|mark| mark.exists());
        if kernels.is_empty() && !is_marked && !self.is_own_root {
            return Err(CollectError::Absent { path: self.boot.clone() });
        }
        let mut required = REQUIRED.family();
        required.push(&[("reason", "packages")], f64::from(u8::from(is_marked)));
        if !kernels.is_empty() {
            let uname = rustix::system::uname();
            let is_older = newer(&uname.release().to_string_lossy(), &kernels);
            required.push(&[("reason", "kernel")], f64::from(u8::from(is_older)));
        }
        families.push(required);
        Ok(())
    }
}

/// Whether one of the installed kernels is newer than the one that runs. Kernels of another flavour (`-cloud-amd64` beside
/// `-amd64`) do not count: nobody would boot them.
fn newer(running: &str, installed: &[&str]) -> bool {
    installed.iter().any(|kernel| flavour(kernel) == flavour(running) && order(kernel, running) == Ordering::Greater)
}

/// The words at a version's end: `-cloud-amd64` of `6.1.0-18-cloud-amd64`. Words with digits between their letters, as
/// `amd64`, belong to it; a piece that begins with a digit ends it.
fn flavour(version: &str) -> &str {
    let begins_with_letter = |piece: &str| piece.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let mut rest = version;
    while let Some((before, piece)) = rest.rsplit_once('-') {
        if !begins_with_letter(piece) {
            break;
        }
        rest = before;
    }
    &version[rest.len()..]
}

/// The order of versions: runs of digits by their number, others by their letters.
fn order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    while !one.is_empty() && !other.is_empty() {
        let (a, b);
        (a, one) = run(one);
        (b, other) = run(other);
        let by_number = a.parse::<u64>().ok().zip(b.parse::<u64>().ok()).map(|(a, b)| a.cmp(&b));
        let ordering = by_number.unwrap_or_else(|| a.cmp(b));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    one.len().cmp(&other.len())
}

/// The digits, or the other letters, with which a text begins, and what follows.
fn run(text: &str) -> (&str, &str) {
    let is_digit = text.starts_with(|letter: char| letter.is_ascii_digit());
    let end = text.find(|letter: char| letter.is_ascii_digit() != is_digit).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    #[test]
    fn newer_kernels_of_the_same_flavour() {
        for (running, installed, expected) in [
            ("6.1.0-18-amd64", &["6.1.0-18-amd64", "6.1.0-9-amd64"][..], false),
            ("6.1.0-9-amd64", &["6.1.0-18-amd64"], true),
            ("6.1.0-18-amd64", &["6.1.0-20-cloud-amd64"], false),
            ("6.8.12-4-pve", &["6.8.12-10-pve"], true),
            ("5.14.0-427.el9.x86_64", &["5.14.0-503.el9.x86_64", "0-rescue-0123abcd"], true),
            ("5.14.0-503.el9.x86_64", &["5.14.0-427.el9.x86_64", "0-rescue-0123abcd"], false),
            ("6.18.44-custom", &[], false),
        ] {
            assert_eq!(newer(running, installed), expected, "{running} {installed:?}");
        }
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn versions_are_ordered_and_never_panic(one in "[0-9a-z.é-]{0,12}", other in "[0-9a-z.é-]{0,12}") {
            prop_assert_eq!(order(&one, &other), order(&other, &one).reverse());
            prop_assert_eq!(order(&one, &one), Ordering::Equal);
            let _ = newer(&one, &[&other]);
        }
    }
}
