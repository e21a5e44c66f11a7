//! Which series identities (job, instance) belong to agents: for them alone the server writes `up` and staleness markers. Kept
//! in `control.db`, because another sender's `up` must not be taken for an agent's after a restart.

use super::control::{ControlError, Migration};
use super::engine::Store;

/// The table of this file in `control.db`.
pub const MIGRATION: Migration = (
    "store-agents-1",
    "CREATE TABLE agent_source (
        job TEXT NOT NULL, instance TEXT NOT NULL, PRIMARY KEY (job, instance)
    ) STRICT, WITHOUT ROWID;",
);

impl Store {
    /// All (job, instance) pairs of agents.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn agent_sources(&self) -> Result<Vec<(String, String)>, ControlError> {
        self.control().read(|connection| {
            let mut statement = connection.prepare("SELECT job, instance FROM agent_source ORDER BY job, instance")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Remembers and forgets agents' (job, instance) pairs.
    ///
    /// # Errors
    /// They cannot be written; nothing is changed.
    pub fn change_agent_sources(
        &self,
        added: &[(String, String)],
        removed: &[(String, String)],
    ) -> Result<(), ControlError> {
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.control().write(|tx| {
            for pair in added {
                tx.execute("INSERT OR IGNORE INTO agent_source (job, instance) VALUES (?1, ?2)", (&pair.0, &pair.1))?;
            }
            for pair in removed {
                tx.execute("DELETE FROM agent_source WHERE job = ?1 AND instance = ?2", (&pair.0, &pair.1))?;
            }
            Ok(())
        })
    }
}
