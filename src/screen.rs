//! What `up` prints: where everything listens and what to try, then one line that stays alive.
//!
//! On a terminal the line is redrawn in place; anywhere else a line is printed now and then, so that a log of it stays
//! readable.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::backends::{ALL, Kind};
use crate::log;

/// How often the line is redrawn on a terminal.
const REDRAW: Duration = Duration::from_secs(1);
/// How often a line is printed elsewhere.
const PRINT: Duration = Duration::from_secs(5);

/// What the start prints.
pub struct Start<'a> {
    /// Where MQTT clients connect.
    pub mqtt: std::net::SocketAddr,
    /// All listeners, where there are more than that one or it has more to it.
    pub listeners: Vec<String>,
    /// How many may connect, and what bounds it.
    pub room: String,
    /// Who may do what, in words.
    pub access: String,
    /// Where HTTP is served.
    pub http: std::net::SocketAddr,
    /// Kafka's bootstrap servers.
    pub kafka: &'a str,
    /// Whether that Kafka lives in this process.
    pub in_memory: bool,
    /// Where the databases are, in words.
    pub data: &'a str,
    /// The demo fleet, in words, when there is one.
    pub demo: Option<String>,
    /// A Kafka topic to look into.
    pub topic: &'a str,
}

/// A line for each listener, unless the only one is the short form's.
pub fn listeners(listeners: &[broker::ListenerStatus]) -> Vec<String> {
    if let [only] = listeners
        && only.name == broker::SHORT_FORM
        && only.transport == broker::Carrier::Tcp
    {
        return Vec::new();
    }
    let line = |of: &broker::ListenerStatus| {
        format!("listener {} on {} ({})", of.name, of.address, of.transport)
    };
    listeners.iter().map(line).collect()
}

impl std::fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            mqtt,
            room,
            access,
            http,
            kafka,
            data,
            topic,
            ..
        } = self;
        let (host, port) = (mqtt.ip(), mqtt.port());
        let names = ALL.map(Kind::name);
        let apis = names.join("/  /");
        let version = env!("CARGO_PKG_VERSION");
        let memory = if self.in_memory {
            "  (in memory: it forgets everything at the end)"
        } else {
            ""
        };
        writeln!(
            f,
            "millstream {version}: broker, bridge, {} in one process\n",
            names.join(", ")
        )?;
        writeln!(f, "  MQTT       {mqtt}  (3.1, 3.1.1 and 5.0)")?;
        for listener in &self.listeners {
            writeln!(f, "             {listener}")?;
        }
        writeln!(f, "             up to {room}")?;
        writeln!(f, "  access     {access}")?;
        writeln!(f, "  page       http://{http}/")?;
        writeln!(f, "  APIs       http://{http}/{apis}/")?;
        writeln!(
            f,
            "  operators  http://{http}/api/status  /metrics  /health"
        )?;
        writeln!(f, "  Kafka      {kafka}{memory}")?;
        writeln!(f, "  databases  {data}")?;
        if let Some(demo) = &self.demo {
            writeln!(f, "  demo       {demo}")?;
        }
        writeln!(f, "\nTry in another terminal:\n")?;
        writeln!(
            f,
            "  mosquitto_sub -h {host} -p {port} -t 'rooms/#' -t 'users/#' -v"
        )?;
        let message = r#"{"from":"you","text":"hello"}"#;
        writeln!(
            f,
            "  mosquitto_pub -h {host} -p {port} -q 1 -t rooms/lobby/messages -m '{message}'"
        )?;
        writeln!(
            f,
            "  kcat -b {kafka} -C -t {topic} -o beginning -c 5 -f '%k %s\\n'"
        )?;
        writeln!(
            f,
            "\nCtrl-C ends it: what was accepted is stored and delivered first.\n"
        )
    }
}

/// The numbers of the status line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Clients connected.
    pub clients: u64,
    /// Publishes received since the start.
    pub received: u64,
    /// Deliveries since the start.
    pub sent: u64,
    /// Publishes stored in Kafka since the start.
    pub stored: u64,
    /// Records that the backends have not handled yet.
    pub lag: u64,
    /// Messages that were acknowledged and have not arrived; only the demo can know.
    pub lost: Option<u64>,
    /// Deliveries dropped since the start, for any reason.
    pub dropped: u64,
    /// How long Kafka has been unreachable, and how many messages wait for it.
    pub kafka_away: Option<(Duration, u64)>,
}

