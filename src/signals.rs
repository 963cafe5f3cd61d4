//! SIGTERM and SIGINT: the first asks for a drain, a later one ends the process at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::EXIT_FAILED;

/// Becomes `true` once, when the process should drain. Cheap to clone.
pub type Shutdown = watch::Receiver<bool>;

/// Signals this close to the first are the same wish: a supervisor that ends the process and its group, or a terminal
/// and a shell, say it twice.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Begins to listen for both signals. Must be called inside a tokio runtime, and before anything slow starts, so
/// that a signal during the start is not lost.
///
/// # Errors
/// When the kernel refuses the handlers.
pub fn listen() -> std::io::Result<Shutdown> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ask, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            match first {
                None => {
                    first = Some(Instant::now());
                    ask.send_replace(true);
                    tracing::info!(signal = name, "draining; another signal ends at once");
                }
                Some(first) if first.elapsed() < SAME_WISH => {}
                Some(_) => {
                    tracing::warn!(signal = name, "ending without waiting for the drain");
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the drain is what is skipped; what was acknowledged is stored"
                    )]
                    std::process::exit(i32::from(EXIT_FAILED));
                }
            }
        }
    });
    Ok(shutdown)
}

/// Waits until a drain is asked for.
pub async fn asked(shutdown: &mut Shutdown) {
    // An error means that the sender is gone, which happens only when the runtime ends.
    let _ = shutdown.wait_for(|asked| *asked).await;
}
