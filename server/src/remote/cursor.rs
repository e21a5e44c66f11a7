//! How far the journals were sent, in `control.db`. It moves only after the remote engine took what lies before it, so that a crash
//! sends some samples twice and never leaves one out.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use crate::series::Timestamp;
use crate::store::backlog::Position;
use crate::store::control::{Control, ControlError, Migration};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[(
    "remote-1",
    "CREATE TABLE remote_cursor (
        one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL, since INTEGER NOT NULL
    ) STRICT;",
)];

/// The cursor.
pub struct Cursor {
    control: Arc<Control>,
    /// The last record that was sent; `None` where none ever was.
    pub position: Option<Position>,
    /// When the remote engine was first switched on, where the data folder was new then; else 0.
    pub since: Timestamp,
}

impl Cursor {
    /// Reads it, or begins with `since`.
    ///
    /// # Errors
    /// The database fails.
    pub fn open(control: Arc<Control>, since: Timestamp) -> Result<Cursor, ControlError> {
        let row = control.read(|connection| {
            connection
                .query_row("SELECT position, since FROM remote_cursor", [], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()
        })?;
        let Some((position, since)) = row else {
            control.write(|tx| {
                tx.execute("INSERT INTO remote_cursor (one, position, since) VALUES (1, 0, ?1)", [since])
            })?;
            return Ok(Cursor { control, position: None, since });
        };
        Ok(Cursor { control, position: (position > 0).then_some(position as u64), since })
    }

    /// Moves it, synced to disk.
    ///
    /// # Errors
    /// The database fails; then it stays.
    pub fn advance(&mut self, position: Position) -> Result<(), ControlError> {
        if self.position == Some(position) {
            return Ok(());
        }
        self.control
            .write(|tx| tx.execute("UPDATE remote_cursor SET position = ?1 WHERE one = 1", params![position as i64]))?;
        self.position = Some(position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| {
            let control = Control::open(&dir.path().join("control.db"), MIGRATIONS).unwrap();
            Cursor::open(Arc::new(control), now).unwrap()
        };
        let mut cursor = open(1_000);
        assert_eq!((cursor.position, cursor.since), (None, 1_000));
        cursor.advance(7 << 32 | 3).unwrap();
        drop(cursor);
        let cursor = open(2_000);
        assert_eq!((cursor.position, cursor.since), (Some(7 << 32 | 3), 1_000));
    }
}
