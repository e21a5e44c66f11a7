//! What every driver keeps, whatever its platform: nothing wrong is begun, a check changes nothing, a key is applied once,
//! an undo leaves what it promises, and what cannot be seen is said to be unknown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_agent::drive::{Act, Executor, Journal, Looked, Object, Opening, Watch};
use petrel_agent::stream::protocol::{Order, OrderAnswer, OrderKey, OrderOutcome};
use serde_json::Value;

/// A driver and what can be done with it.
pub struct Subject<'a> {
    /// The driver's word.
    pub name: &'static str,
    /// The driver.
    pub driver: Arc<dyn Act>,
    /// The same driver for a platform that does not answer.
    pub blind: Arc<dyn Act>,
    /// An order that can be carried out now.
    pub good: Order,
    /// Changes to its arguments that must be refused, with a word of the reason.
    pub wrong: Vec<(&'static str, Value, &'static str)>,
    /// An expectation that is not met now.
    pub unmet: (&'static str, Value),
    /// Everything that the driver could change, as text.
    pub state: &'a dyn Fn() -> String,
    /// Whether undoing brings back what was.
    pub undo_restores: bool,
}

/// Holds the driver to what every driver keeps. Leaves the platform as the undo leaves it.
pub fn conforms(subject: &Subject<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let executor = executor(subject.name, &subject.driver, &subject.good.action, folder.path());
    let before = (subject.state)();
    let mut step = 100;
    let mut next = |order: &Order| {
        step += 1;
        Order { key: OrderKey { run: 1, step }, ..order.clone() }
    };

    for (key, value, word) in &subject.wrong {
        let mut order = next(&subject.good);
        order.with.insert((*key).to_owned(), value.clone());
        refused(&executor, order, word);
    }
    let mut order = next(&subject.good);
    order.with.insert("no_such_argument".to_owned(), 1.into());
    refused(&executor, order, "no_such_argument");
    let mut order = next(&subject.good);
    order.expect.insert(subject.unmet.0.to_owned(), subject.unmet.1.clone());
    refused(&executor, order, "expected");
    std::fs::write(hold(folder.path()), "").unwrap();
    refused(&executor, next(&subject.good), "held");
    std::fs::remove_file(hold(folder.path())).unwrap();
    subject.driver.check(&subject.good).expect("the order is good");
    assert_eq!((subject.state)(), before, "refusing and checking change nothing");

    let done = carry_out(&executor, subject.good.clone());
    assert_eq!(done.outcome, OrderOutcome::Done, "{done:?}");
    assert!(!done.command.is_empty() && !done.before.is_empty(), "{done:?}");
    let after = (subject.state)();
    assert_ne!(after, before);
    let checked = petrel_agent::drive::Checked { command: done.command.clone(), before: done.before.clone() };
    assert_eq!(subject.driver.progress(&subject.good, &checked), Looked::Done);
    assert!(matches!(subject.blind.progress(&subject.good, &checked), Looked::Unknown { .. }));
    assert!(subject.blind.check(&subject.good).is_err());

    // The same order again, also by a later process.
    assert_eq!(answered(executor.open(subject.good.clone(), Instant::now())), done);
    drop(executor);
    let executor = self::executor(subject.name, &subject.driver, &subject.good.action, folder.path());
    assert_eq!(answered(executor.open(subject.good.clone(), Instant::now())), done);
    assert_eq!((subject.state)(), after);

    let mut undo = next(&subject.good);
    undo.undo_of = Some(done);
    assert_eq!(carry_out(&executor, undo).outcome, OrderOutcome::Done);
    assert_eq!((subject.state)(), if subject.undo_restores { before } else { after });
}

/// An executor that allows one action.
pub fn executor(name: &'static str, driver: &Arc<dyn Act>, action: &str, folder: &Path) -> Executor {
    let journal = Journal::open(&folder.join("orders.journal")).unwrap();
    Executor::over(vec![(name, driver.clone())], BTreeSet::from([action.to_owned()]), hold(folder), journal, || 1)
}

/// An order of run 1.
pub fn order(action: &str, step: u32, with: &Value) -> Order {
    Order {
        key: OrderKey { run: 1, step },
        fencing_epoch: 1,
        action: action.to_owned(),
        with: with.as_object().unwrap().clone(),
        expect: Object::new(),
        ttl_ms: 60_000,
        timeout_ms: 120_000,
        undo_of: None,
    }
}

/// Carries an order out that must begin.
pub fn carry_out(executor: &Executor, order: Order) -> OrderAnswer {
    match executor.open(order, Instant::now()) {
        Opening::Begun(prepared) => {
            assert_eq!(prepared.started.outcome, OrderOutcome::Started);
            executor.perform(&prepared, Watch::lasting(Duration::from_secs(600))).expect("nobody stops it")
        }
        other => panic!("not begun: {other:?}"),
    }
}

/// Asserts that an order is refused, for a reason with this word in it.
pub fn refused(executor: &Executor, order: Order, word: &str) {
    let answer = answered(executor.open(order, Instant::now()));
    let OrderOutcome::Refused { reason } = &answer.outcome else { panic!("{answer:?}") };
    assert!(reason.contains(word), "`{reason}` does not say `{word}`");
}

/// The answer of an order that does not begin.
pub fn answered(opening: Opening) -> OrderAnswer {
    match opening {
        Opening::Answered(answer) => *answer,
        other => panic!("not answered: {other:?}"),
    }
}

fn hold(folder: &Path) -> PathBuf {
    folder.join("hold")
}
