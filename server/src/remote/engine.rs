//! The remote engine of one server: its thread with a runtime of its own, on which all its requests run, and the sources that others
//! read through.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::client::{Client, ClientError};
use super::config::RemoteConfig;
use super::cursor::Cursor;
use super::forward::Forwarder;
use super::reader::Reader;
use super::source::{Bounds, Merged};
use crate::clock::Clock;
use crate::query::source::Source;
use crate::store::Store;
use crate::store::control::ControlError;

/// How long a read of a journal may hold up the end of the runtime.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Why the remote engine could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenRemoteError {
    /// Its client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// How far it was sent to.
    #[error(transparent)]
    Cursor(#[from] ControlError),
    /// Its thread.
    #[error("thread of the remote engine cannot be started")]
    Thread(#[source] std::io::Error),
}

/// What others need of it.
pub struct RemoteEngine {
    store: Arc<Store>,
    reader: Option<Arc<Reader>>,
    bounds: Bounds,
}

impl RemoteEngine {
    /// Starts the thread that sends and asks, until `cancel`. Call it before the store's first maintenance, which would unlink
    /// journals that are not sent yet. Join the thread.
    ///
    /// # Errors
    /// It cannot be set up; nothing runs then.
    pub fn start(
        config: &RemoteConfig,
        store: Arc<Store>,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Result<(RemoteEngine, JoinHandle<()>), OpenRemoteError> {
        let client = Arc::new(Client::new(config)?);
        // A store that has samples already has all that came before; one that is new may replace one that is lost.
        let since = if store.stats().series == 0 { clock() } else { 0 };
        let cursor = Cursor::open(Arc::clone(store.control()), since)?;
        let kept = Arc::clone(&store);
        let kept_from = Arc::new(move || kept.kept_from(clock()));
        let bounds = Bounds { kept_from, since: cursor.since, read_recent: config.read_recent };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OpenRemoteError::Thread)?;
        let reader = Reader::new(config, Arc::clone(&client), runtime.handle().clone()).map(Arc::new);
        let forwarder = Forwarder::new(config, client, &store, cursor);
        let thread = std::thread::Builder::new().name("remote".to_owned()).spawn(move || {
            runtime.block_on(async {
                match forwarder {
                    Some(forwarder) => forwarder.run(&cancel).await,
                    None => cancel.cancelled().await,
                }
            });
            // Requests that are under way end with it, and their callers are told.
            runtime.shutdown_timeout(END_TIMEOUT);
        });
        Ok((RemoteEngine { store, reader, bounds }, thread.map_err(OpenRemoteError::Thread)?))
    }

    /// For people: where the remote engine is away the answer says so.
    pub fn source(&self) -> Arc<dyn Source> {
        self.merged(false)
    }

    /// For rules and guards: where the remote engine is needed and away, there is no answer.
    pub fn strict_source(&self) -> Arc<dyn Source> {
        self.merged(true)
    }

    fn merged(&self, is_strict: bool) -> Arc<dyn Source> {
        let local: Arc<dyn Source> = self.store.clone();
        match &self.reader {
            None => local,
            Some(reader) => Arc::new(Merged { local, remote: reader.clone(), bounds: self.bounds.clone(), is_strict }),
        }
    }
}
