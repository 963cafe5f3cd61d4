//! Reports as a run could have written them, for the tests of how they are shown.

use std::collections::BTreeMap;

use super::data::*;
use crate::histogram::Histo;
use crate::plan::Checks;
use crate::swarm::Handshakes;

const CLIENTS: u64 = 18_000;
const RATE: u64 = 10_000;
const MEASURED_S: u64 = 20;
/// Seconds before the measured time: one to connect, four to warm up.
const BEFORE_S: u64 = 5;

/// Times around `middle_us`, with a tail: the same ones each time.
fn times(count: u64, middle_us: u64) -> Histo {
    let mut histo = Histo::default();
    for number in 0..count {
        // A walk over the numbers that meets each once.
        let place = (number * 7_919 % count) as f64 / count as f64;
        let tail = (1.0 / (1.0 - place).max(1e-4)).powf(0.45);
        histo.record_micros((middle_us as f64 * (0.6 + 0.4 * tail)) as u64);
    }
    histo
}

fn server_at(second: u64) -> ServerSample {
    let connected = if second == 0 { 7_200 } else { CLIENTS };
    ServerSample {
        cpu_us: 20_000 + connected * 100 / 3 + second.saturating_sub(1) * 400_000,
        anonymous_bytes: 6_000_000 + connected * 512 + second / 8 * 65_536,
        context_switches: 1_000 + second * 4_000,
        socket_bytes: connected * 400,
        slab_bytes: 200_000_000 + connected * 2_600,
    }
}

fn second(number: u64) -> Second {
    let traffic = if number == 0 {
        0
    } else {
        RATE + number * 37 % 90
    };
    let wave = number * 13 % 40;
    Second {
        connected: if number == 0 { 7_200 } else { CLIENTS },
        accepted: [7_200, CLIENTS - 7_200]
            .get(number as usize)
            .copied()
            .unwrap_or(0),
        closed: 0,
        sent: traffic,
        acknowledged: traffic,
        delivered: traffic,
        ack_us: if traffic > 0 {
            [300 + wave, 2_100 + wave * 20, 8_000 + wave * 400]
        } else {
            [0; 3]
        },
        delivery_us: if traffic > 0 {
            [420 + wave, 2_900 + wave * 20, 9_500 + wave * 400]
        } else {
            [0; 3]
        },
        tool_cpu_us: 350_000 + wave * 1_000,
        server: Some(server_at(number)),
    }
}

/// Pairs that kept to everything.
pub(super) fn passed() -> Report {
    let messages = RATE * (MEASURED_S + 4);
    Report {
        format: FORMAT,
        name: "millstream".to_owned(),
        scenario: "pairs".to_owned(),
        scenario_toml:
            "[connect]\nversion = \"5.0\"\n\n[[group]]\nname = \"readers\"\nclients = 9000\n"
                .to_owned(),
        command: ["millstream", "load", "run", "pairs", "--pid", "4242"]
            .map(str::to_owned)
            .to_vec(),
        tool_version: "0.1.0".to_owned(),
        began_at_ms: 1_772_269_500_000,
        target: "127.0.0.1:1883".to_owned(),
        transport: String::new(),
        machine: Machine {
            processor: "2 × AMD EPYC".to_owned(),
            memory_bytes: 25_276_501_000,
            system: "Linux 6.18.44, Debian GNU/Linux 12 (bookworm)".to_owned(),
        },
        interrupted: None,
        broker_lost: None,
        tool_was_the_limit: Vec::new(),
        failures: Vec::new(),
        remarks: vec!["the broker's memory is read from /proc/4242/status".to_owned()],
        checks: Checks::default(),
        connects: Connects {
            clients: CLIENTS,
            begun: CLIENTS,
            accepted: CLIENTS,
            sessions_present: 0,
            closed: BTreeMap::new(),
            closed_slow: BTreeMap::new(),
            seconds: 0.9,
            latency: times(CLIENTS, 900),
            subscribe_latency: times(9_000, 400),
            granted: 9_000,
            refused: 0,
            unheard: 0,
            handshakes: Handshakes::default(),
        },
        streams: vec![StreamReport {
            name: "messages".to_owned(),
            group: "writers".to_owned(),
            qos: 1,
            counts: StreamCounts {
                due: messages,
                sent: messages,
                acknowledged: messages,
                refused: BTreeMap::new(),
                unanswered: 0,
                sent_measured: RATE * MEASURED_S,
                acknowledged_measured: RATE * MEASURED_S,
                latency: times(RATE * MEASURED_S, 310),
                late: times(RATE * MEASURED_S, 20),
            },
        }],
        audiences: vec![AudienceReport {
            stream: "messages".to_owned(),
            group: "readers".to_owned(),
            filter: "pair/{n}".to_owned(),
            qos: 1,
            subscribers: 9_000,
            checked: true,
            expected: messages,
            delivered: messages,
            delivered_measured: RATE * MEASURED_S,
            latency: times(RATE * MEASURED_S, 430),
            ..AudienceReport::default()
        }],
        foreign: 0,
        foreign_measured: 0,
        misdelivered: 0,
        unasked: 0,
        seconds: (0..BEFORE_S + MEASURED_S + 1).map(second).collect(),
        measured: (BEFORE_S as f64, (BEFORE_S + MEASURED_S) as f64),
        server: Some(Server {
            pid: 4_242,
            name: "millstream".to_owned(),
            before: ServerSample {
                cpu_us: 20_000,
                anonymous_bytes: 6_000_000,
                context_switches: 900,
                socket_bytes: 0,
                slab_bytes: 200_000_000,
            },
            connected: server_at(1),
            measured_from: server_at(BEFORE_S),
            measured_to: server_at(BEFORE_S + MEASURED_S),
            counters: BTreeMap::from([
                ("mqtt_publishes_total{qos=\"1\"}".to_owned(), 200_000.0),
                ("mqtt_bytes_received_total".to_owned(), 31_400_000.0),
            ]),
        }),
        tool: Tool {
            shares: 2,
            cpu_s_measured: 8.2,
            busiest: 0.31,
            anonymous_bytes: 41_000_000,
        },
        lost_shares: Vec::new(),
    }
}

