//! The guards that no runbook can leave out: operators' words, freshness, budgets, what carries Petrel. Pure checks over what is
//! known now; refusing is always safe. PromQL guards are the runbook's own and are judged beside these.

use std::collections::BTreeMap;

use petrel_models::placement;

use super::action::MIGRATE;
use super::fleet::{Duty, Fleet};
use super::run::{Leg, Phase, Run, RunId, State};
use super::runbook::Mode;
use super::settings::Settings;
use crate::series::Timestamp;

/// Runs that wait for a person, at most: more than anybody reads.
const APPROVALS_MAX: usize = 100;
/// Agents whose silence at once says that we are blind (DESIGN section 6, 6); so does a tenth of them.
const SILENT_MAX: usize = 3;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What guards look at.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// All other runs.
    pub others: &'a BTreeMap<RunId, Run>,
    /// Budgets and times.
    pub settings: &'a Settings,
    /// Whether everything is held.
    pub held: bool,
    /// When this server started.
    pub started_at: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// Why nothing is done. The texts carry nothing that changes by itself, so that the same refusal reads the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each one is, and its fields are what they name")]
pub enum Refusal {
    #[error("everything is held; release it with `petrel hold off` when it is safe")]
    Held,
    #[error("host {host} is {} (by {by}); only operators lift that: `petrel hosts duty {host} active`", duty.as_str())]
    OnDuty { host: String, duty: Duty, by: String },
    #[error("the server has just started and has not yet heard of all agents")]
    Settling,
    #[error("there is no inventory of agent {agent}; is it running, and is its driver enabled?")]
    NoInventory { agent: String },
    #[error("no agent tells of host {host}; is its agent running?")]
    Unseen { host: String },
    #[error("the inventory of agent {agent} is stale")]
    Stale { agent: String },
    #[error("{silent} of {known} agents are silent at once: suspecting our own sight, not the hosts")]
    Blind { silent: usize, known: usize },
    #[error("agent {agent} cannot read {driver}: {reason}")]
    DriverBlind { agent: String, driver: String, reason: String },
    #[error("agent {agent} is held by its own hold file")]
    AgentHeld { agent: String },
    #[error("agent {agent} does not allow {action}; allow it in that host's own config")]
    NotAllowed { agent: String, action: String },
    #[error("host {host} carries Petrel itself")]
    CarriesPetrel { host: String },
    #[error("the runbook acted on {subject} less than its cooldown ago, in run {run}")]
    Cooldown { subject: String, run: RunId },
    #[error("run {run} is already at work on {subject}")]
    SubjectBusy { subject: String, run: RunId },
    #[error("{most} runs are already at work, the most that are allowed at once")]
    TooManyRuns { most: u32 },
    #[error("{APPROVALS_MAX} runs already wait for a person")]
    TooManyApprovals,
    #[error("run {run} is already evacuating a host of the same cluster, {host}")]
    ClusterBusy { run: RunId, host: String },
    #[error("{most} automatic evacuations were done within a day, the most that are allowed")]
    EvacuationBudget { most: u32 },
    #[error("a migration from {host} is already in flight")]
    SourceBusy { host: String },
    #[error("{most} migrations into {host} are already in flight")]
    TargetBusy { host: String, most: u32 },
    #[error("agent {agent} sees no server {server} in backend {backend}")]
    NoSuchServer { agent: String, backend: String, server: String },
    #[error("{server} is the last server of backend {backend} that takes sessions")]
    LastServer { backend: String, server: String },
    #[error("{0}")]
    Placement(placement::Refusal),
    #[error("the alert names no host, so its history cannot be judged; set `min_history: 0s` if that is meant")]
    NoHistoryKnown,
    #[error("there is nothing to do: {host} runs no guest")]
    NothingToDo { host: String },
    #[error("{0}")]
    Template(super::template::TemplateError),
    #[error("{0}")]
    Argument(super::action::ArgumentError),
}

impl Refusal {
    /// Whether waiting may help; a run in progress waits for a while, then stops.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Refusal::Held
                | Refusal::Settling
                | Refusal::NoInventory { .. }
                | Refusal::Unseen { .. }
                | Refusal::Stale { .. }
                | Refusal::Blind { .. }
                | Refusal::DriverBlind { .. }
                | Refusal::AgentHeld { .. }
                | Refusal::TooManyRuns { .. }
                | Refusal::ClusterBusy { .. }
                | Refusal::SourceBusy { .. }
                | Refusal::TargetBusy { .. }
        )
    }
}

/// What stands against a fresh plan.
///
/// # Errors
/// The first [`Refusal`].
pub fn at_planning(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    if world.held && run.mode != Mode::Shadow {
        return Err(Refusal::Held);
    }
    if run.policy.min_history_ms > 0 && host(run).is_none() {
        return Err(Refusal::NoHistoryKnown);
    }
    subject_is_free(world, run)?;
    let waiting = world.others.values().filter(|other| matches!(other.state, State::AwaitingApproval { .. })).count();
    if run.mode == Mode::Approve && waiting >= APPROVALS_MAX {
        return Err(Refusal::TooManyApprovals);
    }
    evacuation_budget(world, run)?;
    // A plan is refused for the first thing that would stop it, so that shadow says what auto would have said.
    before_leg(world, run, 0)
}

