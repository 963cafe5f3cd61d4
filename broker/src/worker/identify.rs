//! Who a client is: its listener's chain is asked, and the CONNECT goes on when the answer is there, which may be much later. The
//! CONNECT waits with what came behind it, within bounds, and its connection may be gone, or its client here again, by then.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use codec::{Connect, ReasonCode};
use identity::{Accepted, Credentials, Refusal, Refused, Verdict};

use super::{Close, Step, Worker};
use crate::connection::Question;
use crate::handle::Inbox;
use crate::limits::{BEHIND_CONNECT_BYTES_MAX, TIMER_LOOK_MS};
use crate::time::Time;
use crate::timers::Timer;

/// What a chain said later.
#[derive(Debug)]
pub(crate) struct Answer {
    slot: u32,
    number: u64,
    verdict: Verdict,
}

impl Answer {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// Connections whose credentials are being looked at, by the hash of their client identifier: number and slot.
#[derive(Debug, Default)]
pub(super) struct Questions {
    by_client: HashMap<u64, Vec<(u64, u32)>>,
    next: u64,
}

impl Questions {
    /// A number that is higher than those before it.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget(&mut self, hash: u64, number: u64) {
        if let Entry::Occupied(mut entry) = self.by_client.entry(hash) {
            entry.get_mut().retain(|(other, _)| *other != number);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// Who a client turned out to be.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) accepted: Accepted,
    /// Whether anybody looked.
    pub(super) is_checked: bool,
    /// When its CONNECT came, in the order of all that came here.
    number: u64,
}

/// The reason code that tells the client.
fn reason(refusal: Refusal) -> ReasonCode {
    match refusal {
        Refusal::BadCredentials => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        Refusal::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
        Refusal::TooManyAttempts => ReasonCode::CONNECTION_RATE_EXCEEDED,
        Refusal::Busy => ReasonCode::SERVER_BUSY,
        Refusal::Unavailable => ReasonCode::SERVER_UNAVAILABLE,
    }
}

impl Worker {
    /// Who sends this CONNECT. `Err` is how its connection goes on when that is not known yet, or when it may not.
    pub(super) fn identify(
        &mut self,
        slot: u32,
        connect: &Connect<'_>,
    ) -> Result<Identified, Step> {
        let shared = Arc::clone(&self.shared);
        let gate = shared.gate(self.listener_of(slot));
        let Some((gate, chain)) = gate.and_then(|gate| Some((gate, gate.chain.as_ref()?))) else {
            let number = self.questions.number();
            return Ok(Identified {
                accepted: Accepted::default(),
                is_checked: false,
                number,
            });
        };
        let question = self
            .connections
            .slab
            .get_mut(slot)
            .and_then(|connection| connection.question());
        let (number, verdict) = match question {
            Some(Question::Asked { .. }) => return Err(Step::Wait),
            Some(Question::Answered { .. }) => match self.end_question(slot) {
                Some(Question::Answered {
                    number, verdict, ..
                }) => (number, *verdict),
                _ => return Err(Step::Wait),
            },
            None => {
                let number = self.questions.number();
                let (shared, mailbox) = (Arc::clone(&shared), self.index);
                let tell = move |verdict| {
                    let answer = Answer {
                        slot,
                        number,
                        verdict,
                    };
                    shared.mailboxes[mailbox].send_one(Inbox::Answer(Box::new(answer)));
                };
                let credentials = Credentials {
                    client_id: connect.client_id.into(),
                    user: connect.username.map(Box::from),
                    password: connect.password.map(Into::into),
                    certificate: None,
                    address: self.address_of(slot),
                    listener: Arc::clone(&gate.name),
                };
                match chain.ask(credentials, tell) {
                    Some(verdict) => (number, verdict),
                    None => return Err(self.wait_for_answer(slot, connect.client_id, number)),
                }
            }
        };
        // One that was looked at before users changed, and comes after.
        let is_revoked = |accepted: &Accepted| {
            let principal = accepted.principal.as_ref();
            principal.is_some_and(|principal| principal.is_revoked())
        };
        match verdict {
            Ok(accepted) if is_revoked(&accepted) => {
                let why = "its user has changed meanwhile";
                let refused = Refused::new(Refusal::BadCredentials, why);
                Err(self.refuse_stranger(slot, connect, &refused))
            }
            Ok(accepted) => Ok(Identified {
                accepted,
                is_checked: true,
                number,
            }),
            Err(refused) => Err(self.refuse_stranger(slot, connect, &refused)),
        }
    }

    /// The listener that a connection came to.
    fn listener_of(&self, slot: u32) -> usize {
        let connection = self.connections.slab.get(slot);
        connection.map_or(0, |connection| connection.transport.listener().into())
    }

    /// Where a connection comes from.
    fn address_of(&self, slot: u32) -> Option<IpAddr> {
        let from = self.connections.slab.get(slot)?.transport.peer_address()?;
        Some(from.ip())
    }

    fn wait_for_answer(&mut self, slot: u32, client_id: &str, number: u64) -> Step {
        let hash = self.client_hash(client_id);
        if let Some(connection) = self.connections.slab.get_mut(slot) {
            connection.ask(Question::Asked { number, hash });
            self.counts.clients_asked += 1;
            let of_client = self.questions.by_client.entry(hash).or_default();
            of_client.push((number, slot));
        }
        Step::Wait
    }

