//! An agent: waits for a coordinator, runs its share, reports.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::protocol::{
    AgentError, FROM_AGENT_BYTES_MAX, FromAgent, HELLO_BYTES_MAX, PROTOCOL, Start,
    TO_AGENT_BYTES_MAX, ToAgent, receive, send,
};
use super::watch_over;
use crate::clock::{self, Nanos};
use crate::outcome::Outcome;
use crate::real::{RealOptions, RealSwarm};
use crate::runner::{self, Gate, Live, Step};
use crate::scenario::{Preflight, Scenario, machine};

/// Connections to the agent at the same time. One has the run; others are told so, or say nothing.
const CONVERSATIONS_MAX: usize = 32;

/// Whoever connects greets within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the system could not accept a connection: during a run there may be no file left for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Whom an agent tells what happens.
pub trait Office: Send + Sync + 'static {
    /// A line for people.
    fn said(&self, line: &str);

    /// A coordinator has its outcome.
    fn done(&self);
}

/// Runs shares for coordinators that connect, until the process ends. One at a time: who comes in the meantime is refused
/// and told whose run it is. The clients connect from `sources`; with none, from where the kernel or, for a broker of this
/// machine, the number of clients wants.
pub fn serve(listener: &TcpListener, sources: &[IpAddr], office: impl Office) -> ! {
    let (desk, office) = (Arc::new(Desk::default()), Arc::new(office));
    loop {
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                office.said(&format!("a connection could not be accepted: {error}"));
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if desk.conversations.fetch_add(1, Ordering::Relaxed) >= CONVERSATIONS_MAX {
            desk.conversations.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (at, tell) = (Arc::clone(&desk), Arc::clone(&office));
        let sources = sources.to_vec();
        let spawned = thread::Builder::new()
            .name("conversation".to_owned())
            .spawn(move || {
                if let Err(error) = receive_over_tcp(stream, from, &at, sources, &*tell) {
                    tell.said(&format!("{from}: {error}"));
                }
                at.conversations.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            desk.conversations.fetch_sub(1, Ordering::Relaxed);
            office.said(&format!("{from}: no thread: {error}"));
        }
    }
}

/// Runs one share for the process at the other end of standard input and output.
///
/// # Errors
/// The conversation fails.
pub fn serve_pipe() -> Result<(), AgentError> {
    let (mut reader, mut writer) = (BufReader::new(io::stdin()), io::stdout());
    greet(&mut reader, &mut writer)?;
    converse(reader, &mut writer, None)
}

/// Who has the run.
#[derive(Debug, Default)]
struct Desk {
    run_for: Mutex<Option<SocketAddr>>,
    conversations: AtomicUsize,
}

impl Desk {
    fn run_for(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.run_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The run is somebody's until this is dropped.
struct Claim<'a>(&'a Desk);

impl<'a> Claim<'a> {
    fn of(desk: &'a Desk, from: SocketAddr) -> Result<Self, AgentError> {
        let mut run_for = desk.run_for();
        if let Some(other) = *run_for {
            let why = format!("it is busy with a run for {other}; try again when that has ended");
            return Err(AgentError::Refused(why));
        }
        *run_for = Some(from);
        Ok(Self(desk))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.0.run_for() = None;
    }
}

fn receive_over_tcp(
    stream: TcpStream,
    from: SocketAddr,
    desk: &Desk,
    sources: Vec<IpAddr>,
    office: &dyn Office,
) -> Result<(), AgentError> {
    watch_over(&stream)?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let claim = receive_hello(&mut reader).and_then(|()| Claim::of(desk, from));
    let claim = match claim {
        Ok(claim) => claim,
        // A probe that only wanted to know whether somebody listens.
        Err(AgentError::Gone) => return Ok(()),
        Err(error) => {
            // Whoever it is may not listen.
            let why = error.to_string();
            let _ = send(&mut writer, &FromAgent::Failed { why });
            return Err(error);
        }
    };
    stream.set_read_timeout(None)?;
    answer_hello(&mut writer)?;
    office.said(&format!("a run for {from}"));
    let ended = converse(reader, &mut writer, Some(sources));
    drop(claim);
    // Nothing more to say; what was said is still to be read. The thread that hears the coordinator ends when he hangs up.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    if ended.is_ok() {
        office.said(&format!("the run for {from} is done"));
        office.done();
    }
    ended
}

fn greet(reader: &mut impl BufRead, writer: &mut impl Write) -> Result<(), AgentError> {
    receive_hello(reader)?;
    answer_hello(writer)
}

fn receive_hello(reader: &mut impl BufRead) -> Result<(), AgentError> {
    match receive(reader, HELLO_BYTES_MAX) {
        Ok(ToAgent::Hello { protocol: PROTOCOL }) => Ok(()),
        Ok(ToAgent::Hello { protocol }) => Err(AgentError::Refused(format!(
            "the coordinator speaks protocol {protocol}, this agent {PROTOCOL}: use the same version of the tool"
        ))),
        Ok(_) => Err(AgentError::Protocol("no greeting".to_owned())),
        Err(AgentError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(AgentError::Silent(HELLO_TIMEOUT.as_secs()))
        }
        Err(error) => Err(error),
    }
}

fn answer_hello(writer: &mut impl Write) -> Result<(), AgentError> {
    send(writer, &FromAgent::Hello { protocol: PROTOCOL })
}

/// What the coordinator has said so far.
#[derive(Debug, Default)]
struct Heard {
    opened: Vec<(Step, Nanos)>,
    stop: Option<String>,
    /// Why nothing more will be heard.
    gone: Option<String>,
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After the greeting. `sources`: the agent's own addresses, where it works out by itself whether its machine is enough.
fn converse(
    mut reader: impl BufRead + Send + 'static,
    writer: &mut impl Write,
    sources: Option<Vec<IpAddr>>,
) -> Result<(), AgentError> {
    let start = loop {
        match receive(&mut reader, TO_AGENT_BYTES_MAX)? {
            ToAgent::Clock {} => send(writer, &FromAgent::Clock { at: clock::now() })?,
            ToAgent::Start(start) => break start,
            _ => return Err(AgentError::Protocol("no share was given".to_owned())),
        }
    };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let of_thread = Arc::clone(&heard);
    thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || {
            loop {
                let message = receive(&mut reader, TO_AGENT_BYTES_MAX);
                let mut heard = lock(&of_thread);
                match message {
                    Ok(ToAgent::Open { step, at }) => heard.opened.push((step, at)),
                    Ok(ToAgent::Stop { why }) => heard.stop = Some(why),
                    Ok(ToAgent::Hello { .. } | ToAgent::Clock {} | ToAgent::Start(_)) => {}
                    Err(error) => {
                        let why = format!("the coordinator is gone: {error}");
                        heard.stop.get_or_insert_with(|| why.clone());
                        heard.gone = Some(why);
                        return;
                    }
                }
            }
        })?;
    let mut gate = RemoteGate {
        heard,
        writer,
        arrived: Vec::new(),
        broken: None,
    };
    let answer = match run(&start, sources, &mut gate) {
        Ok(outcome) => FromAgent::Outcome(Box::new(outcome)),
        Err(why) => FromAgent::Failed { why },
    };
    let gone = lock(&gate.heard).gone.take();
    if let Some(why) = gone.or(gate.broken) {
        return Err(AgentError::Refused(why));
    }
    send_outcome(writer, &answer)
}

/// Says why when the line would be too long for the other side.
fn send_outcome(writer: &mut impl Write, answer: &FromAgent) -> Result<(), AgentError> {
    let line =
        serde_json::to_vec(answer).map_err(|error| AgentError::Protocol(error.to_string()))?;
    if line.len() as u64 >= FROM_AGENT_BYTES_MAX {
        let why = format!(
            "its outcome has {} bytes and {FROM_AGENT_BYTES_MAX} are allowed: use more agents",
            line.len()
        );
        return send(writer, &FromAgent::Failed { why });
    }
    writer.write_all(&line)?;
    writer.write_all(b"\n")?;
    Ok(writer.flush()?)
}

fn run(
    start: &Start,
    sources: Option<Vec<IpAddr>>,
    gate: &mut dyn Gate,
) -> Result<Outcome, String> {
    // A limit that cannot be raised is taken as it is.
    let _ = machine::raise_open_files();
    let mut scenario = Scenario::parse(&start.scenario_toml, "the coordinator's scenario")
        .map_err(|error| error.to_string())?;
    scenario.connect.password.clone_from(&start.password);
    let plan = scenario
        .plan(start.run, start.seed)
        .map_err(|error| error.to_string())?;
    let source_addresses = match sources {
        None => start.source_addresses.clone(),
        Some(own) => {
            let machine = machine::Machine::read().map_err(|error| error.to_string())?;
            let preflight = Preflight::of_share(&plan, start.share, start.broker, &own, &machine);
            preflight
                .map_err(|error| format!("{error} (for one agent; more agents share it)"))?
                .source_addresses
        }
    };
    let options = RealOptions {
        source_addresses,
        share: start.share,
        way: start.way.clone(),
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
