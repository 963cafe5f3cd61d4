//! What runs beside a backend's consumer: tasks that end when it ends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// See the module.
#[derive(Debug)]
pub(crate) struct Companions {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    panicked: Arc<AtomicBool>,
}

impl Companions {
    pub(crate) fn new() -> Self {
        Self {
            tasks: Vec::new(),
            stop: watch::Sender::new(false),
            panicked: Arc::default(),
        }
    }

    /// Changes when they are to end.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Starts one; it ends by itself when [`Companions::stopped`] changes.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let panicked = Arc::clone(&self.panicked);
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = tokio::spawn(task).await {
                tracing::error!(%error, "a task of the backend ended badly");
                panicked.store(true, Ordering::Relaxed);
            }
        }));
    }

    /// That one of them panicked, in a sentence: the backend is not whole any more.
    pub(crate) fn problem(&self) -> Option<String> {
        let has = self.panicked.load(Ordering::Relaxed);
        has.then(|| "a task beside the consumer panicked; the log says where".to_owned())
    }

    /// Tells them to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until they have ended.
    pub(crate) async fn ended(self) {
        for task in self.tasks {
            // What it died of has been said.
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_that_panicked_is_a_problem_and_one_that_is_done_is_none() {
        let mut companions = Companions::new();
        let mut stopped = companions.stopped();
        companions.spawn(async {});
        companions.spawn(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        while !companions.tasks[0].is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(companions.problem(), None);
        companions.spawn(async { panic!("a trap of this test") });
        let said = async {
            while companions.problem().is_none() {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, said)
            .await
            .expect("it is said");
        companions.stop();
        let ended = tokio::time::timeout(patience, companions.ended());
        ended.await.expect("the others end");
    }
}
