//! What a scenario is, in a few lines for people.

use super::file::{Protocol, Scenario, Stream};
use crate::report::counted;

impl Scenario {
    /// Clients, streams and times as the scenario has them: what a run is unless options change it.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = vec![self.clients(), self.connecting()];
        lines.extend(self.streams.iter().map(stream));
        let run = &self.run;
        lines.push(format!(
            "{} s to warm up, {} s measured, up to {} s for what is on its way at the end",
            run.warm_up_s, run.seconds, run.drain_max_s
        ));
        lines.iter().map(|line| format!("  {line}\n")).collect()
    }

    fn clients(&self) -> String {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let all = self.groups.iter().map(|group| number(group.clients)).sum();
        let all = counted(all, "client", "clients");
        let groups: Vec<String> = self
            .groups
            .iter()
            .map(|group| counted(number(group.clients), &group.name, &group.name))
            .collect();
        match groups.len() {
            0 | 1 => all,
            _ => format!("{all}: {}", groups.join(", ")),
        }
    }

    fn connecting(&self) -> String {
        let connect = &self.connect;
        let pace = match connect.per_second {
            Some(rate) => format!("{} connects a second", number(rate)),
            None => "all connect at once".to_owned(),
        };
        let version = match connect.protocol {
            Protocol::V311 => "3.1.1",
            Protocol::V5 => "5.0",
        };
        let sessions = if connect.clean_start {
            ""
        } else {
            ", sessions that outlive their connections"
        };
        format!(
            "{pace}, MQTT {version}, keep-alive {} s{sessions}",
            connect.keep_alive_s
        )
    }
}

/// A rate; of a whole one its thousands can be told apart.
fn number(rate: f64) -> String {
    if rate.fract() == 0.0 && (0.0..1e15).contains(&rate) {
        counted(rate as u64, "", "").trim_end().to_owned()
    } else {
        rate.to_string()
    }
}

fn stream(stream: &Stream) -> String {
    let pace = match stream.per_second {
        Some(rate) => format!("{} messages a second", number(rate)),
        None if stream.once => "one message a topic, before the warm-up".to_owned(),
        None => "as many messages as the windows let".to_owned(),
    };
    let mut text = format!("stream {}: {pace}, QoS {}", stream.name, stream.qos);
    if let Some(bytes) = stream.payload_bytes {
        text.push_str(&format!(", {bytes} bytes"));
    }
    if stream.burst > 1 {
        text.push_str(&format!(", {} due at a time", stream.burst));
    }
    if let Some(window) = stream.window {
        text.push_str(&format!(", {window} in flight of a publisher"));
    }
    text
}
