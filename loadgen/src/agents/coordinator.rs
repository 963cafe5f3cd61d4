//! The coordinator's side of one agent.

use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::address::AgentAddress;
use super::protocol::{
    AgentError, FROM_AGENT_BYTES_MAX, FromAgent, HELLO_BYTES_MAX, PROTOCOL, Start, ToAgent,
    receive, send,
};
use super::watch_over;
use crate::clock;
use crate::outcome::Outcome;
use crate::runner::{Gate, Live, LocalGate, Step};

/// How often an opened step is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// How long an agent may take to answer the greeting.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent that says nothing for so long is taken for dead. It tells its live figures five times a second.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often an agent is asked for its time; the answer that came fastest counts.
const CLOCK_QUESTIONS: u32 = 8;

/// Messages of an agent that wait to be looked at.
const HEARD_MAX: usize = 1_024;

const STEPS: [Step; 6] = [
    Step::Begin,
    Step::Connected,
    Step::Preloaded,
    Step::Ready,
    Step::Published,
    Step::Delivered,
];

/// An agent that can be talked to.
pub struct Agent {
    name: String,
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
    child: Option<Child>,
    stream: Option<TcpStream>,
    skew: Skew,
}

/// How far an agent's clock is from ours.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Skew {
    /// So much later is it at the agent, in seconds; negative when its clock is behind.
    pub ahead_s: f64,
    /// Give or take, in seconds: half of the way there and back.
    pub error_s: f64,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .field("skew", &self.skew)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Connects to an agent that listens, and greets it. Tries until `deadline` as long as nobody answers; `given_up` ends
    /// that earlier.
    ///
    /// # Errors
    /// It cannot be reached, does not speak our protocol, or is busy.
    pub fn connect(
        address: &AgentAddress,
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> Result<Self, AgentError> {
        let stream = address.connect(deadline, given_up)?;
        watch_over(&stream)?;
        stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
        let mut agent = Self {
            name: address.to_string(),
            reader: BufReader::new(Box::new(stream.try_clone()?)),
            writer: Box::new(stream.try_clone()?),
            child: None,
            stream: None,
            skew: Skew::default(),
        };
        agent.greet().map_err(|error| match error {
            AgentError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                AgentError::Silent(HELLO_TIMEOUT.as_secs())
            }
            error => error,
        })?;
        stream.set_read_timeout(None)?;
        agent.stream = Some(stream);
        Ok(agent)
    }

    /// Starts a process as an agent that talks over its standard input and output, and greets it.
    ///
    /// # Errors
    /// It cannot be started, or is no agent.
    pub fn spawn(mut command: Command) -> Result<Self, AgentError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdout.take().zip(child.stdin.take());
        let (reader, writer) = pipes.ok_or_else(|| io::Error::other("no pipes"))?;
        let mut agent = Self {
            name: format!("process {}", child.id()),
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
            child: Some(child),
            stream: None,
            skew: Skew::default(),
        };
        agent.greet()?;
        Ok(agent)
    }

    fn greet(&mut self) -> Result<(), AgentError> {
        send(&mut self.writer, &ToAgent::Hello { protocol: PROTOCOL })?;
        match receive(&mut self.reader, HELLO_BYTES_MAX)? {
            FromAgent::Hello { protocol: PROTOCOL } => {}
            FromAgent::Hello { protocol } => {
                let why = format!(
                    "it speaks protocol {protocol}, we speak {PROTOCOL}: use the same version of the tool"
                );
                return Err(AgentError::Refused(why));
            }
            FromAgent::Failed { why } => return Err(AgentError::Refused(why)),
            _ => return Err(AgentError::Protocol("no greeting".to_owned())),
        }
        let mut best: Option<Skew> = None;
        for _ in 0..CLOCK_QUESTIONS {
            let asked = clock::now();
            send(&mut self.writer, &ToAgent::Clock {})?;
            let FromAgent::Clock { at } = receive(&mut self.reader, HELLO_BYTES_MAX)? else {
                return Err(AgentError::Protocol("no time of day".to_owned()));
            };
            let way = clock::now().saturating_sub(asked);
            let skew = Skew {
                ahead_s: (i128::from(at) - i128::from(asked + way / 2)) as f64 / 1e9,
                error_s: way as f64 / 2e9,
            };
            if best.is_none_or(|best| skew.error_s < best.error_s) {
                best = Some(skew);
            }
        }
        self.skew = best.unwrap_or_default();
        Ok(())
    }

    /// What to call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far its clock is from ours.
    #[must_use]
    pub fn skew(&self) -> Skew {
        self.skew
    }

    /// The address at which it was reached, where it was.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        Some(self.stream.as_ref()?.peer_addr().ok()?.ip())
    }
}

