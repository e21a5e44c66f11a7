//! From a runbook and an alert to a run: templates filled in, arguments checked, an evacuation expanded into one migration per guest.
//! Pure; a plan is data and does nothing. What cannot be planned is refused with its reason.

use petrel_models::placement::{self, plan_evacuation};
use serde_json::{Map, Value, json};

use super::action::{Action, MIGRATE};
use super::guard::{Refusal, World};
use super::run::{Cause, Condition, Leg, LegUndo, Migration, Phase, Policy, Proof, Run, RunId, State};
use super::runbook::{Mode, Runbook, Step, Undo};
use super::template::Template;
use crate::decide::alert::{Alert, Basis};

/// How long a leg without a `verify` of its own may take to be seen in the agent's inventory: six of its reports.
pub const SEEN_WITHIN_MS: i64 = 60_000;

/// What an alert is about: `host:<instance>`, or the alert itself where it names no host.
pub fn subject(alert: &Alert) -> String {
    match alert.labels.get("instance").filter(|instance| !instance.is_empty()) {
        Some(instance) => format!("host:{instance}"),
        None => format!("alert:{}", alert.fingerprint),
    }
}

/// The episode of an alert that starts a run.
pub fn cause(alert: &Alert) -> Cause {
    Cause {
        fingerprint: alert.fingerprint.clone(),
        fired_at: alert.fired_at.unwrap_or(alert.active_at),
        alertname: alert.labels.get("alertname").cloned().unwrap_or_default(),
        summary: alert.annotations.get("summary").cloned().unwrap_or_default(),
    }
}

/// A run without legs: what is recorded of a plan that was refused before it was one.
pub fn empty_run(id: RunId, runbook: &Runbook, alert: &Alert, world: World<'_>) -> Run {
    Run {
        id,
        runbook: runbook.name.clone(),
        subject: subject(alert),
        cause: cause(alert),
        mode: runbook.mode,
        demoted: None,
        evacuates: None,
        created_at: world.now,
        changed_at: world.now,
        guards: Vec::new(),
        policy: Policy {
            cooldown_ms: runbook.cooldown_ms,
            min_history_ms: runbook.min_history_ms,
            approve_within_ms: runbook.approve_within_ms,
            on_failure: runbook.on_failure,
            undo_when_resolved: runbook.undo_when_resolved,
        },
        state: State::Planned,
        legs: Vec::new(),
        resolved: false,
        refused_before: None,
        revision: 0,
    }
}

/// Fills a run with the runbook's legs and conditions, and demotes it where `auto` is not earned.
///
/// # Errors
/// A template, an argument or the placement refuses.
pub fn fill(run: &mut Run, runbook: &Runbook, alert: &Alert, world: World<'_>) -> Result<(), Refusal> {
    let context = context(run, runbook, alert);
    for guard in &runbook.guards {
        let promql = guard.promql.render(&context).map_err(Refusal::Template)?;
        run.guards.push(Condition { promql, is: guard.is, reason: guard.reason.clone() });
    }
    for step in &runbook.steps {
        let legs = legs(run, step, &context, world)?;
        run.legs.extend(legs);
    }
    if let Some(host) = run.evacuates.clone() {
        if run.legs.is_empty() {
            return Err(Refusal::NothingToDo { host });
        }
        if run.mode == Mode::Auto {
            run.demoted = demotion(runbook, alert, world, &host);
            run.mode = if run.demoted.is_some() { Mode::Approve } else { Mode::Auto };
        }
    }
    Ok(())
}

fn demotion(runbook: &Runbook, alert: &Alert, world: World<'_>, host: &str) -> Option<String> {
    let only_likely = alert.basis != Basis::Measured || alert.prediction.is_some();
    if only_likely && !runbook.has_precursor() {
        return Some("a probability alone never moves guests: no guard is marked `precursor: true`".to_owned());
    }
    let unknown = world.fleet.facts.domain(host).is_none();
    unknown.then(|| format!("the failure domain of {host} is unknown: name it in fleet.yaml"))
}

fn context(run: &Run, runbook: &Runbook, alert: &Alert) -> Value {
    json!({
        "alert": {
            "fingerprint": alert.fingerprint,
            "level": alert.level.as_str(),
            "value": alert.value,
            "probability": alert.prediction.map(|prediction| prediction.probability),
            "lead_seconds": alert.prediction.and_then(|prediction| prediction.lead_seconds),
        },
        "labels": alert.labels,
        "annotations": alert.annotations,
        "plan": { "run": run.id, "runbook": runbook.name, "subject": run.subject },
    })
}

