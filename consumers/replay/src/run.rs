//! The loop of a replay: read, select, keep the pace, write, finish a batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use serde::{Deserialize, Serialize};

use crate::line::Line;
use crate::pace::Pacer;
use crate::plan::Span;
use crate::source::{Next, Source};
use crate::{Error, Kafka, Pace, Resume, Selection, Target};

/// A batch is finished after this many records, …
const BATCH_RECORDS_MAX: u64 = 20_000;
/// … this many bytes, …
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// … or this time.
const BATCH_TIME_MAX: Duration = Duration::from_secs(1);
/// How often the clock is looked at, in records.
const CLOCK_RECORDS: u64 = 256;
/// How long one look at a source takes.
const LOOK: Duration = Duration::from_millis(100);
/// How often somebody who watches is told.
const TELL: Duration = Duration::from_millis(200);
/// Partitions that can be read in the order of their times: each needs a consumer of its own.
const ORDERED_PARTITIONS_MAX: usize = 64;

/// How far a replay came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The next offset of each span.
    pub positions: Vec<i64>,
    /// Records read, whether they were meant or not.
    pub scanned: u64,
    /// Records written.
    pub written: u64,
    /// Records written of each span.
    pub written_of: Vec<u64>,
    /// Records that were meant, but are none that the target takes.
    pub skipped: u64,
    /// Bytes in the file that belong to finished batches.
    pub file_bytes: u64,
}

impl Progress {
    /// Of a replay that did not begin.
    #[must_use]
    pub fn of(spans: &[Span]) -> Self {
        Self {
            positions: spans.iter().map(|span| span.first).collect(),
            written_of: vec![0; spans.len()],
            ..Self::default()
        }
    }

    /// Offsets that are behind it.
    #[must_use]
    pub fn offsets(&self, spans: &[Span]) -> u64 {
        let done = spans.iter().zip(&self.positions);
        done.map(|(span, position)| u64::try_from(position - span.first).unwrap_or(0))
            .sum()
    }
}

/// Somebody who wants to know how it goes.
pub trait Watch {
    /// Called some times a second.
    fn progress(&mut self, progress: &Progress);
}

/// How a replay ended, other than in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All was read, or the limit was reached.
    Whole,
    /// Somebody asked it to stop; what was begun is finished.
    Stopped,
}

/// A replay that is set up.
pub struct Run<'a> {
    /// How Kafka is reached.
    pub kafka: &'a Kafka,
    /// What is read.
    pub spans: &'a [Span],
    /// How far it came before.
    pub progress: Progress,
    /// Which records are meant.
    pub selection: Selection,
    /// Most records that are written.
    pub limit: Option<u64>,
    /// Whether all partitions are read at once, the oldest record first. A speed does that, too.
    pub by_time: bool,
    /// How fast it goes.
    pub pace: Pace,
    /// Where the records go.
    pub target: Target,
    /// The file with which it can go on.
    pub resume: Option<Resume>,
}

impl Run<'_> {
    /// Runs to the end, or until `stop` is set. Afterwards `progress` and `target` say what was done.
    ///
    /// # Errors
    /// Kafka or the target fails for good. What was finished stays; with a resume file it can go on.
    pub fn run(&mut self, watch: &mut dyn Watch, stop: &AtomicBool) -> Result<Ended, Error> {
        let started = Instant::now();
        let mut step = Step {
            spans: self.spans,
            progress: &mut self.progress,
            selection: &self.selection,
            limit: self.limit.unwrap_or(u64::MAX),
            pacer: Pacer::new(self.pace, started),
            target: &mut self.target,
            resume: &mut self.resume,
            watch,
            stop,
            batch: Batch::since(started),
            told: started,
            stopped: false,
        };
        let read = if step.progress.written >= step.limit {
            Ok(())
        } else if self.by_time || self.pace.speed.is_some() {
            by_time(self.kafka, self.spans, &mut step)
        } else {
            by_topic(self.kafka, self.spans, &mut step)
        };
        if let Err(error) = read {
            if let Target::Copies(copies) = step.target {
                copies.abort();
            }
            return Err(error);
        }
        let ended = if step.stopped {
            Ended::Stopped
        } else {
            Ended::Whole
        };
        step.finish_batch(ended == Ended::Whole)?;
        if ended == Ended::Whole
            && let Target::Copies(copies) = &self.target
        {
            copies.clean_up();
        }
        Ok(ended)
    }
}