/// What stands against ordering a leg now.
///
/// # Errors
/// The first [`Refusal`].
pub fn before_leg(world: World<'_>, run: &Run, number: usize) -> Result<(), Refusal> {
    if world.held && run.mode != Mode::Shadow {
        return Err(Refusal::Held);
    }
    if world.now - world.started_at < world.settings.settle_ms {
        return Err(Refusal::Settling);
    }
    duties_allow(world, run)?;
    sight(world)?;
    carries_petrel(world, run)?;
    if !run.has_acted() {
        concurrency(world, run)?;
    }
    let Some(leg) = run.legs.get(number) else { return Ok(()) };
    agent_allows(world, leg)?;
    if leg.action == MIGRATE { migration(world, run, number) } else { balancer(world, leg) }
}

/// Whether operators' words allow an order to leave at this moment: the last look before it is handed out.
///
/// # Errors
/// The word that forbids it.
pub fn operators_word(world: World<'_>, run: &Run, number: usize) -> Result<(), Refusal> {
    if world.held {
        return Err(Refusal::Held);
    }
    duties_allow(world, run)?;
    let Some(migration) = run.legs.get(number).and_then(|leg| leg.migration.as_ref()) else { return Ok(()) };
    if let Some(note) = world.fleet.duty(&migration.to) {
        return Err(Refusal::OnDuty { host: migration.to.clone(), duty: note.duty, by: note.by.clone() });
    }
    stays(world, run, number)
}

/// Facts may have changed since the plan was made: a guest that is to stay stays.
fn stays(world: World<'_>, run: &Run, number: usize) -> Result<(), Refusal> {
    let never = &world.fleet.facts.never_move;
    let moves = run.legs[number..].iter().filter_map(|leg| leg.migration.as_ref());
    let staying: Vec<&super::run::Migration> =
        moves.filter(|guest| never.contains(&guest.guest_name) || never.contains(&guest.guest_uuid)).collect();
    let Some(first) = staying.first() else { return Ok(()) };
    let guests = staying.iter().map(|guest| format!("{} (never_move)", guest.guest_name)).collect();
    Err(Refusal::Placement(placement::Refusal::Obstacles { host: first.from.clone(), guests }))
}

/// The host that a run is about, if it is about one.
pub fn host(run: &Run) -> Option<&str> {
    run.evacuates.as_deref().or_else(|| run.subject.strip_prefix("host:"))
}

fn duties_allow(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    let Some(host) = host(run) else { return Ok(()) };
    match world.fleet.duty(host) {
        // An evacuation quarantines its source itself.
        Some(note) if note.by != format!("run {}", run.id) && note.duty != Duty::Active => {
            Err(Refusal::OnDuty { host: host.to_owned(), duty: note.duty, by: note.by.clone() })
        }
        _ => Ok(()),
    }
}

fn sight(world: World<'_>) -> Result<(), Refusal> {
    let (silent, known) = world.fleet.silent(world.settings, world.now);
    if silent >= SILENT_MAX || (silent > 0 && silent * 10 >= known) {
        return Err(Refusal::Blind { silent, known });
    }
    Ok(())
}

fn carries_petrel(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    match host(run).filter(|host| world.fleet.carries_petrel(host)) {
        Some(host) => Err(Refusal::CarriesPetrel { host: host.to_owned() }),
        None => Ok(()),
    }
}

fn subject_is_free(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    let subject = || run.subject.clone();
    let same = || world.others.values().filter(|other| other.id != run.id && other.subject == run.subject);
    if let Some(busy) = same().find(|other| !other.has_ended() && other.mode != Mode::Shadow) {
        return Err(Refusal::SubjectBusy { subject: subject(), run: busy.id });
    }
    let recent = same().find(|other| {
        let counts = other.outcome().is_some_and(|outcome| outcome != super::run::Outcome::Refused);
        // A shadow did nothing: it only keeps other shadows from repeating it.
        let acted = other.mode != Mode::Shadow || run.mode == Mode::Shadow;
        counts && acted && other.runbook == run.runbook && world.now - other.changed_at < run.policy.cooldown_ms
    });
    recent.map_or(Ok(()), |other| Err(Refusal::Cooldown { subject: subject(), run: other.id }))
}

fn evacuation_budget(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    if run.evacuates.is_none() || run.mode != Mode::Auto {
        return Ok(());
    }
    let most = world.settings.evacuations_per_day;
    let done = world.others.values().filter(|other| {
        let automatic = other.evacuates.is_some() && other.mode == Mode::Auto;
        automatic && (other.has_acted() || !other.has_ended()) && world.now - other.created_at < DAY_MS
    });
    if done.count() >= most as usize { Err(Refusal::EvacuationBudget { most }) } else { Ok(()) }
}

