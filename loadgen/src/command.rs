//! The command line of the measures, for the binary `mqtt-measure` and for whoever else wants it as a subcommand.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand, ValueEnum};
use codec::Version;
use serde_json::{Value, json};

use crate::measure::{Cost, FanOut, Idle, MeasureError, Pairs, Persisted, Target, Topics};

/// Measure any MQTT broker: memory of idle clients, CPU of deliveries, latency of acknowledgements.
///
/// Start the broker for one measure alone, then for example:
///
///   mqtt-measure fan-out --broker 127.0.0.1:1883 --pid $(pidof mosquitto) --burst 100
///
/// One line of JSON with all figures goes to the standard output, a sentence for people to the standard error.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Where the broker listens
    #[arg(
        long,
        global = true,
        default_value = "127.0.0.1:1883",
        value_name = "ADDRESS"
    )]
    broker: SocketAddr,
    /// The broker's process on this machine, for its CPU and memory
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// What to call the broker in the report
    #[arg(long, global = true, default_value = "broker")]
    name: String,
    /// The protocol version that all clients speak
    #[arg(long, global = true, value_enum, default_value_t = Protocol::V311)]
    protocol: Protocol,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocol {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5.0")]
    V5,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// Memory for each idle client with one subscription of its own
    Idle(Idle),
    /// CPU for each delivery of a message that goes to many subscribers, QoS 0
    FanOut(FanOut),
    /// CPU for each message between two clients, QoS 1
    Pairs(Pairs),
    /// CPU for each publish to one of many topics, QoS 0
    Topics(Topics),
    /// Rate and latency of acknowledgements at a steady load, QoS 1
    Persisted(Persisted),
}

impl Arguments {
    /// Runs the measure: the record for a file, and the sentence for people.
    ///
    /// # Errors
    /// Why there are no figures.
    pub fn run(&self) -> Result<(Value, String), MeasureError> {
        let target = Target {
            broker: self.broker,
            pid: self.pid,
            version: match self.protocol {
                Protocol::V31 => Version::V31,
                Protocol::V311 => Version::V311,
                Protocol::V5 => Version::V5,
            },
        };
        let (measure, options, figures, sentence) = match &self.measure {
            Measure::Idle(options) => {
                let report = options.run(&target)?;
                let sentence = format!(
                    "{:.0} B of its own memory for each of {} idle clients; {:.0} connects/s",
                    report.bytes_per_client, report.clients, report.connects_per_second
                );
                ("idle", json!(options), json!(report), sentence)
            }
            Measure::FanOut(options) => {
                let report = options.run(&target)?;
                let sentence = format!(
                    "{}, 1 → {} in bursts of {}, {} lost",
                    cost(&report.delivery, "delivery"),
                    options.subscribers,
                    options.burst,
                    report.lost
                );
                ("fan-out", json!(options), json!(report), sentence)
            }
            Measure::Pairs(options) => {
                let report = options.run(&target)?;
                let sentence = format!(
                    "{}, {} pairs of QoS 1, p99 {:.1} ms",
                    cost(&report.message, "message"),
                    options.pairs,
                    report.round_trip.p99_ms
                );
                ("pairs", json!(options), json!(report), sentence)
            }
            Measure::Topics(options) => {
                let report = options.run(&target)?;
                let sentence = format!(
                    "{}, to one of {} topics of {} subscribers",
                    cost(&report.publish, "publish"),
                    options.topics,
                    options.subscribers
                );
                ("topics", json!(options), json!(report), sentence)
            }
            Measure::Persisted(options) => {
                let report = options.run(&target)?;
                let sentence = format!(
                    "{}; PUBACK p50 {:.1}, p99 {:.1}, max {:.1} ms; {} sent, {} acknowledged, {} refused, {} unanswered, {} unsent",
                    cost(&report.message, "message"),
                    report.latency.p50_ms,
                    report.latency.p99_ms,
                    report.latency.max_ms,
                    report.ledger.sent,
                    report.ledger.acknowledged,
                    report.ledger.refused.values().sum::<u64>(),
                    report.ledger.unanswered,
                    report.unsent
                );
                ("persisted", json!(options), json!(report), sentence)
            }
        };
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let record = json!({
            "measure": measure,
            "broker": self.name,
            "protocol": target.version.to_string(),
            "at_unix_s": at,
            "command": std::env::args().skip(1).collect::<Vec<_>>(),
            "options": options,
            "figures": figures,
        });
        Ok((record, format!("{}: {sentence}", self.name)))
    }
}

fn cost(cost: &Cost, what: &str) -> String {
    let cpu = match cost.broker_cpu_us {
        Some(micros) => format!("{micros:.2} µs of CPU a {what}"),
        None => "CPU unknown".to_owned(),
    };
    format!(
        "{cpu} (this tool {:.2}), {:.0}/s",
        cost.tool_cpu_us, cost.per_second
    )
}
