//! Whose a consumer group is: one store's, whose identity stands in the metadata of each offset that the group commits.
//!
//! Two instances of a group share its partitions. With one store they are one backend; with a store each, each has half of
//! the records: rooms are numbered twice, and replies meet no command. So an instance with another store does not
//! start, and one that comes up in the same moment as another stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::ASK_TIMEOUT;
use crate::config::Config;
use crate::error::StartError;

/// Before the identity in the metadata of an offset.
const PREFIX: &str = "store ";

/// Between two attempts to find out whose the group is.
const RETRY: Duration = Duration::from_millis(100);

/// What the group has committed: partitions with offset and metadata.
type Committed = BTreeMap<(String, i32), (i64, String)>;

/// The identity of a store, as far as its group is concerned.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// None of a store in memory: it leaves no mark, and takes no group that has one.
    id: Option<Arc<str>>,
}

/// Why a store may not work for its group.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Another store does.
    OtherStore(String),
    /// Kafka does not say.
    Unknown(String),
}

impl Identity {
    pub(crate) fn new(id: Option<Arc<str>>) -> Self {
        Self { id }
    }

    /// What is committed with each offset.
    pub(crate) fn mark(&self) -> Option<String> {
        self.id.as_ref().map(|id| format!("{PREFIX}{id}"))
    }

    fn name(&self) -> &str {
        self.id.as_deref().unwrap_or("none: it is in memory")
    }

    /// Finds out, before anything is read, whether the group is this store's; makes it so where the operator wants that.
    pub(crate) fn claim<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        config: &Config,
        timeout: Duration,
    ) -> Result<(), StartError> {
        let unknown = |reason: String| StartError::Group {
            group: config.group.clone(),
            reason,
        };
        let deadline = Instant::now() + timeout;
        let committed = loop {
            match committed(consumer, &config.topics, ASK_TIMEOUT.min(timeout)) {
                Ok(committed) => break committed,
                // A Kafka that was just started has no coordinator yet.
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "Kafka does not say yet whose the group is");
                    std::thread::sleep(RETRY);
                }
                Err(error) => {
                    return Err(unknown(format!("Kafka does not say whose it is: {error}")));
                }
            }
        };
        let Some(owner) = self.other_owner(&committed) else {
            return Ok(());
        };
        if !config.tuning.adopt_store {
            return Err(StartError::OtherStore {
                group: config.group.clone(),
                owner: owner.to_owned(),
                own: self.name().to_owned(),
            });
        }
        tracing::warn!(
            group = config.group,
            from = owner,
            to = self.name(),
            "the store takes over its group from another store"
        );
        self.adopt(consumer, &committed).map_err(|error| {
            unknown(format!(
                "it could not be taken over from the store {owner} (is an instance with that store still running?): {error}"
            ))
        })
    }

    /// Whether another store has come to own the group.
    pub(crate) fn check<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        config: &Config,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        let committed = committed(consumer, &config.topics, timeout)
            .map_err(|error| Refusal::Unknown(error.to_string()))?;
        self.other_owner(&committed).map_or(Ok(()), |owner| {
            let sentence = StartError::OtherStore {
                group: config.group.clone(),
                owner: owner.to_owned(),
                own: self.name().to_owned(),
            };
            Err(Refusal::OtherStore(sentence.to_string()))
        })
    }

    /// The store that owns the group, if it is another one. All instances judge by the first partition that any store has
    /// committed, so of two that began at once one goes on.
    fn other_owner<'a>(&self, committed: &'a Committed) -> Option<&'a str> {
        let owner = committed
            .values()
            .find_map(|(_, metadata)| metadata.strip_prefix(PREFIX))?;
        (Some(owner) != self.id.as_deref()).then_some(owner)
    }

    /// Commits all offsets as they are, as this store's. Kafka refuses that while the group has members.
    fn adopt<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        committed: &Committed,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(committed.len());
        for ((topic, partition), (offset, _)) in committed {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*offset))?;
            if let Some(mark) = self.mark() {
                element.set_metadata(mark);
            }
        }
        consumer.commit(&list, CommitMode::Sync)
    }
}

fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
    timeout: Duration,
) -> KafkaResult<Committed> {
    let mut asked = TopicPartitionList::new();
    for name in topics {
        let metadata = consumer.fetch_metadata(Some(name), timeout)?;
        for topic in metadata.topics().iter().filter(|t| t.name() == name) {
            for partition in topic.partitions() {
                asked.add_partition(name, partition.id());
            }
        }
    }
    let mut committed = Committed::new();
    if asked.count() == 0 {
        return Ok(committed);
    }
    for element in consumer.committed_offsets(asked, timeout)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let at = (element.topic().to_owned(), element.partition());
            committed.insert(at, (offset, element.metadata().to_owned()));
        }
    }
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed<const N: usize>(metadata: [&str; N]) -> Committed {
        (0..)
            .zip(metadata)
            .map(|(partition, metadata)| (("t".to_owned(), partition), (7, metadata.to_owned())))
            .collect()
    }

    #[test]
    fn a_group_is_the_store_s_that_committed_its_first_partition() {
        let identity = Identity::new(Some("a".into()));
        for (metadata, other) in [
            (["", "", ""], None),
            (["", "store a", ""], None),
            (["store b", "", ""], Some("b")),
            (["", "store b", "store a"], Some("b")),
            (["store a", "store b", ""], None),
            (["of another program", "store a", "store b"], None),
        ] {
            assert_eq!(
                identity.other_owner(&committed(metadata)),
                other,
                "{metadata:?}"
            );
        }
        assert_eq!(identity.other_owner(&Committed::new()), None);
        assert_eq!(identity.mark().as_deref(), Some("store a"));
        let in_memory = Identity::new(None);
        assert_eq!(in_memory.other_owner(&committed(["store b"])), Some("b"));
        assert_eq!(in_memory.other_owner(&committed([""])), None);
        assert_eq!(in_memory.mark(), None);
    }
}
