//! The partitions that a consumer has, and what waits in memory for each. Pure bookkeeping: no Kafka, no clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::client::{PartitionSnapshot, Snapshot};
use crate::status::{PartitionStatus, RetryStatus};

/// Buffers of a batch larger than this are given back after use.
const BUFFER_BYTES_KEPT_MAX: usize = 256 << 10;

/// Lag that is older than this is not known. Statistics come every second.
const LAG_AGE_MAX: Duration = Duration::from_secs(5);

/// A broker that says nothing for so long after it should have is cut off: the connection may stand though nothing comes
/// through.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// One partition.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Records read and not yet handled, or handled in vain.
    pub(crate) batch: Batch,
    /// Offset after the last record that was handled.
    pub(crate) next_offset: Option<i64>,
    /// Offset after the last record that was read.
    pub(crate) read_offset: Option<i64>,
    /// Set while the partition is paused after a failure.
    pub(crate) retry: Option<Retry>,
    /// Where the log ends; `None` until Kafka was asked.
    pub(crate) log_end: Option<i64>,
    log_start: Option<i64>,
    fetch_offset: Option<i64>,
    committed: Option<i64>,
    fetched: i64,
    /// Since when the Kafka broker that has it cannot be reached.
    unreachable_since: Option<Instant>,
    /// When Kafka last said where the log ends.
    known_at: Option<Instant>,
    /// When a record last came, or could not come because the partition was paused.
    moved_at: Instant,
}

/// A pause after transient failures in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    pub(crate) error: String,
    pub(crate) due: Instant,
}

/// All partitions of a consumer.
#[derive(Debug)]
pub(crate) struct Assignment {
    cluster: Arc<str>,
    /// How long a broker may say nothing.
    silence_max: Duration,
    slots: Vec<Slot>,
    /// Where the last record went: records come in runs of one partition.
    last: usize,
    /// When a record last came, of whichever partition.
    arrived_at: Option<Instant>,
}

impl Assignment {
    /// No partitions of this cluster, which answers within `fetch_wait` when it has nothing new.
    pub(crate) fn new(cluster: Arc<str>, fetch_wait: Duration) -> Self {
        Self {
            cluster,
            silence_max: fetch_wait + SILENCE_MAX,
            slots: Vec::new(),
            last: 0,
            arrived_at: None,
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slot_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let is = |slot: &Slot| slot.partition == partition && *slot.topic == *topic;
        if self.slots.get(self.last).is_some_and(is) {
            return Some(self.last);
        }
        self.slots.iter().position(is)
    }

    pub(crate) fn assign(&mut self, topic: &str, partition: i32, now: Instant) {
        if self.find(topic, partition).is_some() {
            return;
        }
        let topic: Arc<str> = Arc::from(topic);
        self.slots.push(Slot {
            batch: Batch::new(Arc::clone(&topic), partition).of_cluster(Arc::clone(&self.cluster)),
            topic,
            partition,
            next_offset: None,
            read_offset: None,
            retry: None,
            log_end: None,
            log_start: None,
            fetch_offset: None,
            committed: None,
            fetched: 0,
            unreachable_since: None,
            known_at: None,
            moved_at: now,
        });
    }

    /// Forgets a partition and what waits for it: it was not committed, so its next owner reads it.
    pub(crate) fn revoke(&mut self, topic: &str, partition: i32) {
        if let Some(index) = self.find(topic, partition) {
            self.slots.swap_remove(index);
        }
    }

    /// Finds the partition to which a record that came belongs; `None` when it is not ours any more. `Err` says that offsets
    /// went back: the topic was made anew, and what was read before is of another log.
    pub(crate) fn arrival(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        now: Instant,
    ) -> Result<Option<&mut Batch>, String> {
        let Some(index) = self.find(topic, partition) else {
            return Ok(None);
        };
        self.last = index;
        let slot = &mut self.slots[index];
        if let Some(read) = slot.read_offset.filter(|read| offset < *read) {
            return Err(format!(
                "{topic}/{partition} went back from offset {read} to {offset}"
            ));
        }
        slot.read_offset = Some(offset + 1);
        slot.moved_at = now;
        self.arrived_at = Some(now);
        Ok(Some(&mut slot.batch))
    }

    /// Whether partition `index` is stalled: more is to read up to `log_end`, Kafka says, or was fetched, but nothing comes.
    ///
    /// All partitions share the queue of what was fetched, and librdkafka's statistics tell its length for each of them. So
    /// what waits in it says nothing of a partition as long as records of others come out of it.
    pub(crate) fn is_stalled(
        &self,
        index: usize,
        log_end: i64,
        timeout: Duration,
        now: Instant,
    ) -> bool {
        let came_lately = |at: Instant| now.saturating_duration_since(at) < timeout;
        let slot = &self.slots[index];
        let holds_back = slot.fetched > 0 && !self.arrived_at.is_some_and(came_lately);
        slot.looks_stalled(timeout, now) && (holds_back || slot.has_more(log_end))
    }

    /// The partitions with records that were not tried yet.
    pub(crate) fn fresh(&self) -> Vec<usize> {
        let ready = |slot: &&Slot| slot.retry.is_none() && !slot.batch.is_empty();
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| ready(slot))
            .map(|(index, _)| index)
            .collect()
    }

