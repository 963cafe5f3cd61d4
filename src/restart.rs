//! A backend that stopped by itself is started again, less and less often, and the rest of the process goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backends::Kind;
use crate::config::Config;
use crate::node::Node;

/// How often it is looked at whether a backend has stopped by itself.
const LOOK: Duration = Duration::from_millis(250);
/// The pause before the first attempt; it doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so long at work the pauses begin anew.
const STEADY: Duration = Duration::from_secs(60);
/// How long what is left of a backend may take to end.
const END: Duration = Duration::from_secs(20);

/// What is kept at work.
trait Kept {
    /// Ends it when it has stopped by itself, and says why it had.
    async fn ended(&mut self) -> Option<String>;
    /// Starts it again.
    async fn start(&mut self) -> Result<(), String>;
    /// It is started again after `pause`, because of `reason`.
    fn waits(&mut self, reason: &str, pause: Duration);
}

/// Keeps the backend `kind` of `node` at work, for ever.
pub async fn keep_running(kind: Kind, node: Arc<Node>, config: Arc<Config>) {
    keep(BackendOfNode { kind, node, config }).await;
}

async fn keep(mut kept: impl Kept) {
    let mut pause = PAUSE_MIN;
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(mut reason) = kept.ended().await else {
            continue;
        };
        if since.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        loop {
            kept.waits(&reason, pause);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match kept.start().await {
                Ok(()) => break,
                Err(why) => reason = why,
            }
        }
        since = Instant::now();
    }
}

struct BackendOfNode {
    kind: Kind,
    node: Arc<Node>,
    config: Arc<Config>,
}

impl Kept for BackendOfNode {
    async fn ended(&mut self) -> Option<String> {
        let (backend, reason) = self.node.take_failed(self.kind)?;
        if tokio::time::timeout(END, backend.running.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                backend = self.kind.name(),
                "what is left of it does not end"
            );
        }
        Some(reason)
    }

    async fn start(&mut self) -> Result<(), String> {
        let backend = self
            .kind
            .start(&self.config)
            .await
            .map_err(|failure| failure.to_string())?;
        self.node.add_backend(backend);
        tracing::info!(backend = self.kind.name(), "started again");
        Ok(())
    }

    fn waits(&mut self, reason: &str, pause: Duration) {
        let (backend, seconds) = (self.kind.name(), pause.as_secs());
        tracing::error!(
            backend,
            reason,
            "stopped by itself; it is started again in {seconds} s"
        );
        self.node.backend_waits(
            self.kind,
            format!("stopped by itself and is started again in {seconds} s: {reason}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Stops by itself and fails to start as the script says; notes what is done.
    struct Script {
        log: Arc<Mutex<Vec<String>>>,
        /// What each start gives: how long it runs after it, or why it fails.
        starts: std::vec::IntoIter<Result<u64, &'static str>>,
        ends_at: Instant,
    }

    impl Kept for Script {
        async fn ended(&mut self) -> Option<String> {
            (Instant::now() >= self.ends_at).then(|| "broken".to_owned())
        }

        async fn start(&mut self) -> Result<(), String> {
            let runs = match self.starts.next() {
                Some(next) => next.map_err(str::to_owned)?,
                None => std::future::pending().await,
            };
            self.ends_at = Instant::now() + Duration::from_secs(runs);
            Ok(())
        }

        fn waits(&mut self, reason: &str, pause: Duration) {
            let line = format!("{reason} {}", pause.as_secs());
            self.log.lock().unwrap().push(line);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_again_is_started_less_and_less_often() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let starts = vec![Ok(1), Err("no room"), Ok(0), Ok(100), Ok(0)];
        let script = Script {
            log: Arc::clone(&log),
            starts: starts.into_iter(),
            ends_at: Instant::now(),
        };
        let kept = tokio::time::timeout(Duration::from_secs(3_600), keep(script));
        kept.await.unwrap_err();
        let expected = [
            "broken 1",
            "broken 2",
            "no room 4",
            "broken 8",
            "broken 1",
            "broken 2",
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }
}
