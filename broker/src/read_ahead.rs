//! Publishes that were read of a client and not handled yet, because one before them waits for the sink: whole packets, in
//! the order in which they came. What is behind them on the connection (pings, acknowledgements, the end) is seen in time.

use std::collections::VecDeque;

use crate::time::Time;

/// Bytes that a time takes at which packets came.
pub(crate) const TIME_BYTES: usize = size_of::<(Time, u32)>();

/// See the module. It is there only while something is in it, or may not go on.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// The packets. What is before `start` has been handled.
    bytes: Vec<u8>,
    start: usize,
    /// When they came, and how many did then.
    came: VecDeque<(Time, u32)>,
    publishes: u64,
    /// How many of them have QoS 1 or 2.
    tracked: u32,
    /// What the node's sum holds of this.
    counted: u64,
    /// The client has sent its last byte, and not all that it sent was kept.
    pub(crate) has_gap: bool,
    /// The kernel looks after the connection's end, since it is not read from.
    pub(crate) is_probed: bool,
    /// Until then they wait, whatever else they have waited for is over.
    pub(crate) paused_until: Option<Time>,
    /// On the list of those that wait until the node has room.
    pub(crate) waits_for_node: bool,
}

impl ReadAhead {
    /// Adds a packet that came at `came`, not before those that are in it.
    pub(crate) fn push(&mut self, came: Time, packet: &[u8], tracked: bool) {
        // What was handled makes room before memory does, and costs a copy of no more than was handled.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        // By a quarter and not by doubling: many clients may be at their bound for hours.
        if self.bytes.capacity() - self.bytes.len() < packet.len() {
            self.bytes
                .reserve_exact(packet.len().max(self.bytes.len() / 4));
        }
        self.bytes.extend_from_slice(packet);
        match self.came.back_mut() {
            Some((at, packets)) if *at == came && *packets < u32::MAX => *packets += 1,
            _ => self.came.push_back((came, 1)),
        }
        self.publishes += 1;
        self.tracked = self.tracked.saturating_add(u32::from(tracked));
    }

    /// When the first packet came, and the bytes that begin with it.
    pub(crate) fn first(&self) -> Option<(Time, &[u8])> {
        let (came, _) = self.came.front()?;
        Some((*came, &self.bytes[self.start..]))
    }

    /// Takes out the first packet, which is of so many bytes.
    pub(crate) fn pop(&mut self, bytes: usize, tracked: bool) {
        self.start += bytes;
        self.publishes -= 1;
        self.tracked -= u32::from(tracked);
        if let Some((_, packets)) = self.came.front_mut() {
            *packets -= 1;
            if *packets == 0 {
                self.came.pop_front();
            }
        }
    }

    /// How many there are.
    pub(crate) fn publishes(&self) -> u64 {
        self.publishes
    }

    /// How many there are with QoS 1 or 2.
    pub(crate) fn tracked(&self) -> u32 {
        self.tracked
    }

    /// Bytes of what is in it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() - self.start + self.came.len() * TIME_BYTES
    }

    /// Notes how many bytes the node's sum is to hold of this: what is to be added to it, which wraps around where there
    /// are fewer.
    pub(crate) fn count(&mut self, bytes: u64) -> u64 {
        let before = std::mem::replace(&mut self.counted, bytes);
        bytes.wrapping_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_as_they_came_and_what_has_left_takes_no_room() {
        let mut ahead = ReadAhead::default();
        let packet = |n: u64| [n as u8; 10];
        let came = |n: u64| Time(n / 2);
        (0..3).for_each(|n| ahead.push(came(n), &packet(n), n > 0));
        for n in 0..1_000 {
            let (at, packets) = ahead.first().unwrap();
            assert_eq!((at, &packets[..10]), (came(n), &packet(n)[..]));
            ahead.pop(10, n > 0);
            ahead.push(came(n + 3), &packet(n + 3), true);
            assert_eq!((ahead.publishes(), ahead.tracked()), (3, 3));
            assert_eq!(ahead.bytes(), 3 * 10 + 2 * TIME_BYTES);
        }
        assert!(ahead.bytes.capacity() < 200, "{}", ahead.bytes.capacity());
    }

    #[test]
    fn the_nodes_sum_holds_what_was_counted_last() {
        let (mut ahead, mut sum) = (ReadAhead::default(), 5_u64);
        for bytes in [100, 30, 70, 0] {
            sum = sum.wrapping_add(ahead.count(bytes));
            assert_eq!(sum, 5 + bytes);
        }
    }
}
