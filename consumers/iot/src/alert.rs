//! When a value raises an alert: pure, from a rule, the state the series was in and the new value.
//!
//! An alert is raised when a value crosses a threshold, not for every value beyond it. The state that remembers the
//! crossing belongs to the series and lives in the store, so a record that is read twice raises nothing twice.

use serde::{Deserialize, Serialize};

/// The thresholds of a metric, for all devices alike, in the metric's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A value greater than this raises an alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// A value less than this raises an alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// How far a value must come back behind the threshold before the next crossing raises an alert again. Keeps a value
    /// that trembles at its threshold from raising an alert a second.
    #[serde(default)]
    pub hysteresis: f64,
}

/// What is wrong with a rule: the key, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct RuleError {
    /// The key in the rule.
    pub key: &'static str,
    /// The value it has.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

impl Rule {
    /// Checks the relations between the thresholds.
    ///
    /// # Errors
    ///
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), RuleError> {
        let error = |key, value: f64, allowed| {
            Err(RuleError {
                key,
                value: value.to_string(),
                allowed,
            })
        };
        for (key, value) in [
            ("above", self.above),
            ("below", self.below),
            ("hysteresis", Some(self.hysteresis)),
        ] {
            if let Some(value) = value
                && !value.is_finite()
            {
                return error(key, value, "a finite number in the metric's unit");
            }
        }
        if self.hysteresis < 0.0 {
            return error(
                "hysteresis",
                self.hysteresis,
                "0 or more, in the metric's unit",
            );
        }
        match (self.above, self.below) {
            (None, None) => Err(RuleError {
                key: "above",
                value: "(missing)".to_owned(),
                allowed: "at least one of above and below is needed",
            }),
            (Some(above), Some(below)) if below >= above => {
                error("below", below, "less than above")
            }
            (Some(above), Some(below)) if self.hysteresis > above - below => {
                error("hysteresis", self.hysteresis, "at most above - below")
            }
            _ => Ok(()),
        }
    }

    /// The state after `value`, and the alert if `value` crossed a threshold.
    #[must_use]
    pub fn next(&self, state: State, value: f64) -> (State, Option<Crossing>) {
        if let Some(threshold) = self.above {
            if value > threshold {
                let crossed = state != State::Above;
                return (
                    State::Above,
                    crossed.then_some(Crossing {
                        kind: Kind::Above,
                        threshold,
                    }),
                );
            }
            if state == State::Above && value > threshold - self.hysteresis {
                return (State::Above, None);
            }
        }
        if let Some(threshold) = self.below {
            if value < threshold {
                let crossed = state != State::Below;
                return (
                    State::Below,
                    crossed.then_some(Crossing {
                        kind: Kind::Below,
                        threshold,
                    }),
                );
            }
            if state == State::Below && value < threshold + self.hysteresis {
                return (State::Below, None);
            }
        }
        (State::Normal, None)
    }
}

/// On which side of its thresholds a series is. The numbers are what the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Within the thresholds, or without a rule.
    #[default]
    Normal = 0,
    /// Beyond `above`, or not yet back behind it by the hysteresis.
    Above = 1,
    /// Beyond `below`, or not yet back behind it by the hysteresis.
    Below = 2,
}

impl State {
    /// The number that the store keeps.
    #[must_use]
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The state of a number from the store; a number that is none is a fresh start.
    #[must_use]
    pub fn from_code(code: i64) -> Self {
        match code {
            1 => Self::Above,
            2 => Self::Below,
            _ => Self::Normal,
        }
    }
}

/// Which threshold an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The value is greater than the rule's `above`.
    Above,
    /// The value is less than the rule's `below`.
    Below,
}

impl Kind {
    /// The number that the store keeps, the same as that of the [`State`] the series is in.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::Above => State::Above.code(),
            Self::Below => State::Below.code(),
        }
    }

    /// The kind of a number from the store.
    #[must_use]
    pub fn from_code(code: i64) -> Self {
        if code == State::Below.code() {
            Self::Below
        } else {
            Self::Above
        }
    }
}

/// A threshold that was crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossing {
    /// Which one.
    pub kind: Kind,
    /// Its value when it was crossed.
    pub threshold: f64,
}

