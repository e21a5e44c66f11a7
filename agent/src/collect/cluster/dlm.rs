//! The distributed lock manager: lockspaces, their members, and whether one stands still because a node has to be fenced or
//! quorum is missing. All that locks there hangs meanwhile. Only the listings of `dlm_tool` are asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Lockspaces of GFS2, lvmlockd and clvmd.
pub(super) struct Dlm {
    kernel: PathBuf,
}

const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(5);

const COLUMNS: [Column; 6] = [
    ("petrel_dlm_lockspace_members", Gauge, "Nodes that take part in the lockspace."),
    (
        "petrel_dlm_lockspace_stopped",
        Gauge,
        "Whether the kernel grants no locks in the lockspace until it is recovered.",
    ),
    ("petrel_dlm_lockspace_changing", Gauge, "Whether a change of the lockspace's members goes on."),
    (
        "petrel_dlm_lockspace_waits",
        Gauge,
        "What the lockspace's change waits for: fencing, quorum or another; the value is always 1.",
    ),
    ("petrel_dlm_quorate", Gauge, "Whether the lock manager's daemon has quorum."),
    ("petrel_dlm_node_member", Gauge, "Whether the lock manager's daemon counts the node as a member."),
];

impl Dlm {
    pub(super) fn new(roots: &Roots) -> Dlm {
        Dlm { kernel: roots.sysfs.join("kernel/dlm") }
    }
}

impl Collector for Dlm {
    fn name(&self) -> &'static str {
        "dlm"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.kernel)?;
        let mut columns = Columns::new(&COLUMNS);
        let status = ask("dlm_tool", &["status"], WITHIN)?;
        if !read_status(&status.out, &mut columns) {
            return Err(refused("dlm_tool", &["status"], &status));
        }
        let lockspaces = ask("dlm_tool", &["ls"], WITHIN)?;
        read_lockspaces(&lockspaces.out, &mut columns);
        columns.append_to(families)
    }
}

/// Reads `dlm_tool status`: `cluster nodeid 1 quorate 1 ring seq 8 8`, `node 2 M add 123 rem 0 fail 0 fence 0 at 0 0`. Whether
/// that was a status.
fn read_status(text: &str, columns: &mut Columns) -> bool {
    let mut is_status = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["cluster", "nodeid", _, "quorate", quorate, ..] => {
                is_status = true;
                columns.flag("petrel_dlm_quorate", &[], *quorate == "1");
            }
            ["node", id, state, ..] => {
                columns.flag("petrel_dlm_node_member", &[("node_id", id)], *state == "M");
            }
            _ => {}
        }
    }
    is_status
}

/// Reads `dlm_tool ls`: for each lockspace lines `name`, `id`, `flags`, `change`, `members`, and while it changes `new change`,
/// `new status`, `new members`.
fn read_lockspaces(text: &str, columns: &mut Columns) {
    let mut name = "";
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let labels = [("lockspace", name)];
        match words.as_slice() {
            ["name", lockspace, ..] => {
                name = lockspace;
                columns.flag("petrel_dlm_lockspace_changing", &[("lockspace", name)], changes(text, name));
            }
            ["flags", _, flags @ ..] => {
                let stopped = flags.iter().any(|flag| flag.split(',').any(|flag| flag == "kern_stop"));
                columns.flag("petrel_dlm_lockspace_stopped", &labels, stopped);
            }
            ["members", ids @ ..] if ids.first() != Some(&"error") => {
                columns.push("petrel_dlm_lockspace_members", &labels, ids.len() as f64);
            }
            ["new", "status", rest @ ..] => {
                let reason =
                    rest.last().filter(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_'));
                let labels = [("lockspace", name), ("for", reason.copied().unwrap_or("messages"))];
                columns.push("petrel_dlm_lockspace_waits", &labels, 1.0);
            }
            _ => {}
        }
    }
}

/// Whether the block of a lockspace has a change that goes on.
fn changes(text: &str, name: &str) -> bool {
    let is_name = |line: &&str| line.split_ascii_whitespace().next() == Some("name");
    let mut lines =
        text.lines().skip_while(|line| !(is_name(line) && line.split_ascii_whitespace().nth(1) == Some(name)));
    lines.next();
    lines.take_while(|line| !is_name(line)).any(|line| line.starts_with("new change"))
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    read_status(text, &mut columns);
    read_lockspaces(text, &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lockspace_that_waits_for_fencing_is_told() {
        let mut columns = Columns::new(&COLUMNS);
        assert!(read_status(include_str!("../../../testdata/dlm/status.txt"), &mut columns));
        read_lockspaces(include_str!("../../../testdata/dlm/ls.txt"), &mut columns);
        expect![[r#"
            petrel_dlm_lockspace_members{lockspace="lvm_global"} 2
            petrel_dlm_lockspace_members{lockspace="guests"} 2
            petrel_dlm_lockspace_stopped{lockspace="lvm_global"} 0
            petrel_dlm_lockspace_stopped{lockspace="guests"} 1
            petrel_dlm_lockspace_changing{lockspace="lvm_global"} 0
            petrel_dlm_lockspace_changing{lockspace="guests"} 1
            petrel_dlm_lockspace_waits{lockspace="guests",for="fencing"} 1
            petrel_dlm_quorate 1
            petrel_dlm_node_member{node_id="1"} 1
            petrel_dlm_node_member{node_id="2"} 0
        "#]]
        .assert_eq(&columns.samples(|_| true));
        assert!(!read_status("dlm_tool: cannot connect to dlm_controld", &mut Columns::new(&COLUMNS)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((name|flags|members|new status|new change|node|cluster nodeid 1 quorate|[0-9x]{1,4}|kern_stop|é|\\PC)[ \n]){0,30}") {
            let mut columns = Columns::new(&COLUMNS);
            read_status(&text, &mut columns);
            read_lockspaces(&text, &mut columns);
        }
    }
}
