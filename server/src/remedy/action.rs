//! The actions a runbook may name, with their arguments: one closed table. An action that is not here cannot be ordered, whatever
//! a file says; starting, stopping or deleting a guest is not here on purpose.

use serde_json::{Map, Value};

/// What a runbook's step can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Take a server of a backend out of the choice for new sessions.
    HaproxyDrain,
    /// Change a server's weight.
    HaproxySetWeight,
    /// Let a server take sessions again.
    HaproxyReady,
    /// Move every guest of a host to hosts where it fits; expands into one `libvirt.migrate` per guest.
    LibvirtEvacuate,
}

/// The order that an evacuation expands into. It is not for runbooks: only a plan that was proven may contain it.
pub const MIGRATE: &str = "libvirt.migrate";

/// What kind of value an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentKind {
    /// A name: letters, digits and `_ . : -`, at most 255, so that it can never be read as a second command.
    Name,
    /// A whole number in the closed range.
    Number(u64, u64),
}

/// One argument of an action.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// Its key in `with`.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgumentKind,
    /// Whether it must be given.
    pub required: bool,
}

/// Why an argument was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// It must be given.
    #[error("`{action}` needs `{argument}` in `with`")]
    Missing {
        /// The action.
        action: &'static str,
        /// The argument.
        argument: &'static str,
    },
    /// No such argument.
    #[error("`{action}` has no argument `{argument}`; it takes {known}")]
    Unknown {
        /// The action.
        action: &'static str,
        /// As written.
        argument: String,
        /// What it takes.
        known: String,
    },
    /// Not a name.
    #[error("`{argument}: {value}` is not a name; allowed are letters, digits and `_ . : -`")]
    NotAName {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a number in range.
    #[error("`{argument}: {value}` is not a whole number from {min} to {max}")]
    NotANumber {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
}

const BACKEND: Argument = Argument { name: "backend", kind: ArgumentKind::Name, required: true };
const SERVER: Argument = Argument { name: "server", kind: ArgumentKind::Name, required: true };
/// HAProxy's own range of weights.
const WEIGHT: Argument = Argument { name: "weight", kind: ArgumentKind::Number(0, 256), required: true };
const HOST: Argument = Argument { name: "host", kind: ArgumentKind::Name, required: true };
/// From a trickle to more than any network of today.
const BANDWIDTH: Argument =
    Argument { name: "bandwidth_mib_s", kind: ArgumentKind::Number(1, 100_000), required: false };

impl Action {
    /// All actions, in the order in which messages list them.
    pub const ALL: [Action; 4] =
        [Action::HaproxyDrain, Action::HaproxySetWeight, Action::HaproxyReady, Action::LibvirtEvacuate];

    /// The word in runbooks and orders.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::HaproxyDrain => "haproxy.drain",
            Action::HaproxySetWeight => "haproxy.set_weight",
            Action::HaproxyReady => "haproxy.ready",
            Action::LibvirtEvacuate => "libvirt.evacuate",
        }
    }

    /// Reads the word of [`Action::as_str`].
    pub fn parse(word: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// All words, for messages.
    pub fn known() -> String {
        Action::ALL.map(Action::as_str).join(", ")
    }

    /// What it takes in `with`.
    pub fn arguments(self) -> &'static [Argument] {
        match self {
            Action::HaproxyDrain | Action::HaproxyReady => &[BACKEND, SERVER],
            Action::HaproxySetWeight => &[BACKEND, SERVER, WEIGHT],
            Action::LibvirtEvacuate => &[HOST, BANDWIDTH],
        }
    }

    /// Whether the names in `with` are those the action takes.
    ///
    /// # Errors
    /// The first one that is missing or unknown.
    pub fn check_names(self, given: &[&String]) -> Result<(), ArgumentError> {
        let action = self.as_str();
        let known = || self.arguments().iter().map(|argument| argument.name).collect::<Vec<_>>().join(", ");
        if let Some(stray) =
            given.iter().find(|name| self.arguments().iter().all(|argument| argument.name != name.as_str()))
        {
            return Err(ArgumentError::Unknown { action, argument: (*stray).clone(), known: known() });
        }
        let missing = self
            .arguments()
            .iter()
            .find(|argument| argument.required && !given.iter().any(|name| *name == argument.name));
        missing.map_or(Ok(()), |argument| Err(ArgumentError::Missing { action, argument: argument.name }))
    }

    /// Turns rendered texts into the arguments of an order: names checked, numbers parsed.
    ///
    /// # Errors
    /// A value that is not what the argument wants.
    pub fn check_values(self, texts: &[(String, String)]) -> Result<Map<String, Value>, ArgumentError> {
        self.check_names(&texts.iter().map(|(name, _)| name).collect::<Vec<_>>())?;
        let argument = |name: &str| self.arguments().iter().find(|argument| argument.name == name);
        texts
            .iter()
            .filter_map(|(name, text)| argument(name).map(|argument| (argument, text)))
            .map(|(argument, text)| Ok((argument.name.to_owned(), argument.value(text)?)))
            .collect()
    }
}

impl Argument {
    fn value(&self, text: &str) -> Result<Value, ArgumentError> {
        match self.kind {
            ArgumentKind::Name if is_name(text) => Ok(Value::from(text)),
            ArgumentKind::Name => Err(ArgumentError::NotAName { argument: self.name, value: text.to_owned() }),
            ArgumentKind::Number(min, max) => match text.trim().parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::from(number)),
                _ => Err(ArgumentError::NotANumber { argument: self.name, value: text.to_owned(), min, max }),
            },
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(action: Action, pairs: &[(&str, &str)]) -> String {
        let texts: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        match action.check_values(&texts) {
            Ok(map) => Value::Object(map).to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn arguments_are_checked_and_typed() {
        let weight = |value| check(Action::HaproxySetWeight, &[("backend", "b"), ("server", "s"), ("weight", value)]);
        assert_eq!(weight("10"), r#"{"backend":"b","server":"s","weight":10}"#);
        assert_eq!(weight("257"), "`weight: 257` is not a whole number from 0 to 256");
        assert_eq!(check(Action::HaproxyDrain, &[("backend", "b")]), "`haproxy.drain` needs `server` in `with`");
        let injected = check(Action::HaproxyDrain, &[("backend", "b"), ("server", "s; shutdown")]);
        assert!(injected.contains("is not a name"), "{injected}");
        let unknown = check(Action::LibvirtEvacuate, &[("host", "h1"), ("force", "yes")]);
        assert_eq!(unknown, "`libvirt.evacuate` has no argument `force`; it takes host, bandwidth_mib_s");
    }

    /// DESIGN section 6, 5: nothing Petrel can order starts, stops or destroys a guest.
    #[test]
    fn no_action_starts_a_guest() {
        for word in Action::ALL.map(Action::as_str).into_iter().chain([MIGRATE]) {
            assert!(
                !["start", "create", "resume", "destroy", "fence"].iter().any(|verb| word.contains(verb)),
                "{word}"
            );
        }
    }
}
