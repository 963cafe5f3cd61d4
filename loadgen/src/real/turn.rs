//! One turn of the swarm: what is due, what waits to be written, what comes.

use std::io;
use std::time::Duration;

use super::bounds::{NAP_MAX, READ_BYTES_PER_TURN, WAIT_MAX};
use super::keep_alive::{self, Due};
use super::leaving::TOKENS_FROM;
use super::protocol::Stage;
use super::slot::Slot;
use super::{RealSwarm, close};
use crate::swarm::{Client, Notice};

impl RealSwarm {
    /// [`Swarm::turn`](crate::swarm::Swarm::turn). What is read is answered at once, client by client, and not after all
    /// were read: so an acknowledgement never waits for the other clients of the turn.
    pub(super) fn take_turn(
        &mut self,
        wait: Duration,
        notices: &mut Vec<Notice>,
    ) -> io::Result<()> {
        self.tick();
        let before = notices.len();
        notices.append(&mut self.pending);
        self.time_out(notices);
        self.keep_alive(notices);
        self.leaving.expire(self.common.now_ms);
        self.flush(notices);
        // What has happened already is told at once.
        let has_news = notices.len() > before;
        self.wait(wait, has_news)?;
        self.tick();
        self.read_on(notices);
        self.read_slowly_on(notices);
        self.handle_events(notices);
        Ok(())
    }

    /// Ends what has waited for its CONNACK for too long.
    fn time_out(&mut self, notices: &mut Vec<Notice>) {
        let timeout_ms =
            u32::try_from(self.options.connect_timeout.as_millis()).unwrap_or(u32::MAX);
        while let Some(&(at, since_ms)) = self.connecting.front() {
            let slot = &mut self.slots[at as usize];
            let stage = slot.state.stage;
            if matches!(stage, Stage::Connecting | Stage::Handshake) && slot.asked_ms == since_ms {
                if self.common.now_ms.wrapping_sub(since_ms) < timeout_ms {
                    return;
                }
                let why = match stage {
                    Stage::Connecting => "no connection in time",
                    _ => "no CONNACK in time",
                };
                let client = Self::client_in(self.options.share, at as usize);
                close(slot, client, why.to_owned(), notices);
            }
            self.connecting.pop_front();
        }
    }

    fn keep_alive(&mut self, notices: &mut Vec<Notice>) {
        let now_ms = self.common.now_ms;
        for at in self.cursor.step(now_ms, self.slots.len()) {
            let slot = &mut self.slots[at];
            if slot.state.stage != Stage::Ready {
                continue;
            }
            match keep_alive::due(slot, at, now_ms) {
                Due::Nothing => {}
                Due::Ping => {
                    if !slot.state.awaits_pong && !slot.slow {
                        slot.state.awaits_pong = true;
                        slot.asked_ms = now_ms;
                    }
                    // Bytes that wait are no silence of ours, but a broker that does not read; one ping is enough.
                    if slot.waiting_bytes() == 0 {
                        slot.outbox(&mut self.common).push(&[0xC0, 0]);
                        self.mark_dirty(at);
                    }
                }
                Due::GiveUp => {
                    let client = Self::client_in(self.options.share, at);
                    close(slot, client, "no PINGRESP".to_owned(), notices);
                }
            }
        }
    }

    fn flush(&mut self, notices: &mut Vec<Notice>) {
        for at in self.dirty.drain(..) {
            let slot = &mut self.slots[at as usize];
            slot.dirty = false;
            let client = Self::client_in(self.options.share, at as usize);
            if let Err(why) = slot.write(client, &mut self.common, notices) {
                close(slot, client, why, notices);
            }
        }
    }

    /// Reads on where the last turn stopped.
    fn read_on(&mut self, notices: &mut Vec<Notice>) {
        let listed = std::mem::take(&mut self.listed);
        for at in listed {
            let slot = &mut self.slots[at as usize];
            slot.listed = false;
            if matches!(slot.state.stage, Stage::Handshake | Stage::Ready) && !slot.slow {
                let client = Self::client_in(self.options.share, at as usize);
                let mut left = READ_BYTES_PER_TURN;
                let result =
                    slot.read_and_answer(client, true, &mut left, &mut self.common, notices);
                settle(slot, client, at, result, &mut self.listed, notices);
            }
        }
    }

    fn wait(&mut self, wait: Duration, has_news: bool) -> io::Result<()> {
        let has_timers = self.cursor.is_moving()
            || !self.connecting.is_empty()
            || !self.leaving.is_empty()
            || !self.slow.is_empty();
        let longest = if has_timers { wait.min(WAIT_MAX) } else { wait };
        let timeout = if has_news || !self.listed.is_empty() {
            Duration::ZERO
        } else {
            // The kernel's would be rounded up, and the turn would be late.
            Duration::from_millis(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX))
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        if self.events.is_empty() && timeout.is_zero() && !wait.is_zero() {
            // Looking without a pause would take a core from the broker that is measured.
            std::thread::sleep(wait.min(NAP_MAX));
        }
        Ok(())
    }

    fn handle_events(&mut self, notices: &mut Vec<Notice>) {
        for event in &self.events {
            let token = event.token();
            if token.0 >= TOKENS_FROM {
                self.leaving.on_event(token, &mut self.common.memory);
                continue;
            }
            let slot = &mut self.slots[token.0];
            let was_ready = slot.state.stage == Stage::Ready;
            let client = Self::client_in(self.options.share, token.0);
            let result = if slot.listed {
                // It has had its share of this turn, and reads on in the next one.
                slot.write(client, &mut self.common, notices).map(|()| true)
            } else {
                slot.on_event(client, event, &mut self.common, notices)
            };
            settle(
                slot,
                client,
                token.0 as u32,
                result,
                &mut self.listed,
                notices,
            );
            if !was_ready && slot.state.stage == Stage::Ready {
                let now_ms = self.common.now_ms;
                self.cursor.note(slot.state.keep_alive_s, now_ms);
            }
        }
    }
}

/// Notes what an event has led to.
fn settle(
    slot: &mut Slot,
    client: Client,
    at: u32,
    result: Result<bool, String>,
    listed: &mut Vec<u32>,
    notices: &mut Vec<Notice>,
) {
    match result {
        Ok(true) if !slot.listed => {
            slot.listed = true;
            listed.push(at);
        }
        Ok(_) => {}
        Err(why) => close(slot, client, why, notices),
    }
}
