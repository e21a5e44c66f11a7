//! The spool as async code uses it: each call runs on a blocking thread, so that a slow disk holds up nobody else, and
//! whoever waits for a batch is woken when one came. Decides nothing.

use std::sync::{Arc, Mutex, PoisonError};

use petrel_models::Timestamp;
use tokio::sync::Notify;

use super::{AppendError, Frozen, Spool};
use crate::rounds::blocking;
use crate::stream::protocol::Class;

/// One spool, shared by those who fill and those who empty it. Cheap to clone.
#[derive(Clone)]
pub struct SharedSpool {
    spool: Arc<Mutex<Spool>>,
    arrived: Arc<[Notify; 3]>,
}

impl SharedSpool {
    /// Shares a spool.
    pub fn new(spool: Spool) -> SharedSpool {
        SharedSpool { spool: Arc::new(Mutex::new(spool)), arrived: Arc::default() }
    }

    /// Runs `body` with the spool to itself, on a blocking thread.
    pub async fn with<T: Send + 'static>(&self, body: impl FnOnce(&mut Spool) -> T + Send + 'static) -> T {
        let spool = Arc::clone(&self.spool);
        // A call that panicked changed its files before its lists or the other way round; both are checked when read.
        let call = move || body(&mut spool.lock().unwrap_or_else(PoisonError::into_inner));
        blocking(call).await
    }

    /// [`Spool::append`], and wakes who waits for the class.
    ///
    /// # Errors
    /// The batch was not kept.
    pub async fn append(&self, class: Class, frozen: Owned, now: Timestamp) -> Result<u64, AppendError> {
        let kept = self
            .with(move |spool| {
                let Owned { records, state, body } = &frozen;
                spool.append(class, &Frozen { records: *records, state, body }, now)
            })
            .await;
        self.arrived[super::index(class)].notify_one();
        kept
    }

    /// Returns once a batch of this class was appended after the last return.
    pub async fn arrived(&self, class: Class) {
        self.arrived[super::index(class)].notified().await;
    }
}

/// [`Frozen`], owned.
#[derive(Debug, Clone, Default)]
pub struct Owned {
    /// Samples, log records or answers in `body`.
    pub records: u32,
    /// Where the reader of the source stands once this batch is kept.
    pub state: Vec<u8>,
    /// The request body as it will be sent.
    pub body: Vec<u8>,
}