/// An alert as devices and people see it: the payload on the alert topic and the entry in the HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Kafka topic, partition and offset of the record that raised it: the same however often that record is read.
    pub id: String,
    /// The device.
    pub device: String,
    /// The metric.
    pub metric: String,
    /// The value that crossed the threshold, in the metric's unit.
    pub value: f64,
    /// The threshold, in the metric's unit.
    pub threshold: f64,
    /// On which side of the threshold the value is.
    pub kind: Kind,
    /// When the value was measured, milliseconds since the Unix epoch.
    pub at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        above: Some(30.0),
        below: Some(10.0),
        hysteresis: 2.0,
    };

    /// Which values of a series raise which alert.
    fn alerts(rule: Rule, values: &[f64]) -> Vec<(usize, Kind)> {
        let mut state = State::Normal;
        let mut alerts = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let (next, crossing) = rule.next(state, *value);
            state = next;
            alerts.extend(crossing.map(|crossing| (index, crossing.kind)));
        }
        alerts
    }

    #[test]
    fn an_alert_is_raised_on_crossing_and_not_while_beyond() {
        assert_eq!(alerts(RULE, &[20.0, 31.0, 35.0, 40.0]), [(1, Kind::Above)]);
        assert_eq!(alerts(RULE, &[20.0, 9.0, 5.0, -4.0]), [(1, Kind::Below)]);
    }

    #[test]
    fn the_threshold_itself_is_within() {
        assert_eq!(alerts(RULE, &[30.0, 10.0]), []);
    }

    #[test]
    fn a_value_that_trembles_at_its_threshold_raises_one_alert() {
        assert_eq!(
            alerts(RULE, &[31.0, 29.0, 31.0, 28.5, 31.0]),
            [(0, Kind::Above)]
        );
        assert_eq!(
            alerts(RULE, &[9.0, 11.0, 9.0, 11.5, 9.0]),
            [(0, Kind::Below)]
        );
    }

    #[test]
    fn coming_back_by_the_hysteresis_arms_the_alert_again() {
        assert_eq!(
            alerts(RULE, &[31.0, 28.0, 31.0]),
            [(0, Kind::Above), (2, Kind::Above)]
        );
        assert_eq!(
            alerts(RULE, &[9.0, 12.0, 9.0]),
            [(0, Kind::Below), (2, Kind::Below)]
        );
    }

    #[test]
    fn without_hysteresis_the_threshold_arms_it_again() {
        let rule = Rule {
            hysteresis: 0.0,
            ..RULE
        };
        assert_eq!(
            alerts(rule, &[31.0, 30.0, 31.0]),
            [(0, Kind::Above), (2, Kind::Above)]
        );
    }

    #[test]
    fn from_one_side_to_the_other_is_a_crossing_too() {
        assert_eq!(
            alerts(RULE, &[31.0, 9.0, 31.0]),
            [(0, Kind::Above), (1, Kind::Below), (2, Kind::Above)]
        );
    }

    #[test]
    fn a_rule_that_lost_a_threshold_leaves_its_state() {
        let rule = Rule {
            above: None,
            ..RULE
        };
        assert_eq!(rule.next(State::Above, 100.0), (State::Normal, None));
    }

    #[test]
    fn impossible_rules_name_the_key_and_what_is_allowed() {
        for (rule, sentence) in [
            (
                Rule::default(),
                "above = (missing): at least one of above and below is needed",
            ),
            (
                Rule {
                    above: Some(1.0),
                    below: Some(1.0),
                    hysteresis: 0.0,
                },
                "below = 1: less than above",
            ),
            (
                Rule {
                    hysteresis: -1.0,
                    ..RULE
                },
                "hysteresis = -1: 0 or more, in the metric's unit",
            ),
            (
                Rule {
                    hysteresis: 21.0,
                    ..RULE
                },
                "hysteresis = 21: at most above - below",
            ),
            (
                Rule {
                    above: Some(f64::INFINITY),
                    ..RULE
                },
                "above = inf: a finite number in the metric's unit",
            ),
        ] {
            assert_eq!(
                rule.validate().expect_err("impossible").to_string(),
                sentence
            );
        }
        assert_eq!(RULE.validate(), Ok(()));
    }

    #[test]
    fn states_and_kinds_survive_the_store() {
        for state in [State::Normal, State::Above, State::Below] {
            assert_eq!(State::from_code(state.code()), state);
        }
        for kind in [Kind::Above, Kind::Below] {
            assert_eq!(Kind::from_code(kind.code()), kind);
        }
    }
}
