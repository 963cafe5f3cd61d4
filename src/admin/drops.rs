//! Who lost what.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use broker::Loss;
use broker::admin::Glob;
use runtime::http::{ApiError, Json, Query};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::ask::ask;
use super::model::{Drops, Forgotten, Lost};

/// Entries, where nothing is said.
const ENTRIES: usize = 100;
/// Entries at most: more than all workers of a node have.
const ENTRIES_MAX: usize = 100_000;

/// Which losses are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A client identifier, or a pattern: `*` stands for any text, `?` for one character.
    client: Option<String>,
    /// A topic, or a pattern.
    topic: Option<String>,
    /// Why, or a pattern such as `dropped_*`.
    reason: Option<String>,
    /// Entries, 1 to 100,000; without it 100.
    limit: Option<usize>,
}

/// Who lost what, the latest first.
pub async fn list(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Drops>, ApiError> {
    let max = filter.limit.unwrap_or(ENTRIES);
    if !(1..=ENTRIES_MAX).contains(&max) {
        let allowed = format!("1 to {ENTRIES_MAX}");
        return Err(ApiError::invalid(
            "limit",
            format!("{max} is not allowed"),
            allowed,
        ));
    }
    let globs = [filter.client, filter.topic, filter.reason].map(|text| text.map(Glob::new));
    let now = admin.broker.now();
    let mut found = Vec::new();
    let mut forgotten: BTreeMap<Loss, u64> = BTreeMap::new();
    for worker in 0..admin.broker.workers() {
        let [client, topic, reason] = globs.clone();
        let fits =
            |glob: &Option<Glob>, text: &str| glob.as_ref().is_none_or(|glob| glob.matches(text));
        let wanted = move |of: &str, on: &str, loss: Loss| {
            fits(&client, of) && fits(&topic, on) && fits(&reason, loss.name())
        };
        let part = ask(|then| admin.broker.losses(worker, max, wanted, then)).await?;
        found.extend(part.found);
        for (loss, times) in part.forgotten {
            *forgotten.entry(loss).or_default() += times;
        }
    }
    found.sort_by_key(|lost| std::cmp::Reverse(lost.last));
    found.truncate(max);
    let lost = |lost: broker::Lost| Lost {
        client_id: lost.client_id,
        topic: lost.topic,
        reason: lost.loss.name().to_owned(),
        times: lost.times,
        first_ms: now.since_ms(lost.first),
        last_ms: now.since_ms(lost.last),
    };
    let forgotten = forgotten.into_iter().map(|(loss, times)| Forgotten {
        reason: loss.name().to_owned(),
        times,
    });
    Ok(Json(Drops {
        items: found.into_iter().map(lost).collect(),
        forgotten: forgotten.collect(),
    }))
}
