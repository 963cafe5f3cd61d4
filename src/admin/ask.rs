//! Questions to the broker's workers, awaited.

use std::time::{Duration, Instant};

use broker::admin::{Cursor, Part, Then};
use runtime::http::ApiError;
use tokio::sync::oneshot;

/// How long a worker may take to answer: it does so in its next turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one request may walk over sessions. Then it is answered with what was found, and where to go on.
const WALK: Duration = Duration::from_secs(2);

/// Asks a worker, and waits for the answer.
pub async fn ask<T: Send + 'static>(question: impl FnOnce(Then<T>)) -> Result<T, ApiError> {
    let (answer, answered) = oneshot::channel();
    // Whoever asked may be gone by then.
    question(Box::new(move |it| drop(answer.send(it))));
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(ApiError::unavailable(
            "the broker has no such worker, or it has ended",
        )),
        Err(_) => Err(ApiError::unavailable(format!(
            "a worker of the broker did not answer within {PATIENCE:?}"
        ))),
    }
}

/// Walks on until `max` are found, all is seen, or it has taken long enough: what was found, and where to go on.
pub async fn walk<T: Send + 'static>(
    from: Cursor,
    max: usize,
    step: impl Fn(Cursor, usize, Then<Part<T>>),
) -> Result<(Vec<T>, Option<Cursor>), ApiError> {
    let began = Instant::now();
    let mut found = Vec::new();
    let mut next = Some(from);
    while let Some(at) = next
        && found.len() < max
        && began.elapsed() < WALK
    {
        let room = max - found.len();
        let part = ask(|then| step(at, room, then)).await?;
        found.extend(part.found);
        next = part.next;
    }
    Ok((found, next))
}

/// A cursor as text.
pub fn cursor_text(cursor: Cursor) -> String {
    format!("{}.{}.{}", cursor.worker, cursor.slot, cursor.within)
}

/// A cursor from its text; from the beginning, where there is none.
pub fn cursor(text: Option<&str>) -> Result<Cursor, ApiError> {
    let Some(text) = text else {
        return Ok(Cursor::default());
    };
    let mut parts = text.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(worker)), Some(Ok(slot)), Some(Ok(within)), None) => Ok(Cursor {
            worker,
            slot,
            within,
        }),
        _ => Err(ApiError::invalid(
            "cursor",
            format!("{text:?} is no cursor"),
            "what an answer gave as next, with the same filter",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let at = Cursor {
            worker: 3,
            slot: 70_000,
            within: 9,
        };
        assert_eq!(cursor(Some(&cursor_text(at))).unwrap(), at);
        assert_eq!(cursor(None).unwrap(), Cursor::default());
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "-1.0.0",
            "1.2.99999999999",
        ] {
            assert!(cursor(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
