//! The coordinator's side of one agent.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::protocol::{AgentError, FromAgent, Start, ToAgent, receive, send};
use crate::outcome::Outcome;
use crate::runner::{Gate, LocalGate, Step};

/// How often an opened step is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// How long an agent may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent that says nothing for so long is taken for dead. It tells its live figures five times a second.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const STEPS: [Step; 5] = [
    Step::Begin,
    Step::Connected,
    Step::Preloaded,
    Step::Ready,
    Step::Published,
];

/// An agent that can be talked to.
pub struct Agent {
    name: String,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    child: Option<Child>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Connects to an agent that listens.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            name: address.to_string(),
            reader: Box::new(stream.try_clone()?),
            writer: Box::new(stream),
            child: None,
        })
    }

    /// Starts a process as an agent that talks over its standard input and output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdout.take().zip(child.stdin.take());
        let (reader, writer) = pipes.ok_or_else(|| io::Error::other("no pipes"))?;
        Ok(Self {
            name: format!("process {}", child.id()),
            reader: Box::new(reader),
            writer: Box::new(writer),
            child: Some(child),
        })
    }

    /// What to call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process, if it was started here.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

/// How a share ended.
#[derive(Debug)]
pub enum Ended {
    /// With an outcome.
    Reported(Box<Outcome>),
    /// The agent died, or could not run its share: why.
    Lost(String),
}

/// Gives an agent its share and attends to it until it reports. The gate is its share's; when this returns, nobody waits
/// for it any more.
#[must_use]
pub fn attend(agent: Agent, start: Start, mut gate: LocalGate) -> Ended {
    let Agent {
        name,
        reader,
        mut writer,
        child,
    } = agent;
    let ended = match send(&mut writer, &ToAgent::Start(Box::new(start))) {
        Ok(()) => converse(reader, &mut writer, &mut gate),
        Err(error) => Err(error.to_string()),
    };
    drop(writer);
    if let Some(mut child) = child {
        if ended.is_err() {
            // It may be dead already.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
    match ended {
        Ok(outcome) => Ended::Reported(outcome),
        Err(why) => Ended::Lost(format!("{name}: {why}")),
    }
}

fn converse(
    reader: Box<dyn Read + Send>,
    writer: &mut dyn Write,
    gate: &mut LocalGate,
) -> Result<Box<Outcome>, String> {
    let (tell, heard) = mpsc::channel::<Result<FromAgent, AgentError>>();
    std::thread::Builder::new()
        .name("agent".to_owned())
        .spawn(move || {
            let mut reader = BufReader::new(reader);
            loop {
                let message = receive(&mut reader);
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
            return Err(format!("nothing was heard for {} s", SILENCE_MAX.as_secs()));
        }
    }
}
