//! How much memory a broker needs for a client that is connected, subscribed to a topic of its own, and silent.

use std::time::{Duration, Instant};

use codec::Qos;
use serde::Serialize;

use super::{MeasureError, Target};
use crate::fleet::Fleet;
use crate::process::kernel_slab_bytes;
use crate::setup::{connect_all, subscribe_all};

/// From the last SUBACK to the reading.
const SETTLE: Duration = Duration::from_secs(3);

/// The measure's options.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct Idle {
    /// Clients to connect
    #[arg(long, default_value_t = 18_000)]
    pub clients: u32,
}

/// The measure's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdleReport {
    /// Clients connected and subscribed.
    pub clients: u32,
    /// The broker's own memory before the first connect.
    pub anonymous_bytes_before: u64,
    /// The broker's own memory with all clients idle.
    pub anonymous_bytes_after: u64,
    /// The difference for each client.
    pub bytes_per_client: f64,
    /// Kernel memory (slabs) for each client, the broker's and this tool's end together.
    pub kernel_bytes_per_client_both_ends: f64,
    /// Connects (to CONNACK) a second, as fast as both sides went.
    pub connects_per_second: f64,
    /// Subscriptions (to SUBACK) a second, one a client.
    pub subscribes_per_second: f64,
}

impl Idle {
    /// Runs the measure.
    ///
    /// # Errors
    /// The broker's process is not known, or the broker did not take all clients.
    pub fn run(&self, target: &Target) -> Result<IdleReport, MeasureError> {
        let before = target.usage()?.ok_or(MeasureError::NoProcess)?;
        let kernel_before = kernel_slab_bytes()?;
        let mut fleet = Fleet::new()?;
        let begin = Instant::now();
        let names = (0..self.clients).map(|n| format!("idle-{n:07}"));
        let clients = connect_all(&mut fleet, &target.connect_options(), names)?;
        let connected = begin.elapsed();
        let begin = Instant::now();
        let filters = clients.iter().map(|&client| {
            (
                client,
                std::iter::once(format!("users/{:07}/receipts", client.0)),
            )
        });
        subscribe_all(&mut fleet, filters, Qos::AtMostOnce)?;
        let subscribed = begin.elapsed();
        std::thread::sleep(SETTLE);
        let after = target.usage()?.ok_or(MeasureError::NoProcess)?;
        let kernel = kernel_slab_bytes()?.saturating_sub(kernel_before);
        let per_client = |bytes: u64| bytes as f64 / f64::from(self.clients.max(1));
        Ok(IdleReport {
            clients: self.clients,
            anonymous_bytes_before: before.anonymous_bytes,
            anonymous_bytes_after: after.anonymous_bytes,
            bytes_per_client: per_client(
                after.anonymous_bytes.saturating_sub(before.anonymous_bytes),
            ),
            kernel_bytes_per_client_both_ends: per_client(kernel),
            connects_per_second: f64::from(self.clients) / connected.as_secs_f64(),
            subscribes_per_second: f64::from(self.clients) / subscribed.as_secs_f64(),
        })
    }
}
