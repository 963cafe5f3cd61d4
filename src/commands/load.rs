//! `millstream load …`: the load generator's command line. What it does is in the crate `loadgen`; here are signals,
//! output and exit codes.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;

use anyhow::Context;
use loadgen::agents;
use loadgen::cli::{AgentArgs, Execution, Load, LoadCommand, LoadError, ReportArgs, RunArgs};
use loadgen::report::{Report, compare::Comparison, json, page, text};
use loadgen::scenario::{Scenario, builtin_names};

use tokio::sync::mpsc::Sender;

use super::{block_on, blocking, print};
use crate::exit::Failure;
use crate::signals;

/// Runs the command.
///
/// # Errors
/// A start failure for what cannot begin; a failure for a run that did not keep to its limits.
pub fn run(load: Load) -> Result<(), Failure> {
    let builtin =
        |name: &str, args: RunArgs| run_scenario(args, |args| Execution::of_builtin(name, args));
    match load.command {
        LoadCommand::Connect(args) => builtin("connect", args),
        LoadCommand::ConnectStorm(args) => builtin("connect-storm", args),
        LoadCommand::ReconnectStorm(args) => builtin("reconnect-storm", args),
        LoadCommand::Idle(args) => builtin("idle", args),
        LoadCommand::FanOut(args) => builtin("fan-out", args),
        LoadCommand::SlowReader(args) => builtin("slow-reader", args),
        LoadCommand::FanIn(args) => builtin("fan-in", args),
        LoadCommand::Pairs(args) => builtin("pairs", args),
        LoadCommand::Wildcard(args) => builtin("wildcard", args),
        LoadCommand::Shared(args) => builtin("shared", args),
        LoadCommand::Retained(args) => builtin("retained", args),
        LoadCommand::Chat(args) => builtin("chat", args),
        LoadCommand::Iot(args) => builtin("iot", args),
        LoadCommand::Mixed(args) => builtin("mixed", args),
        LoadCommand::Backends(args) => builtin("backends", args),
        LoadCommand::Persisted(args) => builtin("persisted", args),
        LoadCommand::Run(run) => {
            let scenario = Scenario::load(&run.file).map_err(Failure::cannot_start)?;
            run_scenario(run.run, |args| Execution::new(scenario, args))
        }
        LoadCommand::Show { name } => {
            print(Scenario::builtin_toml(&name).map_err(Failure::cannot_start)?)
        }
        LoadCommand::List => print(&list()),
        LoadCommand::Report(args) => report(&args),
        LoadCommand::Agent(args) => agent(&args),
    }
}

fn list() -> String {
    let width = builtin_names()
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    builtin_names()
        .iter()
        .map(|(name, about)| format!("{name:width$}  {about}\n"))
        .collect()
}

fn run_scenario(
    args: RunArgs,
    work_out: impl FnOnce(RunArgs) -> Result<Execution, LoadError>,
) -> Result<(), Failure> {
    let (json_file, html_file) = (args.json.clone(), args.html.clone());
    if json_file.is_some() && json_file == html_file {
        return Err(Failure::cannot_start(
            "--json and --html name the same file; the one would be written over the other",
        ));
    }
    for (option, file) in [("--json", &json_file), ("--html", &html_file)] {
        if let Some(file) = file {
            writable(option, file)?;
        }
    }
    let execution = work_out(args).map_err(Failure::cannot_start)?;
    eprintln!("{}", execution.describe());
    let gates = execution.gates();
    let report = block_on_result(async move {
        let mut shutdown = signals::listen().map_err(anyhow::Error::from)?;
        tokio::spawn(async move {
            signals::asked(&mut shutdown).await;
            gates.stop("a signal");
        });
        blocking(move || execution.run())
            .await?
            .map_err(Failure::cannot_start)
    })?;
    // First what cannot fail for want of a disk.
    print(&text::text(&report, std::io::stdout().is_terminal()))?;
    if let Some(file) = &json_file {
        json::write(&report, file).map_err(anyhow::Error::from)?;
    }
    if let Some(file) = &html_file {
        page::write(&report, file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match report.failures.len() {
        0 if report.measured_nothing() => Err(Failure::Unfinished(
            "the run was interrupted before anything was measured".to_owned(),
        )),
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("the run failed: {}", report.failures[0]).into()),
        more => Err(anyhow::anyhow!(
            "the run failed for {more} reasons; the first: {}",
            report.failures[0]
        )
        .into()),
    }
}

/// A run of minutes must not end with a report that cannot be written.
fn writable(option: &str, file: &Path) -> Result<(), Failure> {
    let there = file.exists();
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.map_err(|error| {
        let file = file.display();
        Failure::cannot_start(format!("{option}: {file} cannot be written: {error}"))
    })?;
    if !there {
        // It was made for the question only.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn report(args: &ReportArgs) -> Result<(), Failure> {
    let reports = args
        .reports
        .iter()
        .map(|file| json::read(file).map_err(Failure::cannot_start))
        .collect::<Result<Vec<Report>, Failure>>()?;
    let color = std::io::stdout().is_terminal();
    if let Some(file) = &args.html {
        writable("--html", file)?;
    }
    if let [report] = reports.as_slice() {
        if let Some(file) = &args.html {
            page::write(report, file)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        return print(&text::text(report, color));
    }
    let comparison = Comparison::of(&reports).map_err(Failure::cannot_start)?;
    if let Some(file) = &args.html {
        comparison
            .write_page(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&comparison.text(color))
}

fn agent(args: &AgentArgs) -> Result<(), Failure> {
    if args.pipe {
        return block_on(async {
            // Ctrl-C at a terminal is told to this process, too, and is the coordinator's business: it says when to end.
            let _shutdown = signals::listen().map_err(anyhow::Error::from)?;
            Ok(blocking(agents::serve_pipe)
                .await?
                .context("the coordinator")?)
        });
    }
    let listener = TcpListener::bind(args.listen)
        .map_err(|error| Failure::cannot_start(format!("--listen {}: {error}", args.listen)))?;
    let address = listener.local_addr().context("the listener")?;
    eprintln!("millstream load agent: waits for coordinators at {address}");
    let sources = args.source_addresses.clone();
    let (tell, mut runs) = tokio::sync::mpsc::channel(1);
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || agents::serve(&listener, &sources, Desk { runs: tell }))
        .context("the agent's thread")?;
    let once = args.once;
    block_on(async move {
        let mut shutdown = signals::listen().map_err(anyhow::Error::from)?;
        tokio::select! {
            () = signals::asked(&mut shutdown) => {}
            Some(()) = runs.recv(), if once => {}
        }
        Ok(())
    })
}

/// Where an agent says what it does.
struct Desk {
    runs: Sender<()>,
}

impl agents::Office for Desk {
    fn said(&self, line: &str) {
        eprintln!("agent: {line}");
    }

    fn done(&self) {
        // One that waits is enough.
        let _ = self.runs.try_send(());
    }
}

/// [`block_on`] with a result.
fn block_on_result<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut result = None;
    block_on(async {
        result = Some(work.await?);
        Ok(())
    })?;
    result.context("no result").map_err(Failure::from)
}
