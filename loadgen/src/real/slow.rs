//! Clients that read slowly. The poll tells of news once, so they are looked at in each turn, for as long as they live.

use super::bounds::PROBE_MS;
use super::protocol::Stage;
use super::socket;
use super::{RealSwarm, close};
use crate::clock;
use crate::slow_reader::Allowance;
use crate::swarm::{Client, Notice};

use broker::transport::Transport;

impl RealSwarm {
    /// [`Swarm::read_slowly`](crate::swarm::Swarm::read_slowly).
    pub(super) fn begin_to_read_slowly(&mut self, client: Client, bytes_per_second: u32) {
        let at = self.slot_of(client);
        let slot = &mut self.slots[at];
        if slot.state.stage != Stage::Ready {
            return;
        }
        slot.slow = true;
        slot.state.awaits_pong = false;
        if bytes_per_second == 0
            && let Some(stream) = slot.transport.as_ref().and_then(Transport::tcp)
        {
            socket::keep_little_unread(stream);
        }
        let allowance = Allowance::new(bytes_per_second, clock::now());
        self.slow.retain(|(other, _)| *other != at as u32);
        self.slow.push((at as u32, allowance));
    }

    /// Reads what those who read slowly may by now.
    pub(super) fn read_slowly_on(&mut self, notices: &mut Vec<Notice>) {
        if self.slow.is_empty() {
            return;
        }
        let now = clock::now();
        let (slots, common, share) = (&mut self.slots, &mut self.common, self.options.share);
        self.slow.retain_mut(|(at, allowance)| {
            let slot = &mut slots[*at as usize];
            if !slot.slow {
                return false;
            }
            let client = Self::client_in(share, *at as usize);
            let may = allowance.bytes(now);
            let mut left = may;
            let mut result = Ok(false);
            if may > 0 {
                result = slot.read_and_answer(client, false, &mut left, common, notices);
                allowance.took(may - left);
            }
            let silent_ms = common.now_ms.wrapping_sub(slot.written_ms);
            if result.is_ok() && silent_ms >= PROBE_MS && slot.waiting_bytes() == 0 {
                slot.outbox(common).push(&[0xC0, 0]);
                result = slot.write(client, common, notices).map(|()| false);
            }
            if let Err(why) = result {
                close(slot, client, why, notices);
            }
            slot.slow
        });
    }
}
