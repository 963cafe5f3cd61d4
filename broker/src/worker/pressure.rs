//! What a worker does when the node's memory comes to its bound ([`crate::budget`]): it cuts its largest queues, and holds
//! back what would wait.

use super::Worker;
use crate::budget::{Pressure, Sizes};
use crate::connection::Connections;
use crate::limits::{
    MEMORY_CUT_PAUSE_MS, MEMORY_OUTBOX_BYTES, MEMORY_TELL_MS, SESSIONS_LOOKED_AT_PER_TURN,
};
use crate::session::QueueMax;
use crate::time::Time;

/// How far it has come with cutting queues.
#[derive(Debug, Default)]
enum Stage {
    /// Not before this time: what is freed takes its time to be seen.
    Wait(Time),
    /// Looks how large queues are, from that session on.
    #[default]
    Start,
    Survey(u32, Box<Sizes>),
    /// Has told the others, and waits until that time for them to look, too.
    Told(Time),
    /// Cuts queues, from that session on.
    Cut(u32),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Relief {
    /// What is to be done in this turn.
    pressure: Pressure,
    stage: Stage,
    /// What no queue may be larger than now.
    queue_bytes_max: Option<u64>,
    /// What may wait for a socket, in this turn.
    pub(super) outbox_bytes_max: usize,
}

impl Relief {
    pub(super) fn new(outbox_bytes_max: u64) -> Self {
        Self {
            pressure: Pressure::None,
            stage: Stage::Start,
            queue_bytes_max: None,
            outbox_bytes_max: usize::try_from(outbox_bytes_max).unwrap_or(usize::MAX),
        }
    }

    /// What is to be done about the node's memory in this turn.
    pub(super) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Whether a QoS 0 message for a connection would add to what waits there already, and memory is short.
    pub(super) fn sheds(&self, connections: &Connections, slot: u32) -> bool {
        self.pressure >= Pressure::Qos0
            && connections.slab.get(slot).is_some_and(|connection| {
                let mut outbox = connection.outbox.iter();
                connection.is_stall_armed() && outbox.any(|outbox| !outbox.is_empty())
            })
    }
}

impl Worker {
    /// Looks at the node's memory: once a turn.
    pub(super) fn feel_pressure(&mut self) {
        let pressure = self.shared.budget.pressure();
        if pressure == self.relief.pressure {
            return;
        }
        self.relief = Relief {
            pressure,
            ..Relief::new(self.settings.limits.outbox_bytes_max)
        };
        self.shared.budget.tell_sizes(self.index, Sizes::default());
        if pressure == Pressure::Queues {
            let outbox = self.relief.outbox_bytes_max;
            self.relief.outbox_bytes_max = outbox.min(MEMORY_OUTBOX_BYTES);
        }
    }

    pub(super) fn queue_max(&self) -> QueueMax {
        let limits = &self.settings.limits;
        let cut = self.relief.queue_bytes_max;
        QueueMax {
            messages: limits.queue_messages_max as usize,
            bytes: cut.map_or(limits.queue_bytes_max, |cut| {
                limits.queue_bytes_max.min(cut)
            }),
            is_cut: cut.is_some(),
        }
    }

    /// Cuts queues as far as that is to be done, a bounded number of sessions at a time. Whether there is more to do now.
    pub(super) fn relieve(&mut self) -> bool {
        if self.relief.pressure < Pressure::Queues {
            return false;
        }
        let slots = self.sessions.slots();
        let until = |from: u32| from.saturating_add(SESSIONS_LOOKED_AT_PER_TURN).min(slots);
        self.relief.stage = match std::mem::take(&mut self.relief.stage) {
            Stage::Wait(at) if at > self.now => {
                self.relief.stage = Stage::Wait(at);
                return false;
            }
            Stage::Told(at) if at > self.now => {
                self.relief.stage = Stage::Told(at);
                return false;
            }
            Stage::Told(_) => {
                self.relief.queue_bytes_max = Some(self.shared.budget.queue_bytes_max());
                Stage::Cut(0)
            }
            Stage::Wait(_) | Stage::Start => Stage::Survey(0, Box::default()),
            Stage::Survey(from, mut sizes) => {
                let to = until(from);
                for at in from..to {
                    sizes.add(self.queue_bytes(at));
                }
                if to < slots {
                    Stage::Survey(to, sizes)
                } else {
                    self.shared.budget.tell_sizes(self.index, *sizes);
                    Stage::Told(self.now.plus_ms(MEMORY_TELL_MS))
                }
            }
            Stage::Cut(from) => {
                let to = until(from);
                let max = self.relief.queue_bytes_max.unwrap_or(u64::MAX);
                for at in from..to {
                    if self.queue_bytes(at) > max {
                        self.cut_queue(at, max);
                    }
                }
                if to < slots {
                    Stage::Cut(to)
                } else {
                    Stage::Wait(self.now.plus_ms(MEMORY_CUT_PAUSE_MS))
                }
            }
        };
        !matches!(self.relief.stage, Stage::Wait(_) | Stage::Told(_))
    }

    /// When there is more to do, if memory is as short then as now.
    pub(super) fn relieves_at(&self) -> Option<Time> {
        match self.relief.stage {
            Stage::Wait(at) | Stage::Told(at) if self.relief.pressure == Pressure::Queues => {
                Some(at)
            }
            _ => None,
        }
    }

    fn queue_bytes(&self, session: u32) -> u64 {
        self.sessions
            .get(session)
            .and_then(|session| session.flow.as_ref())
            .map_or(0, |flow| flow.outgoing.queue_bytes())
    }

    fn cut_queue(&mut self, at: u32, bytes_max: u64) {
        if let Some(session) = self.sessions.get_mut(at) {
            if let Some(flow) = &mut session.flow {
                flow.outgoing.cut(
                    session.owner.client_id(),
                    bytes_max,
                    &mut self.counts,
                    &mut self.followed,
                );
            }
            session.tidy();
        }
    }
}
