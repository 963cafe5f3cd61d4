//! Streams: what is published, through which lanes, when.

use std::time::Duration;

use codec::Qos;

use super::check::{grouped, name, qos, rate, template, twice, whole};
use super::error::ScenarioError;
use super::file::{self, PAYLOAD_BYTES_DEFAULT};
use super::limits::{
    BURST_MAX, LANE_MESSAGES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, TABLES_MAX, TOPICS_MAX,
    WINDOW_DEFAULT, WINDOW_MAX,
};
use super::planning::group_named;
use super::rendered;
use crate::plan::{Group, Pace, Stream};
use crate::stamp::TEXT_STAMP_WITHIN_BYTES;
use crate::text_payload::TextPayload;

/// Checks the streams. Their audiences are still empty.
pub(super) fn plan(
    files: &[file::Stream],
    groups: &[Group],
    publishing: Duration,
) -> Result<Vec<Stream>, ScenarioError> {
    if files.len() > TABLES_MAX {
        return Err(ScenarioError::value(
            "stream",
            format!("{} tables", files.len()),
            format!("allowed are {}", grouped(TABLES_MAX as u64)),
        ));
    }
    if let Some(name) = twice(files.iter().map(|stream| stream.name.as_str())) {
        return Err(ScenarioError::refused(
            format!("stream \"{name}\""),
            "two streams have this name",
        ));
    }
    files
        .iter()
        .map(|file| stream(file, groups, publishing))
        .collect()
}

fn stream(
    file: &file::Stream,
    groups: &[Group],
    publishing: Duration,
) -> Result<Stream, ScenarioError> {
    name("stream: name", &file.name)?;
    let key = |key: &str| format!("stream \"{}\": {key}", file.name);
    let group = group_named(&key("group"), &file.group, groups)?;
    let publishers = groups[group].clients;
    let topic = template(&key("topic"), &file.topic, false)?;
    let topics = match (file.topics, &file.topics_of) {
        (Some(_), Some(_)) => {
            return Err(ScenarioError::refused(
                key("topics_of"),
                "it says the same as topics; only one of them is allowed",
            ));
        }
        (Some(topics), None) => whole(&key("topics"), topics, 1, TOPICS_MAX)?,
        (None, Some(of)) => groups[group_named(&key("topics_of"), of, groups)?].clients,
        // One topic for all of them.
        (None, None) if !topic.has_n() => 1,
        (None, None) => publishers,
    };
    rendered::topics(&key("topic"), &topic, topics)?;
    let qos = qos(&key("qos"), file.qos)?;
    let lanes = lanes(&key("topics"), publishers, topics)?;
    let pace = pace(file, &key, qos, publishing, lanes)?;
    if groups[group].late && pace == Pace::Once {
        return Err(ScenarioError::refused(
            key("once"),
            format!(
                "group \"{}\" is late, it waits for the streams with once to end",
                file.group
            ),
        ));
    }
    if groups[group].reads_slowly() && qos != Qos::AtMostOnce {
        return Err(ScenarioError::value(
            key("qos"),
            qos as u8,
            format!(
                "group \"{}\" has read_bytes_per_second and would not see the answers; it can publish with QoS 0",
                file.group
            ),
        ));
    }
    let window = match file.window {
        Some(window) => whole(&key("window"), window, 1, WINDOW_MAX)?,
        None if matches!(pace, Pace::PerSecond(_)) => WINDOW_DEFAULT,
        None => {
            return Err(ScenarioError::refused(
                key("window"),
                format!(
                    "highest and once need it, the messages of one client in flight: 1 to {}",
                    grouped(WINDOW_MAX)
                ),
            ));
        }
    };
    let burst = whole(&key("burst"), file.burst, 1, BURST_MAX)?;
    if burst > 1 && !matches!(pace, Pace::PerSecond(_)) {
        return Err(ScenarioError::value(
            key("burst"),
            grouped(burst),
            "only per_second knows bursts; leave it out",
        ));
    }
    let (payload_bytes, text) = payload(file, &key, topics, publishers)?;
    Ok(Stream {
        name: file.name.clone(),
        group,
        topic,
        topics,
        lanes,
        qos,
        retain: file.retain,
        payload_bytes,
        text,
        pace,
        burst,
        window,
        pick: file.pick,
        audiences: Vec::new(),
    })
}