    /// A chain has answered. The connection may be gone, and another one in its place.
    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer {
            slot,
            number,
            verdict,
        } = answer;
        let Some(connection) = self.connections.slab.get_mut(slot) else {
            return;
        };
        if let Some(Question::Asked {
            number: asked,
            hash,
        }) = connection.question()
            && *asked == number
        {
            let (hash, verdict) = (*hash, Box::new(verdict));
            connection.ask(Question::Answered {
                number,
                hash,
                verdict,
            });
            self.connections.list(slot);
        }
    }

    /// Nobody waits for the answer of this connection's question any more.
    pub(super) fn end_question(&mut self, slot: u32) -> Option<Question> {
        let question = self.connections.slab.get_mut(slot)?.take_question()?;
        let (Question::Asked { number, hash } | Question::Answered { number, hash, .. }) =
            &question;
        self.questions.forget(*hash, *number);
        self.counts.clients_asked -= 1;
        Some(question)
    }

    /// A client is let in: connections of the same client that came before this one, and whose credentials are still being
    /// looked at, are taken over [MQTT-3.1.4-3].
    pub(super) fn overtake(&mut self, hash: u64, identified: &Identified) {
        let Some(of_client) = self.questions.by_client.get(&hash) else {
            return;
        };
        let older = of_client
            .iter()
            .filter(|(number, _)| *number < identified.number);
        for slot in older.map(|(_, slot)| *slot).collect::<Vec<_>>() {
            self.close(slot, Close::TakenOver);
        }
    }

    /// Whether the time for a CONNECT is over while its credentials are still being looked at: then the client is told.
    pub(super) fn refuse_unanswered(&mut self, slot: u32) -> bool {
        let Some(connection) = self.connections.slab.get(slot) else {
            return false;
        };
        let version = connection.version;
        if !connection.is_asked() {
            return false;
        }
        self.counts.clients_refused_unavailable += 1;
        self.refuse(slot, version, ReasonCode::SERVER_UNAVAILABLE);
        true
    }

    fn refuse_stranger(&mut self, slot: u32, connect: &Connect<'_>, refused: &Refused) -> Step {
        let counts = &mut self.counts;
        *match refused.refusal {
            Refusal::BadCredentials => &mut counts.clients_refused_credentials,
            Refusal::NotAuthorized => &mut counts.clients_refused_identity,
            Refusal::TooManyAttempts => &mut counts.clients_refused_attempts,
            Refusal::Busy => &mut counts.clients_refused_busy,
            Refusal::Unavailable => &mut counts.clients_refused_unavailable,
        } += 1;
        if let Some(times) = self.shared.strangers.count(self.now) {
            let address = self.address_of(slot).map(tracing::field::display);
            tracing::info!(
                client = connect.client_id,
                user = connect.username,
                address,
                why = &*refused.why,
                times,
                "a client was not let in; this is the last of them"
            );
        }
        self.refuse(slot, connect.version, reason(refused.refusal))
    }

    /// Ends a connection when what its client is let in by ends.
    pub(super) fn arm_expiry(&mut self, slot: u32, ends_at: Time) {
        let generation = self.connections.slab.generation(slot);
        let timer = Timer::Expiry {
            connection: slot,
            generation,
        };
        let at = ends_at.min(self.now.plus_ms(TIMER_LOOK_MS));
        self.timers.at(at, timer);
    }

    /// Looks whether it does now.
    pub(super) fn expiry_due(&mut self, slot: u32, generation: u16) {
        let Some(connection) = self.connections.slab.get_mut_if(slot, generation) else {
            return;
        };
        let session = connection.session;
        let ends_at = self
            .sessions
            .get(session)
            .and_then(|session| session.owner.ends_at());
        match ends_at {
            Some(ends_at) if ends_at <= self.now => self.close(slot, Close::Expired),
            Some(ends_at) => self.arm_expiry(slot, ends_at),
            None => {}
        }
    }

    /// Bytes that may be read of a connection whose credentials are being looked at: some behind its CONNECT, so that its end
    /// is seen.
    pub(super) fn room_behind_connect(&self, slot: u32) -> usize {
        let connection = self.connections.slab.get(slot);
        let behind = connection.map_or(0, |connection| {
            let rest = connection.rest();
            let frame = codec::split_frame(rest, codec::PACKET_BYTES_MAX);
            let connect = frame.ok().flatten().map_or(0, |frame| frame.len);
            rest.len() - connect
        });
        BEHIND_CONNECT_BYTES_MAX.saturating_sub(behind)
    }
}

#[cfg(test)]
mod tests {
    use codec::Version;

    use super::*;

    #[test]
    fn every_refusal_has_an_answer_in_every_version() {
        for refusal in Refusal::ALL {
            for version in Version::ALL {
                let mut bytes = Vec::new();
                let packet = codec::Packet::ConnAck(codec::ConnAck {
                    session_present: false,
                    reason: reason(refusal),
                    properties: codec::Properties::EMPTY,
                });
                packet.encode(version, &mut bytes).unwrap();
            }
        }
    }
}