fn legs(run: &mut Run, step: &Step, context: &Value, world: World<'_>) -> Result<Vec<Leg>, Refusal> {
    let with = arguments(step.action, &step.with, context)?;
    let on = step.on.as_ref().map(|on| on.render(context)).transpose().map_err(Refusal::Template)?;
    let verify = match &step.verify {
        Some(verify) => Some(Proof {
            promql: verify.promql.render(context).map_err(Refusal::Template)?,
            within_ms: verify.within_ms,
        }),
        None => None,
    };
    if step.action == Action::LibvirtEvacuate {
        let host = with.get("host").and_then(Value::as_str).unwrap_or_default().to_owned();
        run.evacuates = Some(host.clone());
        let bandwidth = with.get("bandwidth_mib_s").and_then(Value::as_u64);
        let mut legs = evacuation(&host, on, bandwidth, world).map_err(Refusal::Placement)?;
        for leg in &mut legs {
            leg.timeout_ms = step.timeout_ms;
        }
        if let Some(last) = legs.last_mut() {
            last.verify = verify;
        }
        return Ok(legs);
    }
    let undo = match &step.undo {
        Undo::Never => LegUndo::Never,
        Undo::Restore => LegUndo::Restore,
        Undo::Do(action, with) => {
            LegUndo::Do { action: action.as_str().to_owned(), with: arguments(*action, with, context)? }
        }
    };
    Ok(vec![Leg {
        agent: on.unwrap_or_default(),
        action: step.action.as_str().to_owned(),
        with,
        expect: Map::new(),
        timeout_ms: step.timeout_ms,
        verify,
        undo,
        undoes: None,
        undo_of: None,
        migration: None,
        phase: Phase::Waiting,
        answer: None,
    }])
}

fn arguments(action: Action, with: &[(String, Template)], context: &Value) -> Result<Map<String, Value>, Refusal> {
    let texts: Result<Vec<(String, String)>, Refusal> = with
        .iter()
        .map(|(name, template)| Ok((name.clone(), template.render(context).map_err(Refusal::Template)?)))
        .collect();
    action.check_values(&texts?).map_err(Refusal::Argument)
}

/// One migration per guest of a host, those that matter more first. Each is ordered from the source's agent, with a cap on its
/// bandwidth.
///
/// # Errors
/// What forbids the evacuation.
pub fn evacuation(
    host: &str,
    on: Option<String>,
    bandwidth_mib_s: Option<u64>,
    world: World<'_>,
) -> Result<Vec<Leg>, placement::Refusal> {
    let view = world.fleet.view(host, world.settings, world.now);
    let options = placement::Options { never_move: world.fleet.facts.never_move.clone() };
    let mut moves = plan_evacuation(&view, host, &options)?;
    moves.sort_by_key(|planned| -i64::from(world.fleet.facts.priority(&planned.guest_name)));
    let agent = on.or_else(|| world.fleet.agent_of(host).map(str::to_owned)).unwrap_or_default();
    let bandwidth = bandwidth_mib_s.unwrap_or(u64::from(world.settings.bandwidth_mib_s));
    Ok(moves.into_iter().map(|planned| migration(&agent, host, planned, (bandwidth, world))).collect())
}

fn migration(agent: &str, from: &str, planned: placement::Move, (bandwidth, world): (u64, World<'_>)) -> Leg {
    let mut targets = world.fleet.hypervisors().filter(|(_, host)| host.host == planned.to);
    let uri = targets.next().map_or(String::new(), |(_, host)| host.migration_uri.clone());
    let with = json!({
        "guest_uuid": planned.guest_uuid,
        "destination_host": planned.to,
        "destination_uri": uri,
        "bandwidth_mib_s": bandwidth,
    });
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    Leg {
        agent: agent.to_owned(),
        action: MIGRATE.to_owned(),
        with: object(with),
        expect: object(json!({"state": "running", "name": planned.guest_name})),
        timeout_ms: SEEN_WITHIN_MS,
        verify: Some(Proof { promql: String::new(), within_ms: SEEN_WITHIN_MS }),
        // Guests that moved stay; bringing them back is a run of its own, approved.
        undo: LegUndo::Never,
        undoes: None,
        undo_of: None,
        migration: Some(Migration {
            from: from.to_owned(),
            to: planned.to,
            guest_uuid: planned.guest_uuid,
            guest_name: planned.guest_name,
        }),
        phase: Phase::Waiting,
        answer: None,
    }
}

impl Leg {
    /// How long the leg may take to be proven.
    pub fn within_ms(&self) -> i64 {
        self.verify.as_ref().map_or(SEEN_WITHIN_MS, |proof| proof.within_ms)
    }
}
