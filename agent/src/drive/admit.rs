//! Whether an order may be carried out at all, before its driver is asked: a pure decision that returns its reason.
//! Refusing is always safe; nothing here may admit an order that was admitted before.

use std::collections::BTreeSet;

use crate::stream::protocol::{Order, OrderAnswer, OrderOutcome};

/// An order with more bytes of arguments than this is refused: it would only serve to fill the journal.
pub const ORDER_BYTES_MAX: usize = 64 << 10;

/// Why an order is not carried out. The text goes to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not in the host's own list.
    #[error("this host's config does not allow {action}; add it to drive.allow there")]
    NotAllowed {
        /// The order's action.
        action: String,
    },
    /// A hold file stands on the host.
    #[error("held on this host; remove {path} to go on")]
    Held {
        /// The hold file.
        path: String,
    },
    /// Came, or would be started, too late.
    #[error("the order is {age_ms} ms old and lived only {ttl_ms} ms")]
    Expired {
        /// Time since it was received.
        age_ms: u64,
        /// Its time to live.
        ttl_ms: u64,
    },
    /// From a server that was replaced.
    #[error("the order is of fencing epoch {epoch}, and epoch {high} has given orders here")]
    Fenced {
        /// The order's epoch.
        epoch: u64,
        /// The highest seen.
        high: u64,
    },
    /// Another order had this key.
    #[error("run {run} step {step} was another order here; a server must not use a run's number twice")]
    KeyReused {
        /// The key's run.
        run: u64,
        /// The key's step.
        step: u32,
    },
    /// Larger than any order needs to be.
    #[error("the order has {bytes} bytes of arguments, allowed are {ORDER_BYTES_MAX}")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
    },
    /// More orders wait than the agent takes.
    #[error("{waiting} orders wait on this agent already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// No driver of that name, or no such verb.
    #[error("this agent knows no action {action}; it knows {known}")]
    UnknownAction {
        /// The order's action.
        action: String,
        /// The actions it knows.
        known: &'static str,
    },
    /// An argument is missing, unknown or of the wrong kind.
    #[error("`{key}` {problem}")]
    Argument {
        /// The argument.
        key: String,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// The platform is not as the order expects it.
    #[error("expected {key} = {expected}, found {found}")]
    Expectation {
        /// What was expected to be something.
        key: String,
        /// The order's word.
        expected: String,
        /// The platform's.
        found: String,
    },
    /// The platform says no, or a guard of the driver does.
    #[error("{reason}")]
    Driver {
        /// Why.
        reason: String,
    },
}

impl Refusal {
    /// A refusal in the driver's words.
    pub fn driver(reason: impl Into<String>) -> Refusal {
        Refusal::Driver { reason: reason.into() }
    }

    /// The answer's outcome.
    pub fn outcome(&self) -> OrderOutcome {
        OrderOutcome::Refused { reason: self.to_string() }
    }
}

/// What the journal knows of an order's key.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Nothing.
    Never,
    /// It was this order, and this is how it ended.
    Ended(Box<OrderAnswer>),
    /// It was this order, and it has not ended.
    Started,
    /// It was an order with other arguments.
    Other,
}

/// The host's side of the decision.
#[derive(Debug, Clone)]
pub struct Standing<'a> {
    /// Actions that local config allows.
    pub allow: &'a BTreeSet<String>,
    /// The hold file, where one stands.
    pub hold: Option<String>,
    /// The highest fencing epoch that ever gave an order here.
    pub fencing_high: u64,
    /// Time since the order was received, in milliseconds of the monotonic clock.
    pub age_ms: u64,
}

/// What to do with an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// Ask the driver, then start it.
    Start,
    /// It ended before: answer the same again.
    Repeat(Box<OrderAnswer>),
    /// It is being carried out: its answer comes.
    Running,
    /// Not begun, and never will be under this key.
    Refuse(Refusal),
}

