//! What a command line changes in a scenario.

use super::check::rate;
use super::error::ScenarioError;
use super::file::{Protocol, Scenario};
use super::scale::scale;
use crate::plan::Secret;

/// How long the broker keeps sessions when they are wanted and nobody says how long, in seconds; 5.0 only. Without it 5.0
/// would end them with the connection.
pub const SESSION_EXPIRY_DEFAULT_S: i64 = 3_600;

/// Changes of a scenario; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// How many clients.
    pub clients: Option<Clients>,
    /// How much is published.
    pub rate: Option<Rate>,
    /// How fast clients connect.
    pub connecting: Option<Connecting>,
    /// Connections that are begun and not yet accepted.
    pub in_progress_max: Option<i64>,
    /// Seconds before anything counts as measured.
    pub warm_up_s: Option<f64>,
    /// Measured seconds.
    pub seconds: Option<f64>,
    /// Seconds to wait at the end for what is on its way.
    pub drain_max_s: Option<f64>,
    /// Payload of all streams whose size can be chosen, in bytes.
    pub payload_bytes: Option<i64>,
    /// QoS of all streams and subscriptions.
    pub qos: Option<i64>,
    /// Topics of each stream that has a number of its own.
    pub topics: Option<i64>,
    /// Messages in flight of each publisher, in all streams.
    pub window: Option<i64>,
    /// Burst of all streams with a rate.
    pub burst: Option<i64>,
    /// Protocol version. To 3.1.1 the session expiry goes, which it has not.
    pub protocol: Option<Protocol>,
    /// Clean start. To `false` with 5.0 and no session expiry, sessions are kept for [`SESSION_EXPIRY_DEFAULT_S`].
    pub clean_start: Option<bool>,
    /// How long the broker keeps sessions, in seconds; 5.0 only.
    pub session_expiry_s: Option<i64>,
    /// Keep-alive in seconds; 0 is none.
    pub keep_alive_s: Option<i64>,
    /// Text before every topic and filter, as it is; not in a scenario with answers.
    pub topic_prefix: Option<String>,
    /// User name, a template.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
}

/// How many clients. Groups with `fixed = true` keep their number; all others keep their ratios exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clients {
    /// So many times as many, rounded to what the ratios allow.
    Times(f64),
    /// So many in the main group: the largest one that is not fixed, the first of equals.
    MainGroup(i64),
    /// So many in all groups together.
    Total(i64),
}

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many messages a second, all streams with a rate together, in their ratios; where there is none, of the streams
    /// with `highest`, which then have it in equal parts.
    PerSecond(f64),
    /// As many as the windows let, in all streams that have a rate.
    Highest,
}

/// How fast clients connect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Connecting {
    /// So many a second.
    PerSecond(f64),
    /// All at once.
    Storm,
}

impl Scenario {
    /// Changes the scenario. What the values may be is checked by [`Scenario::plan`].
    ///
    /// # Errors
    /// The scenario has nothing that could be changed so, or the ratios of its groups do not allow a number of clients.
    pub fn apply(&mut self, changes: &Overrides) -> Result<(), ScenarioError> {
        if let Some(clients) = changes.clients {
            scale(self, clients)?;
        }
        if let Some(rate) = changes.rate {
            set_rate(self, rate)?;
        }
        set_streams(self, changes)?;
        match changes.connecting {
            Some(Connecting::PerSecond(rate)) => self.connect.per_second = Some(rate),
            Some(Connecting::Storm) => self.connect.per_second = None,
            None => {}
        }
        set(&mut self.connect.in_progress_max, changes.in_progress_max);
        set(&mut self.connect.keep_alive_s, changes.keep_alive_s);
        set(&mut self.run.warm_up_s, changes.warm_up_s);
        set(&mut self.run.seconds, changes.seconds);
        set(&mut self.run.drain_max_s, changes.drain_max_s);
        set_session(self, changes);
        if let Some(prefix) = &changes.topic_prefix {
            no_answers(self)?;
            let prefix = prefix.replace('{', "{{");
            let filters = self.groups.iter_mut().flat_map(|group| {
                group
                    .subscribe
                    .iter_mut()
                    .map(|subscribe| &mut subscribe.filter)
            });
            let topics = self.streams.iter_mut().map(|stream| &mut stream.topic);
            filters
                .chain(topics)
                .for_each(|text| text.insert_str(0, &prefix));
        }
        if changes.username.is_some() {
            self.connect.username.clone_from(&changes.username);
        }
        if changes.password.is_some() {
            self.connect.password.clone_from(&changes.password);
        }
        Ok(())
    }
}