/// Of runs that begin at the same time the older one goes first, so that two never wait for each other.
fn concurrency(world: World<'_>, run: &Run) -> Result<(), Refusal> {
    let ahead =
        || world.others.values().filter(|other| other.is_acting() && (other.is_under_way() || other.id < run.id));
    let most = world.settings.runs_max;
    if ahead().count() >= most as usize {
        return Err(Refusal::TooManyRuns { most });
    }
    let Some(mine) = &run.evacuates else { return Ok(()) };
    let cluster = world.fleet.facts.cluster(mine);
    let busy = ahead().find_map(|other| {
        let host = other.evacuates.as_ref().filter(|host| world.fleet.facts.cluster(host) == cluster)?;
        Some(Refusal::ClusterBusy { run: other.id, host: host.clone() })
    });
    busy.map_or(Ok(()), Err)
}

fn agent_allows(world: World<'_>, leg: &Leg) -> Result<(), Refusal> {
    let agent = || leg.agent.clone();
    let seen = world.fleet.inventories.get(&leg.agent).ok_or_else(|| Refusal::NoInventory { agent: agent() })?;
    if world.now - seen.received_at > world.settings.stale_after_ms {
        return Err(Refusal::Stale { agent: agent() });
    }
    if seen.inventory.hold {
        return Err(Refusal::AgentHeld { agent: agent() });
    }
    if !seen.inventory.allowed.contains(&leg.action) {
        return Err(Refusal::NotAllowed { agent: agent(), action: leg.action.clone() });
    }
    let driver = leg.action.split('.').next().unwrap_or_default();
    match seen.inventory.problems.get(driver) {
        Some(reason) => Err(Refusal::DriverBlind { agent: agent(), driver: driver.to_owned(), reason: reason.clone() }),
        None => Ok(()),
    }
}

fn balancer(world: World<'_>, leg: &Leg) -> Result<(), Refusal> {
    let text = |name: &str| leg.with.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (backend, server) = (text("backend"), text("server"));
    let seen = world.fleet.inventories.get(&leg.agent);
    let line = seen
        .and_then(|seen| {
            seen.inventory.balancer_servers.iter().find(|line| line.backend == backend && line.server == server)
        })
        .ok_or_else(|| Refusal::NoSuchServer {
            agent: leg.agent.clone(),
            backend: backend.clone(),
            server: server.clone(),
        })?;
    let empties = match leg.action.as_str() {
        // Restoring brings back what was; it can take a server out only if it was out before we came.
        _ if leg.undo_of.is_some() => false,
        "haproxy.drain" => true,
        "haproxy.set_weight" => leg.with.get("weight").and_then(serde_json::Value::as_u64) == Some(0),
        _ => false,
    };
    let others = line.backend_active.saturating_sub(u32::from(super::verify::takes_sessions(line)));
    if empties && others == 0 { Err(Refusal::LastServer { backend, server }) } else { Ok(()) }
}

/// A target of which nothing is heard now may be heard of in a moment, after a restart of the server above all.
fn is_seen(world: World<'_>, host: &str) -> Result<(), Refusal> {
    let agent = world.fleet.agent_of(host).ok_or_else(|| Refusal::Unseen { host: host.to_owned() })?;
    let age_ms = world.fleet.age_ms(agent, world.now);
    if age_ms.is_some_and(|age_ms| age_ms > world.settings.stale_after_ms) {
        return Err(Refusal::Stale { agent: agent.to_owned() });
    }
    Ok(())
}

/// The moves that are left must still hold on what is seen now, and no more may be in flight than the budget allows, whoever
/// began them.
fn migration(world: World<'_>, run: &Run, number: usize) -> Result<(), Refusal> {
    let Some(now) = run.legs[number].migration.as_ref() else { return Ok(()) };
    let left: Vec<placement::Move> = run.legs[number..]
        .iter()
        .filter_map(|leg| leg.migration.as_ref())
        .map(|migration| placement::Move {
            guest_uuid: migration.guest_uuid.clone(),
            guest_name: migration.guest_name.clone(),
            to: migration.to.clone(),
        })
        .collect();
    for planned in &left {
        is_seen(world, &planned.to)?;
    }
    stays(world, run, number)?;
    let view = world.fleet.view(&now.from, world.settings, world.now);
    placement::check_moves(&view, &now.from, &left).map_err(Refusal::Placement)?;
    let in_flight = |host: &str| {
        world.fleet.hypervisors().any(|(_, seen)| seen.host == host && seen.guests.iter().any(|guest| guest.migrating))
    };
    let ours = || {
        world.others.values().flat_map(|other| &other.legs).filter_map(|leg| match leg.phase {
            // Of a run that was aborted meanwhile nobody may ever tell the end; its agent breaks it off at its time-out.
            Phase::HandedOut { answer_by, .. } => leg.migration.as_ref().filter(|_| world.now < answer_by),
            Phase::Ordered { .. } | Phase::Verifying { .. } => leg.migration.as_ref(),
            _ => None,
        })
    };
    if in_flight(&now.from) || ours().any(|other| other.from == now.from) {
        return Err(Refusal::SourceBusy { host: now.from.clone() });
    }
    let most = world.settings.migrations_per_target;
    if ours().filter(|other| other.to == now.to).count() >= most as usize {
        return Err(Refusal::TargetBusy { host: now.to.clone(), most });
    }
    Ok(())
}
