//! `millstream replay …`: the command line of the crate `replay`. What it does is there; here are the checks of options that
//! belong together, the plan told before it starts, progress, signals.

mod reset;

use std::io::{IsTerminal, stderr, stdout};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use replay::{
    Bounds, Census, Copies, Ended, Error, Kafka, Lines, Moment, Pace, Plan, Posts, Progress,
    Resume, Run, Selection, Shape, Span, Target, Watch, new_id,
};
use serde_json::json;

use super::{audited, now_ms, print, stoppable};
use crate::cli;
use crate::config::Config;
use crate::exit::Failure;

/// Records that are appended or published without being confirmed.
const UNCONFIRMED_MAX: u64 = 10_000;
/// Pause between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// A start failure when nothing was done; a failure when it did not come to its end.
pub fn run(options: cli::Replay) -> Result<(), Failure> {
    let common = options.common.clone();
    stoppable(&common, move |config, stop| {
        replay_records(&options, config, stop)
    })
}

fn replay_records(
    options: &cli::Replay,
    config: &Config,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let servers = options.kafka.as_deref().unwrap_or(&config.bridge.kafka);
    let kafka = Kafka::new(servers, config.bridge.properties.clone())?;
    let now_ms = now_ms();
    let from = Bounds::parse("--from", &options.from, Moment::Earliest, now_ms)?;
    if options.group.is_some() || options.undo.is_some() {
        return reset::run(options, &kafka, &from, now_ms);
    }
    let selection = Selection::new(
        &options.filter,
        &options.header,
        options.client_id.as_deref(),
        &options.conditions,
    )?;
    let to = Bounds::parse("--to", &options.to, Moment::Latest, now_ms)?;
    let mut topics = options.topics.clone();
    topics.sort();
    topics.dedup();
    let plan = || -> Result<Vec<Span>, Error> {
        let plan = Plan::resolve(&kafka, &topics, &from, &to, now_ms)?;
        for note in &plan.notes {
            eprintln!("note: {note}");
        }
        confirm(options, plan.offsets())?;
        Ok(plan.spans)
    };
    let resume = options
        .resume
        .as_deref()
        .map(|path| Resume::open(path, &request(options, servers), plan))
        .transpose()?;
    if resume.as_ref().is_some_and(Resume::is_done) {
        eprintln!("this replay has come to its end before; remove the resume file to do it again");
        return Ok(());
    }
    let (spans, mut progress) = match &resume {
        Some(resume) => (resume.spans().to_vec(), resume.progress().clone()),
        None => {
            let spans = plan()?;
            let progress = Progress::of(&spans);
            (spans, progress)
        }
    };
    let id = resume
        .as_ref()
        .map_or_else(new_id, |resume| resume.id().to_owned());
    let target = target(
        options,
        config,
        &kafka,
        (&id, resume.as_ref()),
        &spans,
        &mut progress,
    )?;
    let pace = Pace {
        rate: options.rate,
        speed: options.speed,
    };
    let before = progress.written;
    let mut run = Run {
        kafka: &kafka,
        spans: &spans,
        progress,
        selection,
        limit: options.limit,
        by_time: options.ordered_by == cli::Order::Time,
        // A dry run need not wait for what it only counts.
        pace: if options.dry_run {
            Pace::default()
        } else {
            pace
        },
        target,
        resume,
    };
    let mut screen = Screen::new(&spans);
    let ended = if matches!(run.target, Target::Copies(_)) {
        let work = || {
            let ended = run.run(&mut screen, stop)?;
            Ok((ended, run.progress.written))
        };
        let told = |(ended, written): &(Ended, u64)| json!({ "written": written, "whole": *ended == Ended::Whole });
        audited(&kafka, &id, work, told).map(|(ended, _)| ended)
    } else {
        match run.run(&mut screen, stop) {
            // Who reads has seen enough (`| head`).
            Err(Error::NobodyReads) => return Ok(()),
            ended => ended.map_err(Failure::from),
        }
    };
    screen.end();
    let took = screen.started.elapsed();
    let ended = ended?;
    let progress = &run.progress;
    if let Target::Census(census) = &run.target {
        print(&census.text())?;
        print(&estimate(census, pace, took))?;
    } else {
        eprintln!(
            "{} records written ({} in this run), {} skipped, {} read, {:.1} s",
            progress.written,
            progress.written - before,
            progress.skipped,
            progress.scanned,
            took.as_secs_f64()
        );
    }
    match ended {
        Ended::Whole => Ok(()),
        Ended::Stopped => Err(Failure::Failed(anyhow::anyhow!(
            "stopped before the end{}",
            match &options.resume {
                Some(_) => "; the same command goes on",
                None => "; without --resume it cannot go on",
            }
        ))),
    }
}

