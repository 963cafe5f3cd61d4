//! A run from beginning to end: on threads, processes or agents, merged into a report.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::args::RunArgs;
use super::naming;
use super::options::{LoadError, Place, overrides, system, way};
use super::watch::Watch;
use crate::agents::{Agent, AgentAddress, Ended, Start, attend};
use crate::clock;
use crate::merge::{Lost, merge};
use crate::plan::{Plan, Share};
use crate::real::{RealOptions, RealSwarm, Way};
use crate::report::{FORMAT, Report, SIMULATED, counted};
use crate::runner::{self, Gates};
use crate::scenario::Scenario;
use crate::server::{Sampler, machine};
use crate::simulated;
use crate::swarm::Swarm;

/// An agent whose clock is further off than this does not take part, in seconds: it would begin so much earlier or later.
const SKEW_MAX_S: f64 = 1.0;

/// An agent whose clock is further off than this is mentioned, in seconds.
const SKEW_MENTIONED_S: f64 = 0.001;

/// A run that is worked out and can begin.
#[derive(Debug)]
pub struct Execution {
    args: RunArgs,
    scenario: Scenario,
    plan: Plan,
    place: Place,
    way: Way,
    gates: Gates,
    sampler: Option<Sampler>,
    /// What is odd about the process that is looked at.
    stranger: Option<String>,
}

impl Execution {
    /// Works out a run of a built-in scenario. Nothing connects yet.
    ///
    /// # Errors
    /// There is none of this name, or what the options make of it is not allowed or not possible.
    pub fn of_builtin(name: &str, args: RunArgs) -> Result<Self, LoadError> {
        let mut scenario = Scenario::builtin(name)?;
        // Its rate of connects spares brokers behind a network. There is none between simulated clients and theirs, and
        // nobody waits an hour for ten million. Where time is virtual, nobody waits anyway.
        if args.simulated && !args.virtual_time {
            scenario.connect.per_second = None;
        }
        Self::new(scenario, args)
    }

    /// Works out a run of a scenario as it is written down. Nothing connects yet.
    ///
    /// # Errors
    /// It is not allowed or not possible.
    pub fn new(mut scenario: Scenario, args: RunArgs) -> Result<Self, LoadError> {
        if args
            .name
            .as_ref()
            .is_some_and(|name| name.trim().is_empty())
        {
            let text = "--name is empty; it is what the run is called beside others";
            return Err(LoadError::Option(text.to_owned()));
        }
        let name = |error| naming::scenario(error, &args);
        scenario.apply(&overrides(&args)?).map_err(name)?;
        let plan = scenario.plan(number_of_a_run(), args.seed).map_err(name)?;
        let way = way(&args)?;
        let place = Place::of(&args, &plan)?;
        let sampler = match place.broker() {
            None => Some(Sampler::of_self()?),
            Some(broker) => Sampler::find(args.pid.as_deref(), broker, args.metrics.as_deref())?,
        };
        let stranger = place
            .broker()
            .zip(sampler.as_ref())
            .and_then(|(broker, sampler)| sampler.stranger(broker));
        Ok(Self {
            gates: Gates::new(place.shares()),
            stranger,
            args,
            scenario,
            plan,
            place,
            way,
            sampler,
        })
    }

