//! The demo's operator: gives commands to devices through the IoT backend's HTTP API, as a person would, and waits
//! until the reply is shown there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::devices::{COMMAND_EFFECTS, REPLY_SHOWN, device_name};
use super::ledger::LastSeen;
use super::{Fleet, Stop};

/// Longest wait for an answer of the API.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the API is asked for replies that are awaited.
const ASK: Duration = Duration::from_millis(250);
/// Commands whose reply is awaited; the oldest is asked for first. More are not given.
const AWAITED_MAX: usize = 64;
/// What devices are told to do, in turn.
const COMMANDS: &[&str] = &["blink", "report", "calibrate"];

#[derive(Deserialize)]
struct Posted {
    id: String,
}

#[derive(Deserialize)]
struct Shown {
    status: String,
}

struct Awaited {
    number: u64,
    command: String,
}

/// Lives until the fleet is told to end.
pub async fn live(fleet: Arc<Fleet>, mut stop: Stop) {
    if fleet.config.devices == 0 {
        return;
    }
    let api = Api::new(&fleet.iot);
    let mut turn = tokio::time::interval(fleet.config.command_interval());
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ask = tokio::time::interval(ASK);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut devices = (0..fleet.config.devices).cycle();
    let mut names = COMMANDS.iter().cycle();
    let mut awaited: VecDeque<Awaited> = VecDeque::new();
    let mut last = LastSeen::default();
    loop {
        tokio::select! {
            _ = turn.tick() => {
                if fleet.may_speak()
                    && awaited.len() < AWAITED_MAX
                    && let (Some(device), Some(name)) = (devices.next(), names.next())
                {
                    awaited.extend(give(&fleet, &api, &device_name(device), name).await);
                }
            }
            _ = ask.tick() => {
                if let Some(oldest) = awaited.pop_front() {
                    if api.is_replied(&oldest.command).await {
                        fleet.ledger.effect(oldest.number, REPLY_SHOWN, 0, &mut last);
                    } else {
                        // The next one may be answered already: no command waits for another's device.
                        awaited.push_back(oldest);
                    }
                }
            }
            () = stop.asked() => return,
        }
    }
}

/// Gives one command; the API's answer is its acknowledgement.
async fn give(fleet: &Fleet, api: &Api, device: &str, name: &str) -> Option<Awaited> {
    let number = fleet.ledger.publish(COMMAND_EFFECTS);
    match api.post(device, name, fleet.id(number)).await {
        Ok(command) => {
            fleet.ledger.acknowledged(number, Instant::now());
            Some(Awaited { number, command })
        }
        Err(error) => {
            fleet.ledger.refused(number);
            tracing::debug!(%error, device, name, "a demo command was not accepted");
            None
        }
    }
}

/// The IoT backend's API as the demo uses it.
struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER))
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            base: base.to_owned(),
        }
    }

    /// Posts a command and gives its identifier.
    async fn post(&self, device: &str, name: &str, demo_id: String) -> anyhow::Result<String> {
        let url = format!("{}/api/devices/{device}/commands/{name}", self.base);
        let agent = self.agent.clone();
        let posted: Posted = tokio::task::spawn_blocking(move || {
            let body = json!({"demo_id": demo_id});
            anyhow::Ok(agent.post(&url).send_json(body)?.body_mut().read_json()?)
        })
        .await??;
        Ok(posted.id)
    }

    /// Whether the device's reply to `command` is shown.
    async fn is_replied(&self, command: &str) -> bool {
        let url = format!("{}/api/commands/{command}", self.base);
        let agent = self.agent.clone();
        let shown = tokio::task::spawn_blocking(move || {
            anyhow::Ok(agent.get(&url).call()?.body_mut().read_json::<Shown>()?)
        })
        .await;
        matches!(shown, Ok(Ok(Shown { status })) if status == "replied")
    }
}
