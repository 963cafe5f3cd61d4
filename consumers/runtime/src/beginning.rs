//! Where reading begins when partitions are given to a consumer: at what its store has, whatever the group has committed.
//!
//! The group's offset and the store's position differ when a store is another one than before: a backup that was put back,
//! another directory, a store that is made anew. Reading from the group's offset would skip for good what the store does not
//! have. A store that is ahead of the group had no time to commit: what it has not committed it may not have answered, so
//! that is read again.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::ASK_TIMEOUT;
use crate::status::Gap;
use crate::store::Store;

/// What is asked at an assignment.
pub(crate) struct Beginning {
    store: Store,
    tokio: tokio::runtime::Handle,
    cluster: Arc<str>,
}

/// Where a partition is to be read from, if not from the committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// From what the group has committed; from the beginning of the log if it has committed nothing.
    Committed,
    /// From this offset.
    From(i64),
    /// From where the log begins now, which is after what the store has: the records between are gone.
    Gap { from: i64, to: i64 },
}

/// Decides for one partition. `stored` is the store's position, `committed` the group's; `log` is where the log begins and
/// ends.
pub(crate) fn decide(stored: Option<i64>, committed: Option<i64>, log: (i64, i64)) -> Decision {
    let (begins, ends) = log;
    let Some(committed) = committed else {
        return match stored {
            Some(stored) if stored < begins => Decision::Gap {
                from: stored,
                to: begins,
            },
            // Not what lies before: the group was reset, or forgotten, so that all is answered again.
            _ => Decision::Committed,
        };
    };
    let stored = stored.unwrap_or(0);
    if stored >= committed && stored >= begins {
        return Decision::Committed;
    }
    // The log was made anew, and is shorter than what the store has of the old one.
    if stored > ends {
        return Decision::Committed;
    }
    if stored < begins {
        return Decision::Gap {
            from: stored,
            to: begins,
        };
    }
    Decision::From(stored)
}

impl Beginning {
    pub(crate) fn new(store: Store, tokio: tokio::runtime::Handle, cluster: Arc<str>) -> Self {
        Self {
            store,
            tokio,
            cluster,
        }
    }

    /// Sets the offsets in `list` that differ from the committed ones; returns what is gone. An error says that it cannot
    /// be known now.
    pub(crate) fn set<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        list: &mut TopicPartitionList,
    ) -> Result<Vec<Gap>, String> {
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let stored = self
            .tokio
            .block_on(self.store.positions(&self.cluster))
            .map_err(|error| format!("the store does not say how far it is: {error}"))?;
        let committed = consumer
            .committed_offsets(list.clone(), ASK_TIMEOUT)
            .map_err(|error| format!("Kafka does not say what the group has committed: {error}"))?;
        let mut gaps = Vec::new();
        for element in committed.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let stored = stored.get(&(topic.to_owned(), partition)).copied();
            if committed.is_none() && stored.is_none() {
                continue;
            }
            let log = consumer
                .fetch_watermarks(topic, partition, ASK_TIMEOUT)
                .map_err(|error| format!("Kafka does not say where its logs begin: {error}"))?;
            let from = match decide(stored, committed, log) {
                Decision::Committed => continue,
                Decision::From(from) => {
                    tracing::warn!(
                        topic,
                        partition,
                        committed,
                        from,
                        "the store is behind its group: it is read from what the store has"
                    );
                    from
                }
                Decision::Gap { from, to } => {
                    gaps.push(Gap {
                        topic: topic.to_owned(),
                        partition,
                        from,
                        to,
                    });
                    to
                }
            };
            list.set_partition_offset(topic, partition, Offset::Offset(from))
                .map_err(|error| error.to_string())?;
        }
        self.tokio
            .block_on(self.store.note_gaps(&self.cluster, &gaps))
            .map_err(|error| format!("the store does not take what is gone: {error}"))?;
        Ok(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_from_what_the_store_has() {
        use Decision::{Committed, From, Gap};
        for (stored, committed, log, decision) in [
            (None, None, (0, 10), Committed),
            (Some(7), Some(7), (0, 10), Committed),
            (Some(9), Some(7), (0, 10), Committed),
            (Some(4), Some(7), (0, 10), From(4)),
            (None, Some(7), (0, 10), From(0)),
            (Some(4), Some(7), (6, 10), Gap { from: 4, to: 6 }),
            (None, Some(7), (6, 10), Gap { from: 0, to: 6 }),
            // Retention overtook a consumer that was not there.
            (Some(7), Some(7), (9, 10), Gap { from: 7, to: 9 }),
            (Some(7), None, (9, 10), Gap { from: 7, to: 9 }),
            // The group was reset.
            (Some(7), None, (0, 10), Committed),
            (Some(7), Some(0), (0, 10), Committed),
            // The topic was made anew.
            (Some(40), Some(40), (0, 10), Committed),
            (Some(40), Some(50), (0, 10), Committed),
        ] {
            assert_eq!(
                decide(stored, committed, log),
                decision,
                "{stored:?} {committed:?} {log:?}"
            );
        }
    }
}