    /// What will be done, in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { plan, place, .. } = self;
        let what = match place {
            Place::Thread { preflight, broker } | Place::Processes { preflight, broker } => {
                format!("{preflight}, on {broker} over {}", self.way)
            }
            Place::Agents { agents, broker } => {
                format!(
                    "{} on {} (waits up to {} s for them), on {broker} over {}",
                    counted(plan.clients().into(), "client", "clients"),
                    counted(agents.len() as u64, "agent", "agents"),
                    self.args.agents_wait,
                    self.way
                )
            }
            Place::Simulated { threads, .. } => {
                format!(
                    "{} on {}",
                    counted(
                        plan.clients().into(),
                        "simulated client",
                        "simulated clients"
                    ),
                    counted((*threads).into(), "thread", "threads")
                )
            }
        };
        format!("{}: {what}", plan.name)
    }

    /// The way to end the run early from another thread.
    #[must_use]
    pub fn gates(&self) -> Gates {
        self.gates.clone()
    }

    /// Runs it to the end.
    ///
    /// # Errors
    /// It cannot begin; what goes wrong later is in the report.
    pub fn run(mut self) -> Result<Report, LoadError> {
        let began_at = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut report = Report {
            format: FORMAT,
            name: self
                .args
                .name
                .clone()
                .unwrap_or_else(|| self.plan.name.clone()),
            scenario: self.plan.name.clone(),
            scenario_toml: self.scenario.to_toml(),
            command: std::env::args().collect(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            began_at_ms: began_at.map_or(0, |since| since.as_millis() as u64),
            target: match self.place {
                Place::Simulated { .. } => SIMULATED.to_owned(),
                _ => self.args.broker.clone(),
            },
            transport: match self.way {
                Way {
                    tls: None,
                    websocket: None,
                    ..
                } => String::new(),
                ref way => way.to_string(),
            },
            machine: machine(),
            ..Report::default()
        };
        let planned = (self.plan.warm_up, self.plan.measured);
        let mut watch = Watch::new(
            self.gates.clone(),
            self.sampler.take(),
            self.args.quiet,
            planned,
        );
        watch.before();
        let (shares, remarks) = self.start_shares()?;
        watch.until(|| shares.iter().all(Running::has_ended));
        let (mut outcomes, mut lost, mut not_begun) = (Vec::new(), Vec::new(), None);
        for running in shares {
            let share = running.share;
            match running.join() {
                Ok(Ended::Reported(outcome)) => outcomes.push(*outcome),
                Ok(Ended::Lost(why)) | Err(why) => lost.push(Lost { share, why }),
                Ok(Ended::NotBegun(why)) => {
                    not_begun.get_or_insert(why);
                }
            }
        }
        if let Some(why) = not_begun {
            return Err(LoadError::Agent(why));
        }
        let simulated = self.place.is_simulated();
        merge(&self.plan, &outcomes, &lost, simulated, &mut report);
        report.remarks.extend(remarks);
        report.remarks.extend(self.stranger);
        watch.finish(&mut report);
        Ok(report)
    }

    /// The shares at work, and what is to be said about them.
    fn start_shares(&self) -> Result<(Vec<Running>, Vec<String>), LoadError> {
        let clients = self.plan.clients();
        let mut remarks = Vec::new();
        let shares = match &self.place {
            Place::Thread { broker, preflight } => {
                let options = RealOptions {
                    source_addresses: preflight.source_addresses.clone(),
                    way: self.way.clone(),
                    ..RealOptions::new(*broker, clients)
                };
                let swarm = RealSwarm::new(options).map_err(system("the clients"))?;
                vec![self.run_here(Share::WHOLE, swarm)?]
            }
            Place::Simulated { threads, clock } => {
                let config = broker::Config::default();
                let swarms = simulated::build(&config, *threads as usize, clients, *clock)?;
                (0..*threads)
                    .zip(swarms)
                    .map(|(index, swarm)| {
                        let share = Share {
                            index,
                            count: *threads,
                        };
                        self.run_here(share, swarm)
                    })
                    .collect::<Result<Vec<Running>, LoadError>>()?
            }
            Place::Processes { preflight, .. } => {
                let program = std::env::current_exe().map_err(system("this program's file"))?;
                let agents = (0..preflight.processes)
                    .map(|_| {
                        let mut command = Command::new(&program);
                        command.args(["load", "agent", "--pipe"]);
                        Agent::spawn(command).map_err(|error| {
                            LoadError::Agent(format!("a further process of this tool: {error}"))
                        })
                    })
                    .collect::<Result<Vec<Agent>, LoadError>>()?;
                self.attend_all(agents, &preflight.source_addresses)?
            }
            Place::Agents { agents, broker } => {
                let agents = self.reach(agents, *broker)?;
                remarks.extend(agents.iter().filter_map(skew_remark));
                self.attend_all(agents, &[])?
            }
        };
        Ok((shares, remarks))
    }

    /// Connects to all agents before any gets its share.
    fn reach(
        &self,
        addresses: &[AgentAddress],
        broker: SocketAddr,
    ) -> Result<Vec<Agent>, LoadError> {
        let wait = Duration::from_secs(self.args.agents_wait.into());
        let deadline = Instant::now() + wait;
        let given_up = || self.gates.stopped().is_some();
        addresses
            .iter()
            .map(|address| {
                let wrong = |why: String| LoadError::Agent(format!("--agents: {address}: {why}"));
                let agent = Agent::connect(address, deadline, given_up).map_err(|error| {
                    wrong(match self.gates.stopped() {
                        Some(by) => format!("the wait for it was ended by {by}"),
                        None => error.to_string(),
                    })
                })?;
                let here = agent.address().is_none_or(|address| address.is_loopback());
                if broker.ip().is_loopback() && !here {
                    return Err(wrong(format!(
                        "it is on another machine, for which --broker {broker} is that machine itself; give an address that every agent reaches"
                    )));
                }
                let skew = agent.skew();
                if skew.ahead_s.abs() > SKEW_MAX_S + skew.error_s {
                    return Err(wrong(format!(
                        "its clock is {:.1} s {}, and {SKEW_MAX_S} s is allowed; synchronise the clocks (NTP)",
                        skew.ahead_s.abs(),
                        if skew.ahead_s > 0.0 { "ahead" } else { "behind" }
                    )));
                }
                Ok(agent)
            })
            .collect()
    }

    fn run_here(
        &self,
        share: Share,
        mut swarm: impl Swarm + Send + 'static,
    ) -> Result<Running, LoadError> {
        let plan = self.plan.clone();
        let mut gate = self.gates.of(share.index);
        Running::spawn(share, move || {
            let outcome = runner::run(&plan, share, &mut swarm, &mut gate);
            Ended::Reported(Box::new(outcome))
        })
    }

    fn attend_all(
        &self,
        agents: Vec<Agent>,
        sources: &[IpAddr],
    ) -> Result<Vec<Running>, LoadError> {
        let count = agents.len() as u32;
        let Some(broker) = self.place.broker() else {
            return Ok(Vec::new());
        };
        (0..count)
            .zip(agents)
            .map(|(index, agent)| {
                let share = Share { index, count };
                // Addresses go round; with fewer than agents some share one.
                let mut mine: Vec<IpAddr> = sources
                    .iter()
                    .skip(index as usize)
                    .step_by(count as usize)
                    .copied()
                    .collect();
                if mine.is_empty() && !sources.is_empty() {
                    mine.push(sources[index as usize % sources.len()]);
                }
                let start = Start::new(
                    &self.scenario,
                    &self.plan,
                    share,
                    broker,
                    self.way.clone(),
                    mine,
                );
                let gate = self.gates.of(index);
                Running::spawn(share, move || attend(agent, start, gate))
            })
            .collect()
    }
}

