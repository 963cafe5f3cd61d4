//! Devices with sensors: each reports its metrics, hears its alerts, and answers commands.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::client::{Client, Message, Outgoing, Seen, Version};
use super::ledger::LastSeen;
use super::{Fleet, Stop};

/// Effect of a telemetry message: the watcher got it.
const WATCHED: u32 = 0;
/// Effects of a telemetry message.
const TELEMETRY_EFFECTS: u32 = 1;
/// Effect of a command: the device carried it out.
pub const CARRIED_OUT: u32 = 0;
/// Effect of a command: its reply is shown by the IoT backend.
pub const REPLY_SHOWN: u32 = 1;
/// Effects of a command.
pub const COMMAND_EFFECTS: u32 = 2;

/// Tag of publishes that the ledger does not follow by their acknowledgement: replies are followed by their effect.
const UNTRACKED: u64 = 0;

/// The name of device `index`.
pub fn device_name(index: usize) -> String {
    format!("device-{:02}", index + 1)
}

/// What a sensor measures: a slow wave around a middle, each device at its own phase, so that curves look alive and
/// thresholds are crossed now and then.
struct Sensor {
    metric: &'static str,
    middle: f64,
    swing: f64,
    period_s: f64,
}

const SENSORS: &[Sensor] = &[
    Sensor {
        metric: "temperature",
        middle: 22.0,
        swing: 9.0,
        period_s: 90.0,
    },
    Sensor {
        metric: "humidity",
        middle: 55.0,
        swing: 20.0,
        period_s: 140.0,
    },
];

impl Sensor {
    fn value(&self, device: usize, elapsed: Duration) -> f64 {
        let turns = elapsed.as_secs_f64() / self.period_s + device as f64 * 0.137;
        let value = self.middle + self.swing * (turns * std::f64::consts::TAU).sin();
        (value * 100.0).round() / 100.0
    }
}

#[derive(Deserialize)]
struct Command {
    id: String,
    #[serde(default)]
    args: Value,
}

/// Device `index`: lives until the fleet is told to end.
pub async fn live(index: usize, fleet: Arc<Fleet>, mut stop: Stop) {
    let me = device_name(index);
    let commands = format!("devices/{me}/commands/");
    let mut client = Client::connect(
        Version::V5,
        &format!("demo-{me}"),
        fleet.mqtt,
        vec![format!("{commands}#"), format!("devices/{me}/alerts")],
        fleet.online.clone(),
    );
    let interval = fleet.config.device_interval();
    let phase = interval.mul_f64(index as f64 / fleet.config.devices.max(1) as f64);
    let mut turn = tokio::time::interval_at(
        tokio::time::Instant::now() + phase + Duration::from_millis(1),
        interval,
    );
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sensors = SENSORS.iter().cycle();
    let mut last_commands = LastSeen::default();
    let started = Instant::now();
    loop {
        tokio::select! {
            seen = client.next() => match seen {
                None => return,
                Some(Seen::Ready) => fleet.ready(),
                Some(Seen::Acknowledged(number)) => fleet.ledger.acknowledged(number, Instant::now()),
                Some(Seen::Refused(number)) => fleet.ledger.refused(number),
                Some(Seen::Forgotten(number)) => fleet.ledger.forget(number),
                Some(Seen::Message(message)) => {
                    if let Some(name) = message.topic.strip_prefix(&commands) {
                        let (name, me) = (name.to_owned(), me.as_str());
                        if let Some(reply) = carry_out(&fleet, me, &name, message, &mut last_commands) {
                            // No room means a broker that acknowledges nothing: the command then has no reply, and
                            // the ledger says so.
                            client.publish(reply);
                        }
                    } else {
                        fleet.alert();
                    }
                }
            },
            _ = turn.tick() => {
                if fleet.may_speak() && client.may_publish() && let Some(sensor) = sensors.next() {
                    let number = fleet.ledger.publish(TELEMETRY_EFFECTS);
                    let payload = json!({"value": sensor.value(index, started.elapsed()), "at": now_ms()});
                    let message = Outgoing {
                        topic: format!("devices/{me}/telemetry/{}", sensor.metric),
                        payload: payload.to_string().into_bytes(),
                        tag: number,
                        id: Some(fleet.id(number)),
                        correlation_data: None,
                    };
                    if !client.publish(message) {
                        fleet.ledger.forget(number);
                    }
                }
            }
            () = stop.asked() => {
                client.disconnect();
                while client.next().await.is_some() {}
                return;
            }
        }
    }
}

/// Does what a command says and gives the reply; `None` when it is no command.
fn carry_out(
    fleet: &Fleet,
    device: &str,
    name: &str,
    message: Message,
    last: &mut LastSeen,
) -> Option<Outgoing> {
    let command: Command = serde_json::from_slice(&message.payload).ok()?;
    if let Some(number) = command
        .args
        .get("demo_id")
        .and_then(Value::as_str)
        .and_then(|id| fleet.number(id))
    {
        fleet.ledger.effect(number, CARRIED_OUT, 0, last);
    }
    let result = json!({"done": name, "args": command.args});
    let payload = json!({"id": command.id, "ok": true, "result": result});
    Some(Outgoing {
        topic: message
            .response_topic
            .unwrap_or_else(|| format!("devices/{device}/replies/{name}")),
        payload: payload.to_string().into_bytes(),
        tag: UNTRACKED,
        id: None,
        correlation_data: message.correlation_data,
    })
}

/// One client that reads what every device reports, live: the other end of each telemetry message.
pub async fn watch(fleet: Arc<Fleet>, mut stop: Stop) {
    let mut client = Client::connect(
        Version::V5,
        "demo-watcher",
        fleet.mqtt,
        vec!["devices/+/telemetry/#".into()],
        fleet.online.clone(),
    );
    let mut last = LastSeen::default();
    loop {
        tokio::select! {
            seen = client.next() => match seen {
                None => return,
                Some(Seen::Ready) => fleet.ready(),
                Some(Seen::Message(message)) => {
                    if let Some(number) = message.id.as_deref().and_then(|id| fleet.number(id)) {
                        // Order is promised per publisher and topic.
                        fleet.ledger.effect(number, WATCHED, super::key(&message.topic), &mut last);
                    }
                }
                Some(_) => {}
            },
            () = stop.asked() => {
                client.disconnect();
                while client.next().await.is_some() {}
                return;
            }
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensors_stay_in_their_range_and_cross_their_middle() {
        for sensor in SENSORS {
            let values: Vec<f64> = (0..200)
                .map(|s| sensor.value(3, Duration::from_secs(s)))
                .collect();
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(
                low >= sensor.middle - sensor.swing && low < sensor.middle,
                "{low}"
            );
            assert!(
                high <= sensor.middle + sensor.swing && high > sensor.middle,
                "{high}"
            );
        }
    }
}