    /// The paused partition that has to be tried again, the one that waits longest first.
    pub(crate) fn due(&self, now: Instant) -> Option<usize> {
        let due = |slot: &Slot| {
            slot.retry
                .as_ref()
                .map(|retry| retry.due)
                .filter(|due| *due <= now)
        };
        let due = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((due(slot)?, index)));
        due.min().map(|(_, index)| index)
    }

    /// When the next paused partition is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|slot| slot.retry.as_ref().map(|retry| retry.due))
            .min()
    }

    /// Takes over what librdkafka's statistics say.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot, now: Instant) {
        for seen in &snapshot.partitions {
            if let Some(index) = self.find(&seen.topic, seen.partition) {
                self.slots[index].observe(seen, self.silence_max, now);
            }
        }
    }

    /// Nothing could move until now, for a reason of our own.
    pub(crate) fn moved(&mut self, now: Instant) {
        for slot in &mut self.slots {
            slot.moved_at = now;
        }
    }

    /// Status of every partition, in order.
    pub(crate) fn status(&self, now: Instant) -> Vec<PartitionStatus> {
        let mut all: Vec<_> = self.slots.iter().map(|slot| slot.status(now)).collect();
        all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        all
    }
}

impl Slot {
    fn observe(&mut self, seen: &PartitionSnapshot, silence_max: Duration, now: Instant) {
        let known = |offset: i64| (offset >= 0).then_some(offset);
        self.log_start = known(seen.log_start).or(self.log_start);
        self.committed = known(seen.committed).or(self.committed);
        self.log_end = self.log_end.max(known(seen.log_end));
        if known(seen.fetch_offset) != self.fetch_offset {
            self.fetch_offset = known(seen.fetch_offset);
            self.moved_at = now;
        }
        self.fetched = seen.fetched;
        let silent = seen.silent.unwrap_or_default();
        let heard_at = now.checked_sub(silent).unwrap_or(now);
        if seen.reachable && silent < silence_max {
            self.unreachable_since = None;
            let known_at = known(seen.log_end).map(|_| heard_at);
            self.known_at = self.known_at.max(known_at);
        } else {
            self.unreachable_since.get_or_insert(heard_at);
        }
        // Nothing can move then; and who is reached again is given time.
        if self.retry.is_some() || self.is_cut_off() {
            self.moved_at = now;
        }
    }