/// How a share ended.
#[derive(Debug)]
pub enum Ended {
    /// With an outcome.
    Reported(Box<Outcome>),
    /// The agent died: why.
    Lost(String),
    /// The agent died or refused its share before anybody connected to the broker, and the whole run was ended: why.
    NotBegun(String),
}

/// Gives an agent its share and attends to it until it reports. The gate is its share's; when this returns, nobody waits
/// for it any more. An agent that is lost before all could begin ends the run for all.
#[must_use]
pub fn attend(agent: Agent, start: Start, mut gate: LocalGate) -> Ended {
    let Agent {
        name,
        reader,
        mut writer,
        child,
        stream,
        ..
    } = agent;
    let ended = match send(&mut writer, &ToAgent::Start(Box::new(start))) {
        Ok(()) => converse(reader, &mut writer, &mut gate),
        Err(error) => Err(error.to_string()),
    };
    drop(writer);
    if let Some(stream) = stream {
        // An agent that is still there hears of it.
        let _ = stream.shutdown(Shutdown::Both);
    }
    if let Some(mut child) = child {
        if ended.is_err() {
            // It may be dead already.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
    match ended {
        Ok(outcome) => Ended::Reported(outcome),
        Err(why) => {
            gate.live(&Live::default());
            let why = format!("{name}: {why}");
            if gate.opens(Step::Begin).is_some() {
                return Ended::Lost(why);
            }
            gate.stop(&why);
            Ended::NotBegun(why)
        }
    }
}

fn converse(
    mut reader: BufReader<Box<dyn Read + Send>>,
    writer: &mut dyn Write,
    gate: &mut LocalGate,
) -> Result<Box<Outcome>, String> {
    let (tell, heard) = mpsc::sync_channel::<Result<FromAgent, AgentError>>(HEARD_MAX);
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || {
            loop {
                let message = receive(&mut reader, FROM_AGENT_BYTES_MAX);
                let last = message.is_err();
                if tell.send(message).is_err() || last {
                    return;
                }
            }
        })
        .map_err(|error| error.to_string())?;
    let mut writer = writer;
    let mut opened = [false; STEPS.len()];
    let mut stopped = false;
    let mut heard_at = Instant::now();
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(Ok(message)) => {
                heard_at = Instant::now();
                match message {
                    FromAgent::Arrived { step, at } => gate.arrive(step, at),
                    FromAgent::Live(live) => gate.live(&live),
                    FromAgent::Outcome(outcome) => return Ok(outcome),
                    FromAgent::Failed { why } => return Err(why),
                    FromAgent::Hello { .. } | FromAgent::Clock { .. } => {}
                }
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(AgentError::Gone.to_string()),
        }
        for (step, done) in STEPS.into_iter().zip(&mut opened) {
            if !*done && let Some(at) = gate.opens(step) {
                *done = true;
                let open = ToAgent::Open { step, at };
                send(&mut writer, &open).map_err(|error| error.to_string())?;
            }
        }
        if !stopped && let Some(why) = gate.stopped() {
            stopped = true;
            let stop = ToAgent::Stop { why };
            send(&mut writer, &stop).map_err(|error| error.to_string())?;
        }
        if heard_at.elapsed() > SILENCE_MAX {
            return Err(AgentError::Silent(SILENCE_MAX.as_secs()).to_string());
        }
    }
}
