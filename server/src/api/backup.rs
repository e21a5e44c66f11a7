//! `GET /petrel/v1/admin/backup`: a backup of everything as one stream, while the server works. One at a time.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use petrel_agent::error_chain::chain;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::Clock;
use crate::store::{BackupError, Store};

/// Says about how many bytes will come.
pub const HEADER_BYTES: &str = "petrel-backup-bytes";

/// Bytes passed on at once.
const PART_BYTES: usize = 256 << 10;
/// Parts that may wait for a slow reader: 2 MiB.
const PARTS_MAX: usize = 8;
/// A reader that takes nothing for so long is gone; a backup holds a snapshot, which keeps a file's log from being folded in.
const READER_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Backups {
    store: Arc<Store>,
    clock: Clock,
    turn: Arc<Semaphore>,
}

/// The route.
pub fn router(store: Arc<Store>, clock: Clock) -> Router {
    let state = Backups { store, clock, turn: Arc::new(Semaphore::new(1)) };
    Router::new().route("/petrel/v1/admin/backup", get(backup)).with_state(state)
}

async fn backup(State(backups): State<Backups>) -> Response {
    let Ok(turn) = Arc::clone(&backups.turn).try_acquire_owned() else {
        let error = "another backup is being taken; wait until it is done";
        return (StatusCode::CONFLICT, Json(serde_json::json!({ "error": error }))).into_response();
    };
    let now = (backups.clock)();
    let bytes = backups.store.backup_bytes();
    let (sender, receiver) = mpsc::channel(PARTS_MAX);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = Parts { sender, part: Vec::with_capacity(PART_BYTES), runtime };
        match backups.store.backup(now, &mut out) {
            Ok(()) => tracing::info!(bytes, "a backup was taken"),
            Err(error) => out.broke(&error),
        }
        drop(turn);
    });
    let parts = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|part: io::Result<Bytes>| (part, receiver))
    });
    let headers = [(header::CONTENT_TYPE.as_str(), "application/x-tar".to_owned()), (HEADER_BYTES, bytes.to_string())];
    (headers, Body::from_stream(parts)).into_response()
}

/// Passes what is written on to the response.
struct Parts {
    sender: mpsc::Sender<io::Result<Bytes>>,
    part: Vec<u8>,
    runtime: Handle,
}

impl Parts {
    fn pass(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
        let sent = async { tokio::time::timeout(READER_PATIENCE, self.sender.send(Ok(Bytes::from(part)))).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "who asked for the backup left")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "who asked for the backup takes nothing any more")),
        }
    }

    /// Tells the reader by cutting the response off: what it has is no backup.
    fn broke(&self, error: &BackupError) {
        tracing::warn!(error = chain(error), "a backup broke off");
        // A reader that is gone, or one that is behind, sees the end of the stream without its checksums.
        let _ = self.sender.try_send(Err(io::Error::other(chain(error))));
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART_BYTES {
            self.pass()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() { Ok(()) } else { self.pass() }
    }
}
