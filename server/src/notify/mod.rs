//! Notify: alerts grouped into notices, sent from a durable queue by webhook and mail.
//!
//! `group` decides (pure) who is told what and when, `queue` makes it durable in the same transaction as the state of the
//! groups, and one worker for each receiver sends what is due (`sender`, over `webhook` and `smtp`). At least once: a notice
//! that was in flight at a crash goes out again under the same id, which is its Message-ID and its Idempotency-Key.

pub mod config;
pub mod group;
pub mod mail;
pub mod queue;
pub mod route;
pub mod sender;
pub mod smtp;
pub mod webhook;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decide::alert::Alert;
use crate::series::Timestamp;
use crate::store::control::{Control, ControlError};
use crate::telemetry;

pub use config::{NotifyConfig, NotifyConfigError, RawNotifyConfig};
pub use group::Notice;
pub use queue::MIGRATIONS;

use group::{Effect, Grouping};

/// Groups alerts and sends notices.
pub struct Notifier {
    control: Arc<Control>,
    config: NotifyConfig,
    /// `None` after a failed write: what is durable must be read again first.
    grouping: Mutex<Option<Grouping>>,
    /// Wakes the worker of each receiver.
    wakers: HashMap<String, tokio::sync::Notify>,
    seed: u64,
}

impl Notifier {
    /// Reads back groups and queue. What waits for receivers that are no longer configured is dropped and counted.
    ///
    /// # Errors
    /// The control database cannot be read or written.
    pub fn open(control: Arc<Control>, config: NotifyConfig, seed: u64) -> Result<Arc<Notifier>, ControlError> {
        let names: Vec<String> = config.receivers.iter().map(|receiver| receiver.name.clone()).collect();
        for (receiver, count) in queue::keep_only(&control, &names)? {
            telemetry::NOTICES.with_label_values(&[receiver.as_str(), "dropped"]).inc_by(count.unsigned_abs());
            tracing::warn!(receiver, count, "notices dropped: the receiver is no longer configured");
        }
        let grouping = Mutex::new(Some(Grouping::restored(queue::groups(&control)?)));
        let wakers = names.into_iter().map(|name| (name, tokio::sync::Notify::new())).collect();
        Ok(Arc::new(Notifier { control, config, grouping, wakers, seed }))
    }

    /// Takes in all alerts as they are `now`: those that fire, and those resolved a short while ago. Call it after every
    /// tick of the rules and at least every few seconds; calling it twice changes nothing. Blocks on the control database.
    ///
    /// # Errors
    /// The control database failed. Nothing is lost: the next call starts from what is durable.
    pub fn observe(&self, alerts: &[Alert], now: Timestamp) -> Result<(), ControlError> {
        if self.config.routes.is_empty() {
            return Ok(());
        }
        let mut grouping = self.grouping();
        let mut current = match grouping.take() {
            Some(current) => current,
            None => Grouping::restored(queue::groups(&self.control)?),
        };
        let effects = current.observe(&self.config, alerts, now);
        if !effects.is_empty() {
            let dropped = queue::apply(&self.control, &effects)?;
            for receiver in dropped {
                telemetry::NOTICES.with_label_values(&[receiver.as_str(), "dropped"]).inc();
                tracing::error!(receiver, "notice dropped: the receiver's queue is full");
            }
        }
        *grouping = Some(current);
        drop(grouping);
        for effect in &effects {
            if let Effect::Enqueue(notice) = effect {
                tracing::info!(
                    receiver = notice.receiver,
                    notice = notice.id,
                    alerts = notice.alerts.len(),
                    status = notice.status(),
                    "notice queued"
                );
                if let Some(waker) = self.wakers.get(&notice.receiver) {
                    waker.notify_one();
                }
            }
        }
        Ok(())
    }

    fn grouping(&self) -> MutexGuard<'_, Option<Grouping>> {
        self.grouping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