/// Whoever answers chooses the topics of the answers, and listens to topics of its own.
fn no_answers(scenario: &Scenario) -> Result<(), ScenarioError> {
    let mut subscriptions = scenario.groups.iter().flat_map(|group| &group.subscribe);
    let Some(subscription) = subscriptions.find(|it| it.answers.is_some()) else {
        return Ok(());
    };
    Err(ScenarioError::refused(
        "topic_prefix",
        format!(
            "scenario \"{}\" waits on \"{}\" for answers of somebody who knows of no prefix; change its topics and filters in a file instead",
            scenario.name, subscription.filter
        ),
    ))
}

fn set<T>(value: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *value = to;
    }
}

fn set_session(scenario: &mut Scenario, changes: &Overrides) {
    let connect = &mut scenario.connect;
    set(&mut connect.protocol, changes.protocol);
    set(&mut connect.clean_start, changes.clean_start);
    if let Some(expiry) = changes.session_expiry_s {
        connect.session_expiry_s = expiry;
    } else if connect.protocol == Protocol::V311 {
        if changes.protocol.is_some() {
            connect.session_expiry_s = 0;
        }
    } else if (changes.protocol.is_some() || changes.clean_start.is_some())
        && !connect.clean_start
        && connect.session_expiry_s == 0
    {
        connect.session_expiry_s = SESSION_EXPIRY_DEFAULT_S;
    }
}

fn set_streams(scenario: &mut Scenario, changes: &Overrides) -> Result<(), ScenarioError> {
    if let Some(qos) = changes.qos {
        scenario
            .streams
            .iter_mut()
            .for_each(|stream| stream.qos = qos);
        let subscriptions = scenario
            .groups
            .iter_mut()
            .flat_map(|group| &mut group.subscribe);
        subscriptions.for_each(|subscribe| subscribe.qos = qos);
    }
    let publishes = !scenario.streams.is_empty();
    if !publishes && (changes.payload_bytes.is_some() || changes.window.is_some()) {
        return Err(nothing(scenario, "payload_bytes and window", "no stream"));
    }
    for stream in &mut scenario.streams {
        if changes.window.is_some() {
            stream.window = changes.window;
        }
    }
    if changes.payload_bytes.is_some() {
        let mut sized = scenario
            .streams
            .iter_mut()
            .filter(|stream| stream.payload_bytes.is_some())
            .peekable();
        if sized.peek().is_none() {
            return Err(nothing(
                scenario,
                "payload_bytes",
                "only streams whose payload has no {fill}, and none",
            ));
        }
        sized.for_each(|stream| stream.payload_bytes = changes.payload_bytes);
    }
    if let Some(burst) = changes.burst {
        let mut paced = scenario
            .streams
            .iter_mut()
            .filter(|stream| stream.per_second.is_some())
            .peekable();
        if paced.peek().is_none() {
            return Err(nothing(scenario, "burst", "no stream with per_second"));
        }
        paced.for_each(|stream| stream.burst = burst);
    }
    if let Some(topics) = changes.topics {
        let mut counted = scenario
            .streams
            .iter_mut()
            .filter(|stream| stream.topics.is_some())
            .peekable();
        if counted.peek().is_none() {
            return Err(nothing(
                scenario,
                "topics",
                "no stream with topics = NUMBER",
            ));
        }
        counted.for_each(|stream| stream.topics = Some(topics));
    }
    Ok(())
}

fn nothing(scenario: &Scenario, key: &str, lacks: &str) -> ScenarioError {
    ScenarioError::refused(
        key,
        format!("scenario \"{}\" has {lacks} to change it in", scenario.name),
    )
}