/// One topic after another, its partitions as they come.
fn by_topic(kafka: &Kafka, spans: &[Span], step: &mut Step<'_>) -> Result<(), Error> {
    let mut open = unread(spans, step.progress).peekable();
    while let Some(first) = open.next() {
        let topic = first.1.topic.clone();
        let mut of_topic = vec![first];
        while let Some(next) = open.next_if(|(_, span, _)| span.topic == topic) {
            of_topic.push(next);
        }
        let source = Source::open(kafka, &of_topic)?;
        loop {
            let go_on = match source.next(LOOK)? {
                Next::Record(number, message) => step.record(number, &message)?,
                Next::Ended(number) => step.ended(number),
                Next::Idle => step.idle()?,
                Next::Done => break,
            };
            if !go_on {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All partitions at once, the oldest record first.
fn by_time(kafka: &Kafka, spans: &[Span], step: &mut Step<'_>) -> Result<(), Error> {
    let open: Vec<_> = unread(spans, step.progress).collect();
    if open.len() > ORDERED_PARTITIONS_MAX {
        return Err(Error::Refused(format!(
            "--speed and --ordered-by time read at most {ORDERED_PARTITIONS_MAX} partitions at once, these topics have {}: replay them one by one",
            open.len()
        )));
    }
    let sources = open
        .into_iter()
        .map(|span| Source::open(kafka, &[span]))
        .collect::<Result<Vec<_>, _>>()?;
    let mut heads: Vec<Option<(usize, BorrowedMessage<'_>)>> =
        sources.iter().map(|_| None).collect();
    let mut done = vec![false; sources.len()];
    loop {
        // Which is the oldest is known when each has shown its next.
        for (source, (head, done)) in sources.iter().zip(heads.iter_mut().zip(&mut done)) {
            while head.is_none() && !*done {
                let go_on = match source.next(LOOK)? {
                    Next::Record(number, message) => {
                        *head = Some((number, message));
                        true
                    }
                    Next::Ended(number) => step.ended(number),
                    Next::Idle => step.idle()?,
                    Next::Done => {
                        *done = true;
                        true
                    }
                };
                if !go_on {
                    return Ok(());
                }
            }
        }
        let oldest = heads
            .iter_mut()
            .filter(|head| head.is_some())
            .min_by_key(|head| {
                let message = head.as_ref().map(|(_, message)| message.timestamp());
                message.and_then(|time| time.to_millis())
            });
        match oldest.and_then(Option::take) {
            Some((number, message)) => {
                if !step.record(number, &message)? {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
}

/// The spans with something left: number, span, position.
fn unread<'s>(
    spans: &'s [Span],
    progress: &Progress,
) -> impl Iterator<Item = (usize, &'s Span, i64)> + use<'s> {
    let positions = progress.positions.clone();
    spans
        .iter()
        .enumerate()
        .map(move |(number, span)| (number, span, positions[number]))
        .filter(|(_, span, position)| *position < span.end)
}

/// What was done since the last batch was finished.
struct Batch {
    since: Instant,
    scanned: u64,
    written: u64,
    bytes: u64,
}

impl Batch {
    fn since(since: Instant) -> Self {
        Self {
            since,
            scanned: 0,
            written: 0,
            bytes: 0,
        }
    }
}

struct Step<'a> {
    spans: &'a [Span],
    progress: &'a mut Progress,
    selection: &'a Selection,
    limit: u64,
    pacer: Pacer,
    target: &'a mut Target,
    resume: &'a mut Option<Resume>,
    watch: &'a mut dyn Watch,
    stop: &'a AtomicBool,
    batch: Batch,
    told: Instant,
    stopped: bool,
}

impl Step<'_> {
    /// Deals with a record; `false` when it was the last.
    fn record(&mut self, number: usize, message: &BorrowedMessage<'_>) -> Result<bool, Error> {
        if self.asked_to_stop() {
            return Ok(false);
        }
        match Line::of(message) {
            Some(line) if self.selection.takes(&line) => {
                if !self.keep_pace(line.timestamp_ms)? {
                    return Ok(false);
                }
                if self.target.write(&line)? {
                    self.progress.written += 1;
                    self.progress.written_of[number] += 1;
                    self.batch.written += 1;
                    self.batch.bytes += line.bytes() as u64;
                } else {
                    self.progress.skipped += 1;
                }
            }
            Some(_) => {}
            None => self.progress.skipped += 1,
        }
        self.batch.scanned += 1;
        self.progress.scanned += 1;
        self.progress.positions[number] = message.offset() + 1;
        if self.batch.written >= BATCH_RECORDS_MAX
            || self.batch.bytes >= BATCH_BYTES_MAX
            || self.batch.scanned.is_multiple_of(CLOCK_RECORDS)
                && self.batch.since.elapsed() >= BATCH_TIME_MAX
        {
            self.finish_batch(false)?;
        }
        if self.batch.scanned.is_multiple_of(CLOCK_RECORDS) {
            self.tell();
        }
        Ok(self.progress.written < self.limit)
    }

    fn ended(&mut self, number: usize) -> bool {
        self.progress.positions[number] = self.spans[number].end;
        true
    }

    fn idle(&mut self) -> Result<bool, Error> {
        if self.asked_to_stop() {
            return Ok(false);
        }
        if self.batch.scanned > 0 && self.batch.since.elapsed() >= BATCH_TIME_MAX {
            self.finish_batch(false)?;
        }
        self.tell();
        Ok(true)
    }

    fn asked_to_stop(&mut self) -> bool {
        self.stopped |= self.stop.load(Ordering::Relaxed);
        self.stopped
    }

    /// Waits until the next record is due; `false` when it was asked to stop meanwhile.
    fn keep_pace(&mut self, timestamp_ms: Option<i64>) -> Result<bool, Error> {
        let Some(due) = self.pacer.due(timestamp_ms) else {
            return Ok(true);
        };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            // What is written does not wait for what comes later.
            if !self.idle()? {
                return Ok(false);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn tell(&mut self) {
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.watch.progress(self.progress);
        }
    }

    fn finish_batch(&mut self, done: bool) -> Result<(), Error> {
        self.target.finish_batch(self.progress)?;
        if let Some(resume) = self.resume {
            resume.save(self.progress, done)?;
        }
        self.batch = Batch::since(Instant::now());
        self.watch.progress(self.progress);
        Ok(())
    }
}