/// Decides. The journal comes first: a key that was seen is never started again, whatever else holds.
pub fn admit(order: &Order, seen: Seen, standing: &Standing<'_>) -> Admission {
    match seen {
        Seen::Ended(answer) => return Admission::Repeat(answer),
        Seen::Started => return Admission::Running,
        Seen::Other => {
            return Admission::Refuse(Refusal::KeyReused { run: order.key.run, step: order.key.step });
        }
        Seen::Never => {}
    }
    let bytes = serde_json::to_vec(order).map_or(usize::MAX, |json| json.len());
    let refusal = if bytes > ORDER_BYTES_MAX {
        Refusal::TooLarge { bytes }
    } else if order.fencing_epoch < standing.fencing_high {
        Refusal::Fenced { epoch: order.fencing_epoch, high: standing.fencing_high }
    } else if !standing.allow.contains(&order.action) {
        Refusal::NotAllowed { action: order.action.clone() }
    } else if let Some(path) = &standing.hold {
        Refusal::Held { path: path.clone() }
    } else if standing.age_ms > order.ttl_ms {
        Refusal::Expired { age_ms: standing.age_ms, ttl_ms: order.ttl_ms }
    } else {
        return Admission::Start;
    };
    Admission::Refuse(refusal)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::stream::protocol::OrderKey;

    fn order() -> Order {
        Order {
            key: OrderKey { run: 7, step: 1 },
            fencing_epoch: 3,
            action: "haproxy.drain".to_owned(),
            with: serde_json::Map::new(),
            expect: serde_json::Map::new(),
            ttl_ms: 1_000,
            timeout_ms: 1_000,
            undo_of: None,
        }
    }

    fn check(change: impl FnOnce(&mut Order, &mut Standing<'_>), seen: Seen, expected: &Expect) {
        let allow = BTreeSet::from(["haproxy.drain".to_owned()]);
        let mut order = order();
        let mut standing = Standing { allow: &allow, hold: None, fencing_high: 3, age_ms: 1_000 };
        change(&mut order, &mut standing);
        let said = match admit(&order, seen, &standing) {
            Admission::Refuse(refusal) => format!("refuse: {refusal}"),
            Admission::Repeat(answer) => format!("repeat: {:?}", answer.outcome),
            other => format!("{other:?}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn an_order_that_fits_starts() {
        check(|_, _| {}, Seen::Never, &expect!["Start"]);
        check(|order, _| order.fencing_epoch = 4, Seen::Never, &expect!["Start"]);
    }

    #[test]
    fn every_reason_refuses_alone() {
        check(
            |order, _| order.action = "haproxy.ready".to_owned(),
            Seen::Never,
            &expect!["refuse: this host's config does not allow haproxy.ready; add it to drive.allow there"],
        );
        check(
            |_, standing| standing.hold = Some("/etc/petrel/hold".to_owned()),
            Seen::Never,
            &expect!["refuse: held on this host; remove /etc/petrel/hold to go on"],
        );
        check(
            |_, standing| standing.age_ms = 1_001,
            Seen::Never,
            &expect!["refuse: the order is 1001 ms old and lived only 1000 ms"],
        );
        check(
            |order, _| order.fencing_epoch = 2,
            Seen::Never,
            &expect!["refuse: the order is of fencing epoch 2, and epoch 3 has given orders here"],
        );
        check(
            |order, _| {
                order.with.insert("server".to_owned(), "x".repeat(ORDER_BYTES_MAX).into());
            },
            Seen::Never,
            &expect!["refuse: the order has 65685 bytes of arguments, allowed are 65536"],
        );
        check(
            |_, _| {},
            Seen::Other,
            &expect!["refuse: run 7 step 1 was another order here; a server must not use a run's number twice"],
        );
    }

    #[test]
    fn a_key_that_was_seen_never_starts() {
        let ended = OrderAnswer {
            key: order().key,
            fencing_epoch: 3,
            at: 5,
            outcome: OrderOutcome::Done,
            command: String::new(),
            before: serde_json::Map::new(),
        };
        check(|_, _| {}, Seen::Ended(Box::new(ended)), &expect!["repeat: Done"]);
        check(|_, _| {}, Seen::Started, &expect!["Running"]);
    }
}
