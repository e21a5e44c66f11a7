//! What `petrel check` says of one file. The kind of a file is told from its keys, not from its name.

use std::path::Path;

use petrel_agent::yaml::Problem;
use serde::Deserialize;

use super::{Config, Overrides};
use crate::rules;

/// The keys of a file's top level, whatever else is in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TopLevel {
    groups: Option<serde::de::IgnoredAny>,
    runbook: Option<serde::de::IgnoredAny>,
    servers: Option<serde::de::IgnoredAny>,
    clusters: Option<serde::de::IgnoredAny>,
    domains: Option<serde::de::IgnoredAny>,
    never_move: Option<serde::de::IgnoredAny>,
    priorities: Option<serde::de::IgnoredAny>,
}

/// Everything that is wrong with a file of rules, runbooks or fleet facts, an agent's config or the server's, one line each.
pub fn lint(path: &Path) -> Vec<String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![Problem::new(path, format!("cannot be read: {error}")).to_string()],
    };
    // Several documents are runbooks; nothing else may have more than one.
    let documents: Vec<TopLevel> = serde_saphyr::from_multiple(&text).unwrap_or_default();
    let several = documents.len() > 1;
    let top = documents.into_iter().next().unwrap_or_default();
    let is_fleet =
        top.clusters.is_some() || top.domains.is_some() || top.never_move.is_some() || top.priorities.is_some();
    if top.groups.is_some() {
        rules::check(path, &text).iter().map(|finding| format!("{}:{finding}", path.display())).collect()
    } else if top.runbook.is_some() || several {
        let found = crate::remedy::load::load(&[(path.to_owned(), text)]).err().into_iter().flatten();
        found
            .map(|problem| Problem { path: problem.file, at: problem.place, message: problem.message }.to_string())
            .collect()
    } else if top.servers.is_some() {
        petrel_agent::config::Config::parse(path, &text).err().iter().map(Problem::to_string).collect()
    } else if is_fleet {
        super::read_facts(Some(path)).err().iter().map(Problem::to_string).collect()
    } else {
        Config::read(Some(path), Overrides::default())
            .err()
            .into_iter()
            .flatten()
            .map(|problem| problem.to_string())
            .collect()
    }
}
