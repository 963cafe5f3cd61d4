//! The topics with most publishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use broker::TopicCount;
use runtime::http::{ApiError, Json, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::ask;
use super::model::{TopicRate, Topics};

/// How long is counted, where nothing is said.
const SECONDS: u64 = 5;
/// How long is counted at most.
const SECONDS_MAX: u64 = 20;
/// Topics, where nothing is said.
const TOP: usize = 20;
/// Topics at most.
const TOP_MAX: usize = 1_000;
/// Counting ends by itself when whoever asked is gone: so much later than it should.
const SPARE_S: u64 = 5;

/// How is counted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// For how many seconds, 1 to 20; without it 5. Whoever asks meanwhile begins anew.
    seconds: Option<u64>,
    /// Topics, 1 to 1,000; without it 20.
    top: Option<usize>,
}

/// Counts, and tells.
pub async fn top(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Topics>, ApiError> {
    let seconds = filter.seconds.unwrap_or(SECONDS);
    let top = filter.top.unwrap_or(TOP);
    let refused = |field: &str, given: String, most: String| {
        ApiError::invalid(
            field,
            format!("{given} is not allowed"),
            format!("1 to {most}"),
        )
    };
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(refused(
            "seconds",
            seconds.to_string(),
            SECONDS_MAX.to_string(),
        ));
    }
    if !(1..=TOP_MAX).contains(&top) {
        return Err(refused("top", top.to_string(), TOP_MAX.to_string()));
    }
    let until = admin.broker.now().plus_s(seconds + SPARE_S);
    for worker in 0..admin.broker.workers() {
        ask(|then| admin.broker.count_topics(worker, until, then)).await?;
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut by_topic: HashMap<String, TopicCount> = HashMap::new();
    let (mut publishes, mut missed_max) = (0, 0);
    for worker in 0..admin.broker.workers() {
        let part = ask(|then| admin.broker.counted_topics(worker, TOP_MAX, then)).await?;
        publishes += part.publishes;
        missed_max += part.missed_max;
        for one in part.topics {
            match by_topic.get_mut(&one.topic) {
                None => drop(by_topic.insert(one.topic.clone(), one)),
                Some(sum) => {
                    sum.publishes += one.publishes;
                    sum.bytes += one.bytes;
                    sum.deliveries += one.deliveries;
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut counts: Vec<TopicCount> = by_topic.into_values().collect();
    counts.sort_by(|one, other| {
        let by_count = other.publishes.cmp(&one.publishes);
        by_count.then_with(|| one.topic.cmp(&other.topic))
    });
    counts.truncate(top);
    let rate = |one: TopicCount| TopicRate {
        per_second: one.publishes as f64 / seconds,
        topic: one.topic,
        publishes: one.publishes,
        bytes: one.bytes,
        deliveries: one.deliveries,
    };
    Ok(Json(Topics {
        topics: counts.into_iter().map(rate).collect(),
        seconds,
        publishes,
        missed_max,
    }))
}