    /// Writes down that everything in `batch` is done, and takes the buffer back.
    pub(crate) fn done(&mut self, mut batch: Batch) {
        self.next_offset = batch.next_offset().or(self.next_offset);
        self.retry = None;
        if self.batch.is_empty() && batch.bytes() <= BUFFER_BYTES_KEPT_MAX {
            batch.clear();
            self.batch = batch;
        }
    }

    /// Writes down a failure; `batch` is tried again when the time has come.
    pub(crate) fn failed(&mut self, batch: Batch, error: String, backoff: Backoff, now: Instant) {
        self.batch = batch;
        let failures = self
            .retry
            .as_ref()
            .map_or(0, |retry| retry.failures)
            .saturating_add(1);
        self.retry = Some(Retry {
            failures,
            error,
            due: now + backoff.pause(failures),
        });
    }

    /// Takes the records out, to be handled. The empty batch that stays can take further ones.
    pub(crate) fn take_batch(&mut self) -> Batch {
        let empty = Batch::new(Arc::clone(&self.topic), self.partition)
            .of_cluster(self.batch.cluster_shared());
        std::mem::replace(&mut self.batch, empty)
    }

    fn has_more(&self, log_end: i64) -> bool {
        self.fetch_offset
            .or(self.read_offset)
            .or(self.committed)
            .unwrap_or(0)
            < log_end
    }

