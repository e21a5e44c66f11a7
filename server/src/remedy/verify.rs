//! Verification: what the drivers themselves show after a leg ended, by inventories taken after it. The agent's «done» is a claim;
//! this is the proof. An inventory from before the end of the leg proves nothing.

use petrel_agent::stream::protocol::{BalancerServer, Hypervisor};
use serde_json::Value;

use super::action::MIGRATE;
use super::fleet::{Fleet, Seen};
use super::run::{Leg, Phase};

/// Whether a server of a balancer takes new sessions.
pub fn takes_sessions(line: &BalancerServer) -> bool {
    (line.status.starts_with("UP") || line.status.starts_with("no check")) && line.weight > 0
}

/// Whether the inventories show that the leg did what it should.
///
/// # Errors
/// What is not yet seen, in words.
pub fn platform(leg: &Leg, fleet: &Fleet) -> Result<(), String> {
    if leg.action == MIGRATE { migrated(leg, fleet) } else { balanced(leg, fleet) }
}

/// The inventory of an agent, if it was taken after the leg ended. The agent that did it is judged by its own clock, others by
/// when their word came.
fn after<'a>(leg: &Leg, fleet: &'a Fleet, agent: &str) -> Result<&'a Seen, String> {
    let (Some(answer), Phase::Verifying { since, .. }) = (&leg.answer, &leg.phase) else {
        return Err("the step has not ended".to_owned());
    };
    let seen = fleet.inventories.get(agent);
    let fresh = seen
        .filter(|seen| if agent == leg.agent { seen.inventory.seen_at > answer.at } else { seen.received_at > *since });
    fresh.ok_or_else(|| format!("agent {agent} has not looked since"))
}

fn balanced(leg: &Leg, fleet: &Fleet) -> Result<(), String> {
    let seen = after(leg, fleet, &leg.agent)?;
    let text = |name: &str| leg.with.get(name).and_then(Value::as_str).unwrap_or_default();
    let (backend, server) = (text("backend"), text("server"));
    let line = seen.inventory.balancer_servers.iter().find(|line| line.backend == backend && line.server == server);
    let line = line.ok_or_else(|| format!("{backend}/{server} is gone from the balancer"))?;
    let out = line.status.starts_with("DRAIN") || line.status.starts_with("MAINT");
    let shown = || format!("{backend}/{server} shows {} with weight {}", line.status, line.weight);
    let as_wanted = match (leg.action.as_str(), &leg.undo_of) {
        ("haproxy.set_weight", Some(answer)) => same_weight(answer.before.get("weight"), line.weight),
        ("haproxy.set_weight", None) => same_weight(leg.with.get("weight"), line.weight),
        ("haproxy.drain", None) => !takes_sessions(line),
        // Restoring either of the others brings back the state from before, which is «in» unless it was out already.
        (_, Some(answer)) => {
            let before = answer.before.get("state").and_then(Value::as_str).unwrap_or("ready");
            out == (before != "ready")
        }
        (_, None) => !out,
    };
    if as_wanted { Ok(()) } else { Err(shown()) }
}

fn same_weight(wanted: Option<&Value>, weight: u32) -> bool {
    wanted.and_then(Value::as_u64).is_none_or(|wanted| wanted == u64::from(weight))
}

fn migrated(leg: &Leg, fleet: &Fleet) -> Result<(), String> {
    let Some(migration) = &leg.migration else { return Err("the step names no migration".to_owned()) };
    let runs_on = |host: &str| -> Result<bool, String> {
        let agent = fleet.agent_of(host).ok_or_else(|| format!("no agent speaks for {host}"))?;
        let seen = after(leg, fleet, agent)?;
        let hypervisor: Option<&Hypervisor> = seen.inventory.hypervisors.iter().find(|seen| seen.host == host);
        let guests = hypervisor.map(|hypervisor| hypervisor.guests.iter());
        Ok(guests.into_iter().flatten().any(|guest| guest.uuid == migration.guest_uuid && guest.state == "running"))
    };
    let name = &migration.guest_name;
    if !runs_on(&migration.to)? {
        return Err(format!("guest {name} is not seen running on {}", migration.to));
    }
    if runs_on(&migration.from)? {
        return Err(format!("guest {name} is still seen running on {}", migration.from));
    }
    Ok(())
}