fn set_rate(scenario: &mut Scenario, to: Rate) -> Result<(), ScenarioError> {
    let has_rate = scenario
        .streams
        .iter()
        .any(|stream| stream.per_second.is_some());
    match to {
        Rate::Highest if has_rate => {
            for stream in &mut scenario.streams {
                if stream.per_second.take().is_some() {
                    stream.highest = true;
                    stream.burst = 1;
                }
            }
        }
        Rate::PerSecond(total) if has_rate => {
            rate("rate", total)?;
            let mut sum = 0.0;
            for stream in &scenario.streams {
                let key = format!("stream \"{}\": per_second", stream.name);
                sum += stream.per_second.map_or(Ok(0.0), |own| rate(&key, own))?;
            }
            for own in scenario
                .streams
                .iter_mut()
                .filter_map(|stream| stream.per_second.as_mut())
            {
                *own *= total / sum;
            }
        }
        _ => {
            let highest = scenario.streams.iter_mut().filter(|stream| stream.highest);
            let highest: Vec<_> = highest.collect();
            if highest.is_empty() {
                return Err(nothing(
                    scenario,
                    "rate",
                    "no stream with per_second or highest",
                ));
            }
            if let Rate::PerSecond(total) = to {
                rate("rate", total)?;
                let part = total / highest.len() as f64;
                for stream in highest {
                    stream.highest = false;
                    stream.per_second = Some(part);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, changes: &Overrides) -> Result<Scenario, ScenarioError> {
        let mut scenario = Scenario::builtin(name).unwrap();
        scenario.apply(changes)?;
        Ok(scenario)
    }

    #[test]
    fn a_rate_is_shared_in_the_streams_ratios() {
        let rates = |scenario: &Scenario| -> Vec<Option<f64>> {
            scenario
                .streams
                .iter()
                .map(|stream| stream.per_second)
                .collect()
        };
        let changes = Overrides {
            rate: Some(Rate::PerSecond(510.0)),
            ..Overrides::default()
        };
        let iot = with("iot", &changes).unwrap();
        assert_eq!(rates(&iot), [Some(500.0), Some(10.0)]);

        let changes = Overrides {
            rate: Some(Rate::Highest),
            qos: Some(1),
            window: Some(7),
            ..Overrides::default()
        };
        let mut iot = with("iot", &changes).unwrap();
        assert_eq!(rates(&iot), [None, None]);
        assert!(
            iot.streams
                .iter()
                .all(|stream| stream.highest && stream.window == Some(7))
        );
        iot.plan(1, 1).unwrap();

        let changes = Overrides {
            rate: Some(Rate::PerSecond(10.0)),
            ..Overrides::default()
        };
        iot.apply(&changes).unwrap();
        assert_eq!(rates(&iot), [Some(5.0), Some(5.0)]);
        iot.plan(1, 1).unwrap();
    }

    #[test]
    fn values_that_are_none_and_changes_of_nothing_are_refused() {
        let none = Overrides::default;
        for (name, changes, wanted) in [
            (
                "pairs",
                Overrides {
                    rate: Some(Rate::PerSecond(0.0)),
                    ..none()
                },
                "rate is 0; a rate is more than 0",
            ),
            (
                "pairs",
                Overrides {
                    rate: Some(Rate::PerSecond(f64::NAN)),
                    ..none()
                },
                "rate is NaN",
            ),
            (
                "idle",
                Overrides {
                    rate: Some(Rate::PerSecond(1.0)),
                    ..none()
                },
                "rate: scenario \"idle\" has no stream",
            ),
            (
                "retained",
                Overrides {
                    rate: Some(Rate::Highest),
                    ..none()
                },
                "no stream with per_second or highest",
            ),
            (
                "idle",
                Overrides {
                    payload_bytes: Some(100),
                    ..none()
                },
                "has no stream",
            ),
            (
                "retained",
                Overrides {
                    burst: Some(2),
                    ..none()
                },
                "no stream with per_second",
            ),
            (
                "pairs",
                Overrides {
                    topics: Some(2),
                    ..none()
                },
                "no stream with topics",
            ),
            (
                "pairs",
                Overrides {
                    payload_bytes: Some(23),
                    ..none()
                },
                "stream \"messages\": payload_bytes is 23; allowed are 24 to",
            ),
            (
                "pairs",
                Overrides {
                    qos: Some(3),
                    ..none()
                },
                "qos is 3; allowed are 0, 1 and 2",
            ),
            (
                "pairs",
                Overrides {
                    window: Some(0),
                    ..none()
                },
                "window is 0; allowed are 1 to 65,535",
            ),
            (
                "pairs",
                Overrides {
                    burst: Some(0),
                    ..none()
                },
                "burst is 0",
            ),
            (
                "pairs",
                Overrides {
                    seconds: Some(0.0),
                    ..none()
                },
                "run.seconds is 0",
            ),
            (
                "pairs",
                Overrides {
                    warm_up_s: Some(-1.0),
                    ..none()
                },
                "run.warm_up_s is -1",
            ),
            (
                "pairs",
                Overrides {
                    drain_max_s: Some(f64::NAN),
                    ..none()
                },
                "run.drain_max_s is NaN",
            ),
            (
                "pairs",
                Overrides {
                    keep_alive_s: Some(65_536),
                    ..none()
                },
                "connect.keep_alive_s is 65,536",
            ),
            (
                "pairs",
                Overrides {
                    in_progress_max: Some(0),
                    ..none()
                },
                "connect.in_progress_max is 0",
            ),
            (
                "pairs",
                Overrides {
                    connecting: Some(Connecting::PerSecond(-3.0)),
                    ..none()
                },
                "connect.per_second is -3",
            ),
            (
                "pairs",
                Overrides {
                    topic_prefix: Some("a/#/".to_owned()),
                    ..none()
                },
                "subscribe \"a/#/load/pairs/{n}\"",
            ),
            (
                "pairs",
                Overrides {
                    session_expiry_s: Some(1),
                    ..none()
                },
                "only protocol \"5.0\" has it",
            ),
            (
                "pairs",
                Overrides {
                    password: Some(Secret("x".to_owned())),
                    ..none()
                },
                "no password without connect.username",
            ),
            (
                "reconnect-storm",
                Overrides {
                    seconds: Some(10.0),
                    ..none()
                },
                "churn.storms_at_s is 17; the measured time ends after 10 seconds",
            ),
        ] {
            let planned = with(name, &changes).and_then(|scenario| scenario.plan(1, 1));
            let error = planned.unwrap_err().to_string();
            assert!(error.contains(wanted), "{changes:?}: {error}");
        }
    }

    #[test]
    fn everything_else_is_put_where_it_belongs() {
        let changes = Overrides {
            connecting: Some(Connecting::Storm),
            in_progress_max: Some(9),
            warm_up_s: Some(1.5),
            seconds: Some(2.5),
            drain_max_s: Some(3.5),
            payload_bytes: Some(64),
            qos: Some(2),
            window: Some(3),
            burst: Some(4),
            protocol: Some(Protocol::V5),
            clean_start: Some(false),
            keep_alive_s: Some(11),
            topic_prefix: Some("x{y/".to_owned()),
            username: Some("u{n}".to_owned()),
            password: Some(Secret("p".to_owned())),
            ..Overrides::default()
        };
        let scenario = with("pairs", &changes).unwrap();
        let plan = scenario.plan(1, 1).unwrap();
        assert_eq!(plan.connect.per_second, None);
        assert_eq!(
            (plan.connect.in_progress_max, plan.connect.keep_alive_s),
            (9, 11)
        );
        assert_eq!(plan.connect.session_expiry_s, 3_600);
        assert_eq!(
            plan.measured.as_secs_f64() + plan.warm_up.as_secs_f64(),
            4.0
        );
        let (stream, group) = (&plan.streams[0], &plan.groups[1]);
        assert_eq!(
            (stream.payload_bytes, stream.window, stream.burst),
            (64, 3, 4)
        );
        assert_eq!(
            (u8::from(stream.qos), u8::from(group.subscriptions[0].qos)),
            (2, 2)
        );
        let mut text = String::new();
        stream.topic.render(5, 0, &mut text);
        assert_eq!(text, "x{y/load/pairs/5");
        assert_eq!(stream.audiences.len(), 1);
        assert_eq!(plan.connect.username.unwrap().text(), "u{n}");
    }

    #[test]
    fn sizes_and_prefixes_go_where_they_have_a_meaning() {
        let changes = Overrides {
            payload_bytes: Some(300),
            ..Overrides::default()
        };
        let backends = with("backends", &changes).unwrap();
        let plan = backends.plan(1, 1).unwrap();
        assert_eq!(plan.streams[0].payload_bytes, 300);
        let without_fill = &plan.streams[1];
        assert_eq!(without_fill.payload_bytes, 9 + 6 + 10 + 35 + 2);
        let mut sized = backends.clone();
        sized.streams.remove(0);
        let error = sized.apply(&changes).unwrap_err().to_string();
        assert!(error.contains("payload has no {fill}"), "{error}");

        let changes = Overrides {
            payload_bytes: Some(79),
            ..Overrides::default()
        };
        let planned = with("backends", &changes).unwrap().plan(1, 1);
        let error = planned.unwrap_err().to_string();
        assert!(
            error.contains("payload_bytes is 79; allowed are 80 to"),
            "{error}"
        );

        let changes = Overrides {
            topic_prefix: Some("x/".to_owned()),
            ..Overrides::default()
        };
        let error = with("backends", &changes).unwrap_err().to_string();
        let wanted = "waits on \"users/load-writer-{n}/receipts\" for answers";
        assert!(error.contains(wanted), "{error}");
    }

    #[test]
    fn sessions_are_kept_as_the_protocol_can() {
        let to = |protocol, clean_start, session_expiry_s| {
            let changes = Overrides {
                protocol,
                clean_start,
                session_expiry_s,
                ..Overrides::default()
            };
            with("reconnect-storm", &changes)
                .unwrap()
                .connect
                .session_expiry_s
        };
        assert_eq!(to(None, None, None), 300);
        assert_eq!(to(Some(Protocol::V311), None, None), 0);
        assert_eq!(to(None, Some(false), Some(0)), 0);
        assert_eq!(to(None, None, Some(7)), 7);
    }
}
