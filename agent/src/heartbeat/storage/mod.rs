//! Storage heartbeats: each host writes a small record to storage that all share, and reads the others'. Who is alive there is
//! alive, whatever its network says. Only a child process touches the storage; the agent itself never can hang on it. Read on in
//! `watch`; docs/formats/heartbeat.md has the bytes, docs/guide/heartbeats.md is for operators.

mod area;
mod board;
mod child;
mod claim;
mod config;
mod free;
mod record;
mod sightings;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::area::{AreaError, format};
pub use self::board::StorageBoards;
pub use self::child::{ChildError, serve};
pub use self::config::{CheckStorageError, RawStoragePath, StoragePath};
pub use self::free::{FreeSlotError, free};
pub use self::record::{Header, hostile};
use self::watch::Watch;
use super::Identity;
use crate::clock::Clock;

pub(super) use self::config::check;

/// The agent's own program, also when the file was replaced by a newer one in the meantime.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The thread that watches over all areas.
pub struct StorageHeartbeats {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    boards: StorageBoards,
}

impl StorageHeartbeats {
    /// Starts beating in all areas; does nothing where there are none. `state_dir` is on a local disk.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        paths: Vec<StoragePath>,
        identity: &Identity,
        clock: &Clock,
        state_dir: &Path,
    ) -> io::Result<StorageHeartbeats> {
        let (stop, boards) = (CancellationToken::new(), StorageBoards::new(&paths, Instant::now()));
        if paths.is_empty() {
            return Ok(StorageHeartbeats { stop, thread: None, boards });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let watches: Vec<Watch> = paths
            .into_iter()
            .enumerate()
            .map(|(place, path)| Watch {
                place,
                lock: lock_of(state_dir, &path.path),
                path,
                identity: identity.clone(),
                clock: clock.clone(),
                boards: boards.clone(),
                program: PathBuf::from(OWN_PROGRAM),
                number: identity.first_seq,
                told: None,
            })
            .collect();
        let token = stop.clone();
        let body = move || {
            runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                for watch in watches {
                    running.spawn(watch.run(token.clone()));
                }
                while running.join_next().await.is_some() {}
            });
        };
        let thread = std::thread::Builder::new().name("storage-beat".to_owned()).spawn(body)?;
        Ok(StorageHeartbeats { stop, thread: Some(thread), boards })
    }

    /// What is to be told as metrics.
    pub fn boards(&self) -> StorageBoards {
        self.boards.clone()
    }

    /// Says goodbye where the storage answers at once, and ends the thread. Children that hang are left behind.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                warn!("thread of storage heartbeats ended badly");
            }
        }
    }
}

/// Whoever drops the agent without `stop`, as a crash would, gets no goodbye, but no thread that beats on either.
impl Drop for StorageHeartbeats {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The file that the child of an area locks, named by the area's path.
fn lock_of(state_dir: &Path, path: &Path) -> PathBuf {
    state_dir.join(format!("storage-heartbeat-{:08x}.lock", crc32c::crc32c(path.as_os_str().as_encoded_bytes())))
}