    /// Whether its Kafka broker cannot be reached: nothing comes, and nobody could be asked.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.unreachable_since.is_some()
    }

    /// Whether nothing came for `timeout` although something could: worth asking Kafka where the log ends.
    pub(crate) fn looks_stalled(&self, timeout: Duration, now: Instant) -> bool {
        self.retry.is_none() && now.saturating_duration_since(self.moved_at) >= timeout
    }

    /// Kafka said that there is nothing more to read.
    pub(crate) fn verified_idle(&mut self, log_end: i64, now: Instant) {
        self.ends_at(log_end, now);
        self.moved_at = now;
    }

    /// Kafka said where the log ends.
    pub(crate) fn ends_at(&mut self, log_end: i64, now: Instant) {
        self.log_end = self.log_end.max(Some(log_end));
        self.known_at = Some(now);
    }

    /// The next offset to handle, as far as known.
    fn position(&self) -> Option<i64> {
        self.next_offset.or(self.committed).or(self.log_start)
    }

    fn status(&self, now: Instant) -> PartitionStatus {
        let age = self.known_at.map(|at| now.saturating_duration_since(at));
        // What was the lag a while ago says nothing of now.
        let lag = self
            .log_end
            .filter(|_| age.is_some_and(|age| age <= LAG_AGE_MAX))
            .zip(self.position())
            .map(|(end, position)| end.saturating_sub(position));
        PartitionStatus {
            topic: self.topic.to_string(),
            partition: self.partition,
            next_offset: self.next_offset,
            lag: lag.map(|lag| u64::try_from(lag).unwrap_or(0)),
            lag_age_ms: age.map(ms),
            unreachable_ms: self
                .unreachable_since
                .map(|since| ms(now.saturating_duration_since(since))),
            retry: self.retry.as_ref().map(|retry| RetryStatus {
                failures: retry.failures,
                error: retry.error.clone(),
                records: self.batch.len() as u64,
                next_try_ms: ms(retry.due.saturating_duration_since(now)),
            }),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long to pause after failures in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// Doubles with every failure after the first.
    pub(crate) fn pause(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_secs(10),
    };

    fn assignment(now: Instant) -> Assignment {
        let mut assignment = Assignment::new(Arc::from("cluster"), Duration::ZERO);
        for partition in 0..3 {
            assignment.assign("t", partition, now);
        }
        assignment
    }

    fn arrive(assignment: &mut Assignment, partition: i32, offset: i64, now: Instant) -> bool {
        let Ok(Some(batch)) = assignment.arrival("t", partition, offset, now) else {
            return false;
        };
        batch.push(offset, None, None, Some(b"x"), []);
        true
    }

    fn seen(partition: i32, log_end: i64, fetch_offset: i64, fetched: i64) -> Snapshot {
        let partition = PartitionSnapshot {
            topic: "t".to_owned(),
            partition,
            log_start: 0,
            log_end,
            fetch_offset,
            committed: -1001,
            fetched,
            reachable: true,
            silent: None,
        };
        Snapshot {
            broker_up: true,
            partitions: vec![partition],
            ..Snapshot::default()
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<_> = [1, 2, 3, 7, 8, 100, u32::MAX]
            .map(|n| BACKOFF.pause(n).as_millis())
            .into();
        assert_eq!(pauses, [100, 200, 400, 6_400, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn records_of_other_owners_are_skipped_and_offsets_never_go_back() {
        let now = Instant::now();
        let mut assignment = assignment(now);
        assert!(arrive(&mut assignment, 1, 5, now));
        let back = assignment.arrival("t", 1, 5, now).map(|_| ());
        assert_eq!(back, Err("t/1 went back from offset 6 to 5".to_owned()));
        assert!(arrive(&mut assignment, 1, 9, now), "offsets may have gaps");
        assert!(!arrive(&mut assignment, 7, 0, now), "not ours");
        assignment.revoke("t", 1);
        assert!(!arrive(&mut assignment, 1, 10, now), "not ours any more");
        assignment.assign("t", 1, now);
        assert!(
            arrive(&mut assignment, 1, 5, now),
            "ours again: what was not committed comes again"
        );
    }

    #[test]
    fn a_failed_partition_waits_with_its_records_while_others_go_on() {
        let now = Instant::now();
        let mut assignment = assignment(now);
        for partition in 0..2 {
            arrive(&mut assignment, partition, 0, now);
        }
        assert_eq!(assignment.fresh(), [0, 1]);
        let batch = assignment.slot_mut(1).take_batch();
        assignment
            .slot_mut(1)
            .failed(batch, "disk full".to_owned(), BACKOFF, now);
        assert_eq!(assignment.fresh(), [0]);
        assert_eq!(assignment.due(now), None);
        let status = &assignment.status(now)[1];
        let retry = status.retry.as_ref().unwrap();
        assert_eq!(
            (retry.failures, retry.records, retry.next_try_ms),
            (1, 1, 100)
        );

        let due = assignment.next_due().unwrap();
        assert_eq!(assignment.due(due), Some(1));
        let batch = assignment.slot_mut(1).take_batch();
        assert_eq!(batch.len(), 1);
        assignment
            .slot_mut(1)
            .failed(batch, "disk full".to_owned(), BACKOFF, due);
        assert_eq!(
            assignment.next_due().unwrap() - due,
            Duration::from_millis(200)
        );

        let batch = assignment.slot_mut(1).take_batch();
        assignment.slot_mut(1).done(batch);
        assert_eq!(assignment.slots()[1].next_offset, Some(1));
        assert_eq!((assignment.next_due(), assignment.fresh()), (None, vec![0]));
    }

    #[test]
    fn lag_has_an_age_and_is_unknown_when_the_partition_cannot_be_reached() {
        let now = Instant::now();
        let mut assignment = assignment(now);
        assignment.observe(&seen(0, 40, 0, 0), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut away = seen(0, 40, 0, 0);
        away.partitions[0].reachable = false;
        assignment.observe(&away, later(2));
        let status = &assignment.status(later(4))[0];
        assert_eq!(
            (status.lag, status.lag_age_ms, status.unreachable_ms),
            (Some(40), Some(4_000), Some(2_000))
        );
        assignment.observe(&away, later(8));
        let status = &assignment.status(later(8))[0];
        assert_eq!(
            (status.lag, status.lag_age_ms, status.unreachable_ms),
            (None, Some(8_000), Some(6_000))
        );
        assignment.observe(&seen(0, 45, 0, 0), later(9));
        let status = &assignment.status(later(9))[0];
        assert_eq!(
            (status.lag, status.lag_age_ms, status.unreachable_ms),
            (Some(45), Some(0), None)
        );
    }

    #[test]
    fn a_broker_that_says_nothing_is_cut_off_though_its_connection_stands() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let mut assignment = assignment(now);
        assignment.observe(&seen(0, 40, 0, 0), now);
        let mut quiet = seen(0, 40, 0, 0);
        quiet.partitions[0].silent = Some(Duration::from_millis(2_900));
        assignment.observe(&quiet, later(2_900));
        let status = &assignment.status(later(2_900))[0];
        let judged = (status.lag, status.lag_age_ms, status.unreachable_ms);
        assert_eq!(judged, (Some(40), Some(2_900), None));
        assert!(!assignment.slots()[0].is_cut_off());
        quiet.partitions[0].silent = Some(Duration::from_millis(5_500));
        assignment.observe(&quiet, later(5_500));
        let status = &assignment.status(later(5_500))[0];
        let judged = (status.lag, status.lag_age_ms, status.unreachable_ms);
        assert_eq!(judged, (None, Some(5_500), Some(5_500)));
        assert!(assignment.slots()[0].is_cut_off());
        assignment.observe(&seen(0, 41, 0, 0), later(6_000));
        let status = &assignment.status(later(6_000))[0];
        let judged = (status.lag, status.lag_age_ms, status.unreachable_ms);
        assert_eq!(judged, (Some(41), Some(0), None));
    }

    #[test]
    fn lag_is_what_lies_between_the_log_and_the_handled() {
        let now = Instant::now();
        let mut assignment = assignment(now);
        assert_eq!(assignment.status(now)[0].lag, None);
        assignment.observe(&seen(0, 40, 0, 0), now);
        assert_eq!(
            assignment.status(now)[0].lag,
            Some(40),
            "nothing handled, nothing committed: all of it"
        );
        arrive(&mut assignment, 0, 29, now);
        let batch = assignment.slot_mut(0).take_batch();
        assignment.slot_mut(0).done(batch);
        assert_eq!(assignment.status(now)[0].lag, Some(10));
        assignment.observe(&seen(0, 20, 30, 0), now);
        assert_eq!(
            assignment.status(now)[0].lag,
            Some(10),
            "old statistics take nothing back"
        );
    }

    #[test]
    fn a_reader_is_stalled_only_when_more_is_there_and_nothing_moves() {
        let start = Instant::now();
        let timeout = Duration::from_secs(30);
        let later = start + timeout;
        let mut assignment = assignment(start);
        assignment.observe(&seen(0, 10, 10, 0), start);
        let slot = |assignment: &Assignment, end, at| assignment.is_stalled(0, end, timeout, at);
        assert!(
            !slot(&assignment, 11, later - Duration::from_millis(1)),
            "not long enough"
        );
        assert!(!slot(&assignment, 10, later), "nothing more to read");
        assert!(slot(&assignment, 11, later), "more to read");
        assignment.observe(&seen(0, 10, 10, 1), later);
        assert!(slot(&assignment, 10, later), "fetched but not handed out");
        arrive(&mut assignment, 1, 7, start + Duration::from_secs(1));
        assert!(!slot(&assignment, 10, later), "what waits is of another");
        assert!(
            slot(&assignment, 11, later),
            "more to read, though others come"
        );
        let silent = later + Duration::from_secs(1);
        assert!(slot(&assignment, 10, silent), "nothing comes of any");
        assignment.observe(&seen(0, 11, 11, 0), later);
        assert!(!slot(&assignment, 12, later), "it moved");
        arrive(&mut assignment, 0, 11, later);
        let batch = assignment.slot_mut(0).take_batch();
        assignment
            .slot_mut(0)
            .failed(batch, String::new(), BACKOFF, later);
        assert!(!slot(&assignment, 100, later + timeout), "paused by us");
    }
}
