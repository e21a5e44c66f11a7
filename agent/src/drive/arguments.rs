//! Reading the arguments of an order: each taken once by name and kind; what nobody took is refused, never ignored.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Object, Refusal};

/// The arguments of one order, being read.
pub struct Arguments<'a> {
    object: &'a Object,
    taken: BTreeSet<&'static str>,
}

impl<'a> Arguments<'a> {
    /// Begins to read `with`.
    pub fn of(object: &'a Object) -> Arguments<'a> {
        Arguments { object, taken: BTreeSet::new() }
    }

    /// A text that must be there.
    pub fn text(&mut self, key: &'static str) -> Result<&'a str, Refusal> {
        self.take(key)?.as_str().ok_or_else(|| wrong(key, "must be text"))
    }

    /// A whole number that must be there, within `range`.
    pub fn number(&mut self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Refusal> {
        let problem = || wrong(key, format!("must be a whole number from {} to {}", range.start(), range.end()));
        self.take(key)?.as_u64().filter(|number| range.contains(number)).ok_or_else(problem)
    }

    /// Refuses what was not read.
    pub fn end(self) -> Result<(), Refusal> {
        match self.object.keys().find(|key| !self.taken.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let known: Vec<&str> = self.taken.iter().copied().collect();
                Err(wrong(key, format!("is not an argument of this action; it takes {}", known.join(", "))))
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Result<&'a Value, Refusal> {
        self.taken.insert(key);
        self.object.get(key).ok_or_else(|| wrong(key, "is missing"))
    }
}

/// Compares what an order expects with what was found. An expectation that the driver does not know is refused: it
/// cannot be shown to be met.
pub fn meets(expect: &Object, found: &Object) -> Result<(), Refusal> {
    for (key, expected) in expect {
        let Some(value) = found.get(key) else {
            let known: Vec<&str> = found.keys().map(String::as_str).collect();
            return Err(wrong(key, format!("cannot be expected of this action; it knows {}", known.join(", "))));
        };
        if value != expected {
            return Err(Refusal::Expectation {
                key: key.clone(),
                expected: expected.to_string(),
                found: value.to_string(),
            });
        }
    }
    Ok(())
}

/// A refusal of one argument.
pub fn wrong(key: &str, problem: impl Into<String>) -> Refusal {
    Refusal::Argument { key: key.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn arguments_are_of_their_kind_and_known() {
        let read = |value: Value| -> String {
            let with = object(&value);
            let mut arguments = Arguments::of(&with);
            let server = arguments.text("server").map(str::to_owned);
            let weight = arguments.number("weight", 0..=256);
            let said = server.and(weight).and_then(|_| arguments.end());
            said.map_or_else(|refusal| refusal.to_string(), |()| "ok".to_owned())
        };
        assert_eq!(read(json!({"server": "a", "weight": 5})), "ok");
        assert_eq!(read(json!({"weight": 5})), "`server` is missing");
        assert_eq!(read(json!({"server": 1, "weight": 5})), "`server` must be text");
        assert_eq!(read(json!({"server": "a", "weight": 257})), "`weight` must be a whole number from 0 to 256");
        assert_eq!(
            read(json!({"server": "a", "weight": 1, "wait": 2})),
            "`wait` is not an argument of this action; it takes server, weight"
        );
    }

    #[test]
    fn expectations_are_met_or_named() {
        let found = object(&json!({"state": "running", "weight": 5}));
        let said = |expect: Value| meets(&object(&expect), &found).map_err(|refusal| refusal.to_string());
        assert_eq!(said(json!({"state": "running"})), Ok(()));
        assert_eq!(said(json!({"state": "paused"})), Err("expected state = \"paused\", found \"running\"".to_owned()));
        assert_eq!(
            said(json!({"moon": "full"})),
            Err("`moon` cannot be expected of this action; it knows state, weight".to_owned())
        );
    }
}