/// The living line.
pub struct StatusLine {
    terminal: bool,
    last: Option<(Instant, Numbers)>,
}

impl StatusLine {
    /// For standard output as it is.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            last: None,
        }
    }

    /// How often [`StatusLine::show`] should be called.
    pub fn interval(&self) -> Duration {
        if self.terminal { REDRAW } else { PRINT }
    }

    /// Shows the numbers as of `now`.
    pub fn show(&mut self, numbers: Numbers, now: Instant) {
        let since = self
            .last
            .map_or((Duration::ZERO, numbers), |(at, before)| (now - at, before));
        self.last = Some((now, numbers));
        let text = line(since.0, &since.1, &numbers);
        let mut out = std::io::stdout().lock();
        // A reader that went away (`| head`) is no reason to end a server.
        let _ = if self.terminal {
            write!(out, "\r\x1b[2K{text}")
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
        log::status_line_is_drawn(self.terminal);
    }

    /// Leaves the line as it stands.
    pub fn finish(self) {
        if self.terminal && self.last.is_some() {
            log::status_line_is_drawn(false);
            println!();
        }
    }
}

fn line(elapsed: Duration, before: &Numbers, now: &Numbers) -> String {
    let rate = |before: u64, now: u64| {
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            now.saturating_sub(before) as f64 / seconds
        } else {
            0.0
        }
    };
    let mut text = format!(
        "{} clients | in {:.0}/s | out {:.0}/s | stored {} | lag {}",
        now.clients,
        rate(before.received, now.received),
        rate(before.sent, now.sent),
        grouped(now.stored),
        now.lag,
    );
    match now.lost {
        Some(lost) => text.push_str(&format!(" | lost = {lost}")),
        None => text.push_str(&format!(" | dropped {}", now.dropped)),
    }
    if let Some((since, waiting)) = now.kafka_away {
        text.push_str(&format!(
            " | Kafka unreachable for {} s, {waiting} messages wait",
            since.as_secs()
        ));
    }
    text
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_rates_and_sums() {
        let before = Numbers {
            received: 100,
            sent: 1_000,
            ..Numbers::default()
        };
        let now = Numbers {
            clients: 42,
            received: 220,
            sent: 1_500,
            stored: 1_234_567,
            lag: 3,
            lost: Some(0),
            ..before
        };
        assert_eq!(
            line(Duration::from_secs(2), &before, &now),
            "42 clients | in 60/s | out 250/s | stored 1,234,567 | lag 3 | lost = 0"
        );
    }

    #[test]
    fn without_the_demo_nobody_knows_what_is_lost_and_drops_are_shown() {
        let now = Numbers {
            dropped: 4,
            kafka_away: Some((Duration::from_secs(7), 12)),
            ..Numbers::default()
        };
        let text = line(Duration::ZERO, &now, &now);
        assert!(
            text.ends_with("| dropped 4 | Kafka unreachable for 7 s, 12 messages wait"),
            "{text}"
        );
        assert!(!text.contains("lost"));
    }

    #[test]
    fn the_start_fits_two_screens_and_has_real_ports() {
        let start = Start {
            listeners: Vec::new(),
            mqtt: "127.0.0.1:1999".parse().unwrap(),
            room: "768 connections".into(),
            access: crate::access::in_words(&broker::AccessConfig::default()),
            http: "127.0.0.1:8999".parse().unwrap(),
            kafka: "127.0.0.1:5555",
            in_memory: true,
            data: "temporary",
            demo: Some("a fleet".into()),
            topic: "chat.messages",
        };
        let text = start.to_string();
        assert!(text.lines().count() <= 40);
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
        for part in [
            "mosquitto_sub -h 127.0.0.1 -p 1999",
            "mosquitto_pub",
            "kcat -b 127.0.0.1:5555",
            "http://127.0.0.1:8999/",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
