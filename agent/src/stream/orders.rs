//! Orders in and answers out. Orders are handed on exactly as received, one at a time and only when somebody is free to take
//! them, so that none grows old in a queue here. Answers go to the spool and are synced; none is ever dropped.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::client::{Client, RequestError};
use super::delivery::{Delivery, Next, Reply};
use super::protocol::{Class, InventoryAnswer, Order, OrderAnswer};
use crate::clock::Clock;
use crate::drive::InventoryHandle;
use crate::error_chain::chain;
use crate::spool::{Owned, SharedSpool};

/// Wait before it is looked again whether answers have left, or before a write to a failing disk is tried again.
const SPOOL_WAIT: Duration = Duration::from_secs(1);

/// Least time between two requests for orders when there are none.
const ORDERS_EVERY_MIN: Duration = Duration::from_secs(1);
/// Time between two inventories; the server treats one that is much older as none.
const INVENTORY_EVERY: Duration = Duration::from_secs(10);
/// A server that asks for the dirty rate of guests is followed for so long at most; it asks again with each inventory.
const MEASURE_DIRTY_RATE_MAX: Duration = Duration::from_secs(600);

/// Asks for orders and hands them on until told to stop, or until nobody takes them.
pub async fn pull(
    client: Arc<Client>,
    spool: SharedSpool,
    orders: mpsc::Sender<Order>,
    rng: StdRng,
    stop: CancellationToken,
) {
    let mut backoff = Delivery::new(rng);
    let mut failing = false;
    loop {
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = pull_once(&client, &spool, &orders) => round,
        };
        let error = match round {
            Ok(true) => {
                backoff.step(&Reply::Answered { status: 200, retry_after: None });
                failing = false;
                continue;
            }
            Ok(false) => return,
            Err(error) => error,
        };
        if failing {
            debug!(error = chain(&error), "orders cannot be asked for");
        } else {
            warn!(error = chain(&error), "orders cannot be asked for; trying again");
        }
        failing = true;
        let reply = match error {
            RequestError::Unreachable { .. } => Reply::Unreachable,
            // Whatever the status, asking again later is all there is to do; 503 stands for that.
            RequestError::Status { status: 401 | 403, .. } => Reply::Answered { status: 401, retry_after: None },
            RequestError::Status { .. } | RequestError::Malformed { .. } => {
                Reply::Answered { status: 503, retry_after: None }
            }
        };
        if let Next::Retry { after, .. } = backoff.step(&reply) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(after) => {}
            }
        }
    }
}

/// One request. False: nobody takes orders any more.
async fn pull_once(client: &Client, spool: &SharedSpool, orders: &mpsc::Sender<Order>) -> Result<bool, RequestError> {
    while spool.with(|spool| spool.answers_full()).await {
        sleep(SPOOL_WAIT).await;
    }
    // A free place first: an order that was fetched and waits here would start late without anybody noticing.
    let Ok(permit) = orders.reserve().await else { return Ok(false) };
    drop(permit);
    let asked = Instant::now();
    let fetched = client.orders().await?;
    if fetched.is_empty() && asked.elapsed() < ORDERS_EVERY_MIN {
        // A server that does not hold the request would otherwise be asked without pause.
        sleep(ORDERS_EVERY_MIN).await;
    }
    for order in fetched {
        if orders.send(order).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends what the drivers see every ten seconds, and at once after each answer, until told to stop.
pub async fn tell_inventory(
    client: Arc<Client>,
    inventory: InventoryHandle,
    acted: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        let seen = tokio::select! {
            () = stop.cancelled() => return,
            seen = inventory.read() => seen,
        };
        let sent = tokio::select! {
            () = stop.cancelled() => return,
            sent = client.send_inventory(&seen) => sent,
        };
        let failed = sent.is_err();
        match sent {
            Err(error) if !failing => warn!(error = chain(&error), "inventory cannot be sent; trying again"),
            Err(error) => debug!(error = chain(&error), "inventory cannot be sent"),
            Ok(InventoryAnswer { measure_dirty_rate_ms: Some(ms) }) => {
                inventory.measure_dirty_rate(Duration::from_millis(ms).min(MEASURE_DIRTY_RATE_MAX));
            }
            Ok(InventoryAnswer { measure_dirty_rate_ms: None }) => {}
        }
        failing = failed;
        tokio::select! {
            () = stop.cancelled() => return,
            () = acted.notified() => {}
            () = sleep(INVENTORY_EVERY) => {}
        }
    }
}

/// Spools answers until whoever makes them is gone; wakes `acted` after each, so that the inventory is sent afresh.
pub async fn keep_answers(
    mut answers: mpsc::Receiver<OrderAnswer>,
    spool: SharedSpool,
    acted: Arc<Notify>,
    clock: Clock,
) {
    while let Some(answer) = answers.recv().await {
        let body = serde_json::to_vec(&[&answer]).expect("an answer has string keys only");
        let frozen = Owned { records: 1, state: Vec::new(), body };
        while let Err(error) = spool.append(Class::Answers, frozen.clone(), clock()).await {
            error!(
                run = answer.key.run,
                step = answer.key.step,
                error = chain(&error),
                "answer cannot be kept; trying again"
            );
            sleep(SPOOL_WAIT).await;
        }
        acted.notify_one();
    }
}