/// What makes a replay this one, in words: a resume file belongs to it.
fn request(options: &cli::Replay, servers: &str) -> String {
    format!(
        "{:?} of {servers} from {:?} to {:?}, filter {:?}, header {:?}, client {:?}, where {:?}, by {:?}, limit {:?}, into {}",
        options.topics,
        options.from,
        options.to,
        options.filter,
        options.header,
        options.client_id,
        options.conditions,
        options.ordered_by,
        options.limit,
        match (&options.to_topic, &options.to_file, &options.to_http) {
            (Some(topic), ..) => format!("topic {topic}"),
            (_, Some(file), _) => format!("file {}", file.display()),
            (.., Some(url)) => format!("HTTP {url}"),
            _ if options.to_mqtt => format!(
                "MQTT below {:?}, QoS {:?}, retained {:?}",
                options.topic_prefix, options.qos, options.retain
            ),
            _ => "standard output".to_owned(),
        }
    )
}

fn confirm(options: &cli::Replay, offsets: u64) -> Result<(), Error> {
    let most = offsets.min(options.limit.unwrap_or(u64::MAX));
    let allowed = options.confirm.unwrap_or(UNCONFIRMED_MAX);
    if (options.to_topic.is_some() || options.to_mqtt) && most > allowed {
        return Err(Error::Refused(format!(
            "this replay may write {most} records, more than the {allowed} that are confirmed: look with --dry-run, then \
             say --confirm {most}, or bound it with --limit"
        )));
    }
    Ok(())
}

fn target(
    options: &cli::Replay,
    config: &Config,
    kafka: &Kafka,
    (id, resume): (&str, Option<&Resume>),
    spans: &[Span],
    progress: &mut Progress,
) -> Result<Target, Error> {
    if options.dry_run {
        return Ok(Target::Census(Census::default()));
    }
    if let Some(path) = &options.to_file {
        // One that a replay with this resume file wrote; at its beginning there is none.
        let written = resume.map(|resume| resume.progress().file_bytes);
        if written == Some(0)
            && path.metadata().is_ok_and(|file| file.len() > 0)
            && progress.scanned == 0
        {
            return Err(Error::option(
                "--to-file",
                path.display(),
                "a file that is not there yet: what is in it is not of this replay, or of a batch that was not finished",
            ));
        }
        return Lines::file(path, written).map(Target::Lines);
    }
    if let Some(url) = &options.to_http {
        return Posts::to(url).map(Target::Posts);
    }
    let (topic, shape) = match &options.to_topic {
        Some(topic) => (topic, Shape::Record),
        None if options.to_mqtt => (
            &config.bridge.downlink.topic,
            Shape::Mqtt {
                topic_prefix: options.topic_prefix.clone(),
                qos: options.qos,
                retain: options.retain,
            },
        ),
        None => return Ok(Target::Lines(Lines::to(stdout()))),
    };
    eprintln!("replay {id} into {topic}");
    let copies = Copies::open(kafka, topic, shape, id, spans, resume.is_some(), progress)?;
    Ok(Target::Copies(Box::new(copies)))
}

/// How long the replay would take: as long as reading took here, and as its pace says.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn estimate(census: &Census, pace: Pace, read: Duration) -> String {
    let by_rate = pace.rate.map_or(0.0, |rate| census.records() as f64 / rate);
    let recorded = census.recorded_ms() as f64 / 1_000.0;
    let by_speed = pace.speed.map_or(0.0, |speed| recorded / speed);
    let seconds = read.as_secs_f64().max(by_rate).max(by_speed);
    format!(
        "a replay would take about {seconds:.1} s: reading took {:.1} s here{}\n",
        read.as_secs_f64(),
        match (pace.rate, pace.speed) {
            (None, None) => String::new(),
            _ => ", the rest is its pace".to_owned(),
        }
    )
}

/// Tells how it goes on standard error: a bar on a terminal, else a line now and then.
struct Screen {
    spans: Vec<Span>,
    offsets: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    said: Instant,
}

impl Screen {
    fn new(spans: &[Span]) -> Self {
        let offsets = spans.iter().map(Span::offsets).sum();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(offsets);
            if let Ok(style) = ProgressStyle::with_template(
                "{bar:30} {percent:>3}% {pos}/{len} offsets, {per_sec}, {eta} left; {msg}",
            ) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        Self {
            spans: spans.to_vec(),
            offsets,
            bar,
            started: now,
            said: now,
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Screen {
    fn progress(&mut self, progress: &Progress) {
        let done = progress.offsets(&self.spans);
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{} written", progress.written));
            }
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                eprintln!(
                    "{done} of {} offsets, {} written",
                    self.offsets, progress.written
                );
            }
            None => {}
        }
    }
}
