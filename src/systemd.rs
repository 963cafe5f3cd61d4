//! What the process says to systemd (`Type=notify`): that it serves, reads its configuration again, drains, and that it is
//! alive. Where nobody listens (`NOTIFY_SOCKET` is not set) it says nothing.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use crate::node::Node;

/// How much longer the drain may take than it was told last, in microseconds.
const DRAIN_USEC: u32 = 60_000_000;

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// It serves.
pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// It reads its configuration again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

/// It drains.
pub fn stopping() {
    say(&[
        NotifyState::Stopping,
        NotifyState::Status("draining"),
        NotifyState::ExtendTimeoutUsec(DRAIN_USEC),
    ]);
}

/// Says that it is alive, as often as systemd wants to hear it (`WatchdogSec=`), for as long as this runs: as long as each
/// worker of the broker takes its turns.
pub async fn watchdog(node: Arc<Node>, broker: broker::Handle) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut looks = tokio::time::interval(patience / 2);
    loop {
        looks.tick().await;
        // Workers that have drained answer nothing more; how long a drain takes is bounded otherwise.
        if node.is_draining() || all_answer(&broker, patience / 2).await {
            say(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "a worker of the broker takes no turns; systemd is not told that this process is alive"
            );
        }
    }
}

async fn all_answer(broker: &broker::Handle, patience: Duration) -> bool {
    let answers: Vec<_> = (0..broker.workers())
        .map(|worker| {
            let (answer, answered) = oneshot::channel();
            let then = move |()| {
                let _ = answer.send(());
            };
            broker.look(worker, Box::new(then));
            answered
        })
        .collect();
    let all = futures_util::future::join_all(answers);
    tokio::time::timeout(patience, all).await.is_ok()
}
