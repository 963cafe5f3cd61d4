//! The beginning of a drain: load balancers see that the node is not ready, then its clients are sent away, some at a time.

use std::time::Duration;

use ::broker::admin::{Cursor, Part};
use ::broker::{Drain, Handle};
use tokio::sync::oneshot;

/// Between two times that clients are sent away.
const STEP_MS: u64 = 50;
/// How long a worker may take to answer, before the drain goes on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits and sends away, as `drain` says. What is left is for the drain itself.
pub async fn leave(broker: &Handle, drain: &Drain) {
    let wait = Duration::from_millis(drain.ready_wait_ms);
    if !wait.is_zero() {
        tracing::info!(
            ?wait,
            "the node is not ready any more, and takes clients still"
        );
        tokio::time::sleep(wait).await;
    }
    if drain.spread_ms > 0 {
        spread(broker, drain.spread_ms).await;
    }
}

async fn spread(broker: &Handle, spread_ms: u64) {
    let workers = broker.workers();
    let mut places: Vec<Option<Cursor>> = (0..)
        .take(workers)
        .map(|worker| {
            Some(Cursor {
                worker,
                ..Cursor::default()
            })
        })
        .collect();
    let steps = spread_ms.div_ceil(STEP_MS);
    for step in 0..steps {
        let clients = broker.stats().clients;
        if clients == 0 && step > 0 {
            return;
        }
        // What is left, over the steps that are left.
        let of_worker = clients.div_ceil((steps - step) * workers as u64);
        for place in &mut places {
            let mut left = usize::try_from(of_worker).unwrap_or(usize::MAX);
            while let Some(at) = *place
                && (left > 0 || step == 0)
            {
                let Some(part) = send_away(broker, at, left).await else {
                    return;
                };
                left -= part.found.len();
                *place = part.next.filter(|next| next.worker == at.worker);
                if left == 0 {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(STEP_MS)).await;
    }
}

async fn send_away(broker: &Handle, from: Cursor, max: usize) -> Option<Part<()>> {
    let (answer, answered) = oneshot::channel();
    let then = Box::new(move |part: Part<()>| {
        // The drain may have gone on without it.
        let _ = answer.send(part);
    });
    broker.leave(from, max, then);
    tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
}