/// The same with everything that can go wrong, and texts that want to be more than texts.
pub(super) fn failed() -> Report {
    let mut report = passed();
    report.name = "<img src=x onerror=\"document.title='owned'\">".to_owned();
    report.interrupted = Some("Ctrl-C".to_owned());
    report.failures = vec![
        "12 messages are missing, 0 are allowed".to_owned(),
        "3 publishes were refused, 0 are allowed".to_owned(),
    ];
    report
        .scenario_toml
        .push_str("# </script><script>document.title='owned'</script>\n");
    report
        .command
        .push("--name=</pre><script>document.title='owned'</script>".to_owned());
    let closed = [
        ("keep-alive \u{1b}[2J timeout", 4),
        ("connection refused", 2),
    ];
    report.connects.closed = closed.map(|(why, count)| (why.to_owned(), count)).into();
    report.connects.begun += 6;
    report.connects.closed_slow = BTreeMap::from([("connection reset".to_owned(), 1)]);
    let stream = &mut report.streams[0];
    stream.name = "</script><script>document.title='owned'</script>".to_owned();
    stream.counts.refused = BTreeMap::from([("quota exceeded".to_owned(), 3)]);
    stream.counts.unanswered = 2;
    stream.counts.acknowledged -= 5;
    let audience = &mut report.audiences[0];
    audience.missing = 12;
    audience.delivered -= 17;
    audience.expected -= 5;
    audience.duplicates = 1;
    audience.damaged = 2;
    audience.qos_changed = 4;
    audience.read_bytes_per_second = Some(2_000);
    audience.worst = vec![
        Trouble {
            client_id: "reader-17".to_owned(),
            missing: 9,
            duplicates: 0,
            out_of_order: 0,
        },
        Trouble {
            client_id: "reader-<b>4</b>".to_owned(),
            missing: 3,
            duplicates: 1,
            out_of_order: 0,
        },
    ];
    report.misdelivered = 1;
    report.lost_shares = vec!["127.0.0.1:7001 (it stopped answering)".to_owned()];
    report
}

/// One that says more of the tool than of the broker.
pub(super) fn limited() -> Report {
    let mut report = passed();
    report.name = "mosquitto".to_owned();
    report.tool_was_the_limit = vec!["its busiest process used 99% of a core".to_owned()];
    report.tool.busiest = 0.99;
    let stream = &mut report.streams[0];
    stream.counts.latency = times(RATE * MEASURED_S, 900);
    report.audiences[0].latency = times(RATE * MEASURED_S, 1_200);
    if let Some(server) = &mut report.server {
        server.measured_to.cpu_us += 9_000_000;
        server.connected.anonymous_bytes += CLIENTS * 1_271;
    }
    report
}
