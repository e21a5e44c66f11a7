//! Taking back: the legs that undo what a run did, last first. Pure; an evacuation's migrations are never taken back, because guests
//! that moved stay where they are until a run of its own brings them back.

use petrel_agent::stream::protocol::OrderOutcome;
use serde_json::{Map, Value};

use super::plan::SEEN_WITHIN_MS;
use super::run::{Leg, LegUndo, Phase, Proof};

/// The legs that take back all that can be, last first; they go behind the others and have numbers of their own.
pub fn legs(done: &[Leg]) -> Vec<Leg> {
    (0..done.len()).rev().filter_map(|number| leg(&done[number], number)).collect()
}

/// Whether the agent carried the leg out and it can be taken back; also of a leg that was done but could not be verified.
pub fn can_be_taken_back(leg: &Leg) -> bool {
    let done = leg.answer.as_ref().is_some_and(|answer| answer.outcome == OrderOutcome::Done);
    done && leg.undoes.is_none() && leg.undo != LegUndo::Never
}

fn leg(leg: &Leg, number: usize) -> Option<Leg> {
    if !can_be_taken_back(leg) {
        return None;
    }
    let (action, with, undo_of, expect) = match &leg.undo {
        LegUndo::Never => return None,
        LegUndo::Restore => (leg.action.clone(), leg.with.clone(), leg.answer.clone(), as_left(leg)),
        LegUndo::Do { action, with } => (action.clone(), with.clone(), None, Map::new()),
    };
    Some(Leg {
        agent: leg.agent.clone(),
        action,
        with,
        expect,
        timeout_ms: leg.timeout_ms,
        verify: Some(Proof { promql: String::new(), within_ms: leg.within_ms().max(SEEN_WITHIN_MS) }),
        undo: LegUndo::Never,
        undoes: Some(u32::try_from(number).unwrap_or(u32::MAX)),
        undo_of,
        migration: None,
        phase: Phase::Waiting,
        answer: None,
    })
}

/// What the leg left behind. It is taken back only while it is still so: what somebody changed since is their word, not ours.
fn as_left(leg: &Leg) -> Map<String, Value> {
    let left = match leg.action.as_str() {
        "haproxy.drain" => Some(("state", Value::from("drain"))),
        "haproxy.ready" => Some(("state", Value::from("ready"))),
        "haproxy.set_weight" => leg.with.get("weight").map(|weight| ("weight", weight.clone())),
        _ => None,
    };
    left.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}
