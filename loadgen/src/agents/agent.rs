//! An agent: waits for a coordinator, runs its share, reports.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::protocol::{AgentError, FromAgent, PROTOCOL, Start, ToAgent, receive, send};
use crate::clock::Nanos;
use crate::outcome::Outcome;
use crate::real::{RealOptions, RealSwarm};
use crate::runner::{self, Gate, Live, Step};
use crate::scenario::{Scenario, machine};

/// Runs shares for coordinators that connect, one after the other, until the process ends. `said` gets a line for each.
///
/// # Errors
/// The listener fails.
pub fn serve(listener: &TcpListener, mut said: impl FnMut(&str)) -> io::Result<()> {
    loop {
        let (stream, from) = listener.accept()?;
        said(&format!("a run for {from}"));
        let result = stream
            .try_clone()
            .map_err(AgentError::from)
            .and_then(|writer| converse(BufReader::new(stream), writer));
        match result {
            Ok(()) => said("done"),
            Err(error) => said(&format!("the run ended: {error}")),
        }
    }
}

/// Runs one share for the process at the other end of standard input and output.
///
/// # Errors
/// The conversation fails.
pub fn serve_pipe() -> Result<(), AgentError> {
    converse(BufReader::new(io::stdin()), io::stdout())
}

/// What the coordinator has said so far.
#[derive(Debug, Default)]
struct Heard {
    opened: Vec<(Step, Nanos)>,
    stop: Option<String>,
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(
    mut reader: impl BufRead + Send + 'static,
    mut writer: impl Write,
) -> Result<(), AgentError> {
    let ToAgent::Start(start) = receive(&mut reader)? else {
        return Err(AgentError::Protocol("no start".to_owned()));
    };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let of_thread = Arc::clone(&heard);
    std::thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || {
            loop {
                let message = receive(&mut reader);
                let mut heard = lock(&of_thread);
                match message {
                    Ok(ToAgent::Open { step, at }) => heard.opened.push((step, at)),
                    Ok(ToAgent::Stop { why }) => heard.stop = Some(why),
                    Ok(ToAgent::Start(_)) => {}
                    Err(error) => {
                        let why = format!("the coordinator is gone: {error}");
                        heard.stop.get_or_insert(why);
                        return;
                    }
                }
            }
        })?;
    let mut gate = RemoteGate {
        heard,
        writer: &mut writer,
        arrived: Vec::new(),
        broken: None,
    };
    let answer = match run(&start, &mut gate) {
        Ok(outcome) => FromAgent::Outcome(Box::new(outcome)),
        Err(why) => FromAgent::Failed { why },
    };
    send(&mut writer, &answer)
}

fn run(start: &Start, gate: &mut dyn Gate) -> Result<Outcome, String> {
    if start.protocol != PROTOCOL {
        return Err(format!(
            "the coordinator speaks protocol {}, this agent {PROTOCOL}: use the same version",
            start.protocol
        ));
    }
    // What is missing then is said by the first client without a socket.
    let _ = machine::raise_open_files();
    let mut scenario = Scenario::parse(&start.scenario_toml, "the coordinator's scenario")
        .map_err(|error| error.to_string())?;
    scenario.connect.password.clone_from(&start.password);
    let plan = scenario
        .plan(start.run, start.seed)
        .map_err(|error| error.to_string())?;
    let options = RealOptions {
        source_addresses: start.source_addresses.clone(),
        share: start.share,
        ..RealOptions::new(start.broker, plan.clients())
    };
    let mut swarm = RealSwarm::new(options).map_err(|error| error.to_string())?;
    Ok(runner::run(&plan, start.share, &mut swarm, gate))
}

/// The steps, by way of the coordinator.
struct RemoteGate<'a, W> {
    heard: Arc<Mutex<Heard>>,
    writer: &'a mut W,
    arrived: Vec<Step>,
    broken: Option<String>,
}

impl<W: Write> RemoteGate<'_, W> {
    fn say(&mut self, message: &FromAgent) {
        if self.broken.is_none()
            && let Err(error) = send(self.writer, message)
        {
            self.broken = Some(format!("the coordinator is gone: {error}"));
        }
    }
}

impl<W: Write> Gate for RemoteGate<'_, W> {
    fn arrive(&mut self, step: Step, now: Nanos) {
        if !self.arrived.contains(&step) {
            self.arrived.push(step);
            self.say(&FromAgent::Arrived { step, at: now });
        }
    }

    fn opens(&mut self, step: Step) -> Option<Nanos> {
        let heard = lock(&self.heard);
        let opened = heard.opened.iter().find(|(opened, _)| *opened == step);
        opened.map(|(_, at)| *at)
    }

    fn stopped(&mut self) -> Option<String> {
        let stop = lock(&self.heard).stop.clone();
        stop.or_else(|| self.broken.clone())
    }

    fn live(&mut self, live: &Live) {
        self.say(&FromAgent::Live(*live));
    }
}
