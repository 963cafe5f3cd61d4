//! SIGTERM and SIGINT: the first asks for a drain, a later one ends the process at once. SIGHUP reads the configuration
//! again.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::EXIT_FAILED;
use crate::reload::Reloader;

/// Becomes `true` once, when the process should drain. Cheap to clone.
pub type Shutdown = watch::Receiver<bool>;

/// Whoever asks for a drain besides signals.
static ASK: OnceLock<watch::Sender<bool>> = OnceLock::new();

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
    let _ = ASK.set(ask.clone());
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

/// Asks for a drain, as a first signal does.
pub fn ask_to_drain() {
    if let Some(ask) = ASK.get()
        && !ask.send_replace(true)
    {
        tracing::info!("draining, as an operator asked; a signal does not wait for it");
    }
}

/// Has SIGHUP read the configuration again, for as long as the process runs.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn reload_on_hangup(reloader: Arc<Reloader>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let reloader = Arc::clone(&reloader);
            // What came of it is in the log.
            let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
        }
    });
    Ok(())
}

/// Waits until a drain is asked for.
pub async fn asked(shutdown: &mut Shutdown) {
    // An error means that the sender is gone, which happens only when the runtime ends.
    let _ = shutdown.wait_for(|asked| *asked).await;
}
