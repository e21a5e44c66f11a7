//! What others say of a host that is silent, and how much of it counts. Pure; `witness` reads the statements, `verdict` knows
//! the hosts. Nobody testifies about itself, a name that is no host's says nothing, and what speaks for a death must come from
//! a host that is heard now and be younger than the last sign of life.

use crate::series::Timestamp;

/// One statement about a host that stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it: host name, as in `instance`.
    pub by: String,
    /// When it was said, by the clock of whoever says it.
    pub at: Timestamp,
    /// What it is.
    pub says: Says,
}

/// What can be said of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// Its record on shared storage changes.
    AliveOnStorage,
    /// Its record on shared storage stands still.
    SilentOnStorage,
    /// Its BMC says that it is switched on.
    PowerOn,
    /// Its BMC says that it is switched off.
    PowerOff,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Another host, of which a sign of life is heard now.
    Heard,
    /// Another host, which may be cut off itself.
    Silent,
    /// No host that is watched, or the one in question.
    Nobody,
}

/// All statements about one host, as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Testimony {
    /// Whether its record on shared storage changes; `None` where nobody can tell now.
    pub storage_alive: Option<bool>,
    /// Its BMC says that it is switched off, and nobody was told otherwise.
    pub power_off: bool,
}

impl Testimony {
    /// Weighs what is said of a host that was last heard at `heard_at`. One who sees it alive is enough. O(statements).
    pub fn of(statements: &[Statement], heard_at: Timestamp, standing: impl Fn(&str) -> Standing) -> Testimony {
        let is_said = |says: Says| {
            let speaks_for_death = matches!(says, Says::SilentOnStorage | Says::PowerOff);
            statements.iter().filter(|one| one.says == says).any(|one| match standing(&one.by) {
                Standing::Heard => !speaks_for_death || one.at > heard_at,
                Standing::Silent => !speaks_for_death,
                Standing::Nobody => false,
            })
        };
        let storage_alive =
            if is_said(Says::AliveOnStorage) { Some(true) } else { is_said(Says::SilentOnStorage).then_some(false) };
        Testimony { storage_alive, power_off: is_said(Says::PowerOff) && !is_said(Says::PowerOn) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD_AT: Timestamp = 1_000;

    /// Statements as `who:what@when`; `a` and `b` are heard, `c` is silent, `x` is the host itself, others are unknown.
    fn weighed(statements: &str) -> (Option<bool>, bool) {
        let statement = |text: &str| {
            let (by, rest) = text.split_once(':').unwrap();
            let (says, at) = rest.split_once('@').unwrap();
            let says = match says {
                "alive" => Says::AliveOnStorage,
                "still" => Says::SilentOnStorage,
                "on" => Says::PowerOn,
                "off" => Says::PowerOff,
                other => panic!("{other}"),
            };
            Statement { by: by.to_owned(), at: at.parse().unwrap(), says }
        };
        let statements: Vec<Statement> = statements.split_whitespace().map(statement).collect();
        let standing = |by: &str| match by {
            "a" | "b" => Standing::Heard,
            "c" => Standing::Silent,
            _ => Standing::Nobody,
        };
        let Testimony { storage_alive, power_off } = Testimony::of(&statements, HEARD_AT, standing);
        (storage_alive, power_off)
    }

    #[test]
    fn one_who_sees_it_alive_is_enough_and_all_who_can_tell_must_see_it_off() {
        assert_eq!(weighed(""), (None, false));
        assert_eq!(weighed("a:still@2000"), (Some(false), false));
        assert_eq!(weighed("a:still@2000 b:alive@2000"), (Some(true), false));
        assert_eq!(weighed("a:off@2000"), (None, true));
        assert_eq!(weighed("a:on@2000"), (None, false));
        assert_eq!(weighed("a:off@2000 b:on@2000"), (None, false));
    }

    #[test]
    fn the_host_itself_and_strangers_say_nothing() {
        assert_eq!(weighed("x:alive@2000 x:off@2000"), (None, false));
        assert_eq!(weighed("stranger:still@2000 stranger:off@2000 stranger:alive@2000"), (None, false));
        assert_eq!(weighed("a:off@2000 x:on@2000"), (None, true), "it cannot deny either");
    }

    #[test]
    fn what_speaks_for_a_death_is_seen_after_the_last_sign_of_life_by_one_who_is_heard() {
        assert_eq!(weighed("a:still@1000 a:off@1000"), (None, false), "it beat after that");
        assert_eq!(
            weighed("a:alive@900 a:on@900 b:off@2000"),
            (Some(true), false),
            "what speaks for life may be older"
        );
        assert_eq!(weighed("c:still@2000 c:off@2000"), (None, false), "who is cut off may be the one that is wrong");
        assert_eq!(weighed("c:alive@2000 a:still@2000"), (Some(true), false), "but is believed for life");
        assert_eq!(weighed("c:on@2000 a:off@2000"), (None, false));
    }
}
