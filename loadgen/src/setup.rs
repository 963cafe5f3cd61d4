//! The part before a measure: connecting and subscribing many clients, no faster than the broker takes them.

use std::time::{Duration, Instant};

use codec::Qos;

use crate::client::{ClientId, Notice};
use crate::fleet::{ConnectOptions, Fleet};
use crate::measure::MeasureError;

/// Connections on their way at once: fewer than mosquitto's listen backlog of 100, beyond which the kernel throws
/// connects away and a client waits for a second.
const CONNECTING_MAX: usize = 64;
/// SUBSCRIBE packets without SUBACK at once.
const SUBSCRIBING_MAX: usize = 64;
/// Filters in one SUBSCRIBE: rumqttd takes no packet beyond 10 KiB by default.
const FILTERS_PER_PACKET_MAX: usize = 100;
/// A broker that does nothing for so long has stopped.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_millis(100);

/// Connects a client for each name and waits until the broker has accepted all of them.
pub(crate) fn connect_all(
    fleet: &mut Fleet,
    options: &ConnectOptions,
    mut names: impl Iterator<Item = String>,
) -> Result<Vec<ClientId>, MeasureError> {
    let mut clients = Vec::new();
    let mut accepted = 0;
    let mut notices = Vec::new();
    let mut progress = Instant::now();
    loop {
        while clients.len() - accepted < CONNECTING_MAX {
            let Some(name) = names.next() else { break };
            clients.push(fleet.connect(options, &name)?);
        }
        if accepted == clients.len() {
            return Ok(clients);
        }
        fleet.turn(TURN, &mut notices)?;
        for notice in notices.drain(..) {
            match notice {
                Notice::Connected(_) => {
                    accepted += 1;
                    progress = Instant::now();
                }
                Notice::Closed { why, .. } => {
                    return Err(MeasureError::Closed {
                        doing: "connecting",
                        why,
                    });
                }
                _ => {}
            }
        }
        check_silence(progress, "connecting")?;
    }
}

/// Subscribes each client to its filters and waits until the broker has granted all of them.
pub(crate) fn subscribe_all<F>(
    fleet: &mut Fleet,
    subscribers: impl IntoIterator<Item = (ClientId, F)>,
    qos: Qos,
) -> Result<(), MeasureError>
where
    F: Iterator<Item = String>,
{
    let mut subscribers = subscribers.into_iter();
    let mut current: Option<(ClientId, F)> = None;
    let mut waiting = 0;
    let mut notices = Vec::new();
    let mut progress = Instant::now();
    loop {
        while waiting < SUBSCRIBING_MAX {
            if current.is_none() {
                current = subscribers.next();
            }
            let Some((client, filters)) = &mut current else {
                break;
            };
            let packet: Vec<String> = filters.take(FILTERS_PER_PACKET_MAX).collect();
            if packet.is_empty() {
                current = None;
                continue;
            }
            fleet.subscribe(*client, packet.iter().map(String::as_str), qos)?;
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(());
        }
        fleet.turn(TURN, &mut notices)?;
        for notice in notices.drain(..) {
            match notice {
                Notice::Subscribed { refused: 0, .. } => {
                    waiting -= 1;
                    progress = Instant::now();
                }
                Notice::Subscribed { refused, .. } => {
                    return Err(MeasureError::SubscriptionsRefused(refused));
                }
                Notice::Closed { why, .. } => {
                    return Err(MeasureError::Closed {
                        doing: "subscribing",
                        why,
                    });
                }
                _ => {}
            }
        }
        check_silence(progress, "subscribing")?;
    }
}

/// Fails when nothing was heard since `progress` for too long.
pub(crate) fn check_silence(progress: Instant, doing: &'static str) -> Result<(), MeasureError> {
    if progress.elapsed() > SILENCE_MAX {
        return Err(MeasureError::Silent {
            doing,
            seconds: SILENCE_MAX.as_secs(),
        });
    }
    Ok(())
}