/// The size of the payloads, and what they are made of if that is text.
fn payload(
    file: &file::Stream,
    key: &impl Fn(&str) -> String,
    topics: u32,
    publishers: u32,
) -> Result<(u32, Option<TextPayload>), ScenarioError> {
    let bytes_key = key("payload_bytes");
    let Some(text) = &file.payload else {
        let bytes = file.payload_bytes.unwrap_or(PAYLOAD_BYTES_DEFAULT);
        let bytes = whole(&bytes_key, bytes, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX)?;
        return Ok((bytes, None));
    };
    let key = key("payload");
    let text = TextPayload::parse(text)
        .map_err(|why| ScenarioError::refused(key.clone(), why.to_string()))?;
    // What the text takes without its fill.
    let least = text.bytes_max(topics, publishers);
    let least = i64::try_from(least).unwrap_or(i64::MAX);
    let bytes = match file.payload_bytes {
        Some(bytes) if !text.has_fill() => {
            return Err(ScenarioError::value(
                bytes_key,
                grouped(bytes),
                "the stream's payload is as long as it is; leave payload_bytes out, or put {fill} into the payload",
            ));
        }
        bytes if text.has_fill() && least < PAYLOAD_BYTES_MAX => {
            // One byte at least: whoever reads the payload may refuse an empty text.
            let bytes = bytes.unwrap_or(PAYLOAD_BYTES_DEFAULT);
            whole(&bytes_key, bytes, least + 1, PAYLOAD_BYTES_MAX)?
        }
        _ => whole(&key, least, 1, PAYLOAD_BYTES_MAX).map_err(|_| {
            let max = grouped(PAYLOAD_BYTES_MAX);
            let why = format!("it is {} bytes long; allowed are {max}", grouped(least));
            ScenarioError::refused(key.clone(), why)
        })?,
    };
    let ends = text.stamp_ends_at_most(topics, publishers, bytes as usize);
    if ends > TEXT_STAMP_WITHIN_BYTES {
        return Err(ScenarioError::refused(
            key,
            format!(
                "its {{stamp}} may end at byte {}; it is looked for in the first {TEXT_STAMP_WITHIN_BYTES}, so put it before what is long",
                grouped(ends as u64)
            ),
        ));
    }
    Ok((bytes, Some(text)))
}

/// Publisher-topic pairs: each publisher has as many topics as the others, or each topic as many publishers.
fn lanes(key: &str, publishers: u32, topics: u32) -> Result<u32, ScenarioError> {
    let (small, large) = (publishers.min(topics), publishers.max(topics));
    if large.is_multiple_of(small) {
        return Ok(large);
    }
    let below = large - large % small;
    let above = u64::from(below) + u64::from(small);
    let what = if publishers < topics {
        "topics"
    } else {
        "publishers"
    };
    Err(ScenarioError::refused(
        key,
        format!(
            "{} publishers and {} topics do not divide: the larger number has to be a multiple of the smaller, for example {} or {} {what}",
            grouped(publishers),
            grouped(topics),
            grouped(below),
            grouped(above),
        ),
    ))
}

fn pace(
    file: &file::Stream,
    key: &impl Fn(&str) -> String,
    qos: Qos,
    publishing: Duration,
    lanes: u32,
) -> Result<Pace, ScenarioError> {
    let pace = match (file.per_second, file.highest, file.once) {
        (Some(value), false, false) => Pace::PerSecond(rate(&key("per_second"), value)?),
        (None, true, false) => Pace::Highest,
        (None, false, true) => Pace::Once,
        _ => {
            return Err(ScenarioError::refused(
                format!("stream \"{}\"", file.name),
                "it needs exactly one of per_second = NUMBER, highest = true and once = true",
            ));
        }
    };
    if let Pace::PerSecond(rate) = pace {
        let of_lane = rate * publishing.as_secs_f64() / f64::from(lanes);
        if of_lane > LANE_MESSAGES_MAX {
            return Err(ScenarioError::value(
                key("per_second"),
                rate,
                format!(
                    "over {} seconds that is more than {} messages of one publisher and topic, which is all it can count",
                    publishing.as_secs_f64(),
                    grouped(LANE_MESSAGES_MAX as i64)
                ),
            ));
        }
    } else if qos == Qos::AtMostOnce {
        return Err(ScenarioError::value(
            key("qos"),
            0,
            "highest and once need 1 or 2: only acknowledgements say how fast the broker is",
        ));
    }
    Ok(pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_divide_or_are_refused_with_what_would() {
        for (publishers, topics, wanted) in [(1, 1, 1), (10, 5, 10), (5, 10, 10), (1, 7, 7)] {
            assert_eq!(lanes("k", publishers, topics).unwrap(), wanted);
        }
        let error = lanes("k", 1_000, 2_500).unwrap_err().to_string();
        assert!(error.contains("2,000 or 3,000 topics"), "{error}");
        let error = lanes("k", 7, 3).unwrap_err().to_string();
        assert!(error.contains("6 or 9 publishers"), "{error}");
    }
}
