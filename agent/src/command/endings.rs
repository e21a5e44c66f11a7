//! The ends of children. Killing takes effect when the kernel gets to it, which for one that hangs on a disk may be never: nobody
//! waits long for that. One that is still there is put on a list and looked for at every later call, so that it does not
//! stay a zombie; the list has a bound, and its length and what went beyond the bound are told.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::LOOK_EVERY;

/// A child that was killed is gone in an instant, unless it hangs in the kernel.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Children on the list. More of them mean a host on which every call hangs.
const UNREAPED_MAX: usize = 64;

static UNREAPED: Mutex<Unreaped> = Mutex::new(Unreaped { children: Vec::new(), forgotten: 0 });

#[derive(Debug)]
struct Unreaped {
    children: Vec<Pid>,
    forgotten: u64,
}

/// Children that were killed and are still there, and how many more did not fit on the list and stay zombies at their end.
pub fn unreaped() -> (usize, u64) {
    let unreaped = list();
    (unreaped.children.len(), unreaped.forgotten)
}

fn list() -> MutexGuard<'static, Unreaped> {
    UNREAPED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unreaped {
    fn add(&mut self, child: Pid) {
        if self.children.len() < UNREAPED_MAX {
            self.children.push(child);
        } else {
            self.forgotten += 1;
        }
    }
}

/// Takes off the list those that have ended meanwhile. Does not wait.
pub(super) fn reap() {
    list().children.retain(|child| matches!(rustix::process::waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Kills a child that was not waited for, with its group: its number cannot be another's yet.
pub(super) fn signal_group(child: &Child) {
    if let Some(group) = pid(child) {
        // They may have ended by themselves.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Whether a child has ended. It keeps its number until it is waited for.
pub(super) fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // One that cannot be asked about was waited for.
    pid(child).is_none_or(|pid| !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None)))
}

/// Kills a child with its group and waits a moment for its end; then it goes on the list.
pub(super) fn kill_group(child: &mut Child) {
    signal_group(child);
    let until = Instant::now() + GONE_WITHIN;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= until {
            tracing::warn!(
                pid = child.id(),
                "a child that was killed is still there; its disk or file system may hang"
            );
            return later(child);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Puts a child on the list if it is still there.
pub(super) fn later(child: &mut Child) {
    if let (Ok(None), Some(pid)) = (child.try_wait(), pid(child)) {
        list().add(pid);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn one_that_stays_is_reaped_later_and_the_list_has_a_bound() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let own = pid(&child).unwrap();
        assert!(!has_ended(&child));
        later(&mut child);
        assert!(list().children.contains(&own));
        reap();
        assert!(list().children.contains(&own), "it still runs");
        rustix::process::kill_process(own, Signal::KILL).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while list().children.contains(&own) {
            assert!(Instant::now() < until);
            reap();
        }
        let mut full = Unreaped { children: Vec::new(), forgotten: 0 };
        (0..UNREAPED_MAX + 3).for_each(|_| full.add(own));
        assert_eq!((full.children.len(), full.forgotten), (UNREAPED_MAX, 3));
    }
}