/// A share at work.
#[derive(Debug)]
struct Running {
    share: Share,
    thread: thread::JoinHandle<Ended>,
}

impl Running {
    fn spawn(
        share: Share,
        work: impl FnOnce() -> Ended + Send + 'static,
    ) -> Result<Self, LoadError> {
        let thread = thread::Builder::new()
            .name(format!("share-{}", share.index))
            .spawn(work)
            .map_err(system("a thread"))?;
        Ok(Self { share, thread })
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    fn join(self) -> Result<Ended, String> {
        let ended = self.thread.join();
        ended.map_err(|_| "a bug in this tool ended it".to_owned())
    }
}

/// What a clock that is off makes of the figures.
fn skew_remark(agent: &Agent) -> Option<String> {
    let skew = agent.skew();
    let milliseconds = |seconds: f64| seconds.abs() * 1e3;
    (skew.ahead_s.abs() > SKEW_MENTIONED_S + skew.error_s).then(|| {
        format!(
            "the clock of agent {} is {:.1} ms {} (give or take {:.1} ms): latencies of deliveries between it and others are off by that",
            agent.name(),
            milliseconds(skew.ahead_s),
            if skew.ahead_s > 0.0 { "ahead" } else { "behind" },
            milliseconds(skew.error_s),
        )
    })
}

/// Different for runs that begin at different times or in different processes.
fn number_of_a_run() -> u32 {
    let time = clock::now();
    (time ^ (time >> 32)) as u32 ^ std::process::id().rotate_left(16)
}
