//! PINGREQ without a timer per client: a cursor goes round over all clients, a few with each turn.
//!
//! A client pings when it has written nothing for between 1/2 and 3/4 of its keep-alive. Where in between depends on its
//! number, so that clients that connected together do not ping together for long. The cursor comes by every 1/8 of the
//! shortest keep-alive, so none is silent for longer than 7/8 of it.

use super::slot::Slot;

/// What is due with a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The broker owes a PINGRESP for one and a half keep-alives.
    GiveUp,
}

/// The moving cursor.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    at: usize,
    last_ms: u32,
    /// What was left over of a step, in slots × milliseconds.
    rest: u64,
    /// The shortest keep-alive of any client, in seconds; 0: none.
    shortest_s: u16,
}

impl Cursor {
    /// A client has this keep-alive.
    pub(crate) fn note(&mut self, keep_alive_s: u16, now_ms: u32) {
        if keep_alive_s == 0 {
            return;
        }
        if self.shortest_s == 0 {
            self.last_ms = now_ms;
            self.shortest_s = keep_alive_s;
        }
        self.shortest_s = self.shortest_s.min(keep_alive_s);
    }

    /// Whether it has anything to do at all.
    pub(crate) fn is_moving(&self) -> bool {
        self.shortest_s > 0
    }

    /// The slots to look at now, of so many.
    pub(crate) fn step(
        &mut self,
        now_ms: u32,
        slots: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        let mut count = 0;
        if self.is_moving() && slots > 0 {
            let round_ms = u64::from(self.shortest_s) * 1_000 / 8;
            let elapsed_ms = now_ms.wrapping_sub(self.last_ms);
            self.last_ms = now_ms;
            let due = self.rest + u64::from(elapsed_ms) * slots as u64;
            self.rest = due % round_ms;
            count = ((due / round_ms) as usize).min(slots);
        }
        let at = self.at;
        self.at = (at + count).checked_rem(slots).unwrap_or(0);
        (at..at + count).map(move |index| index % slots)
    }
}

/// What is due with the client in slot `index`, which is ready.
pub(crate) fn due(slot: &Slot, index: usize, now_ms: u32) -> Due {
    let keep_alive_ms = u64::from(slot.state.keep_alive_s) * 1_000;
    if keep_alive_ms == 0 {
        return Due::Nothing;
    }
    let since = |then_ms: u32| u64::from(now_ms.wrapping_sub(then_ms));
    if slot.state.awaits_pong && since(slot.asked_ms) >= keep_alive_ms * 3 / 2 {
        return Due::GiveUp;
    }
    if since(slot.written_ms) >= patience_ms(keep_alive_ms, index) {
        return Due::Ping;
    }
    Due::Nothing
}

/// The silence after which a client pings.
fn patience_ms(keep_alive_ms: u64, index: usize) -> u64 {
    /// Of 2 to the 16th: the golden section, whose multiples lie apart.
    const GOLDEN: u64 = 40_503;
    let spread = (index as u64).wrapping_mul(GOLDEN) & 0xFFFF;
    keep_alive_ms / 2 + ((keep_alive_ms / 4 * spread) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_comes_by_every_client_in_an_eighth_of_the_shortest_keep_alive() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.step(1_000, 10).count(), 0);
        cursor.note(60, 1_000);
        cursor.note(8, 1_000);
        let mut visits = [0; 10];
        // In steps that are no whole number of clients.
        for now_ms in (1_007..=3_000).step_by(7) {
            for at in cursor.step(now_ms, 10) {
                visits[at] += 1;
            }
        }
        assert!(visits.iter().all(|&visits| visits == 1 || visits == 2));
        assert!(visits.iter().sum::<i32>() >= 19, "{visits:?}");
    }

    #[test]
    fn a_long_pause_is_one_round_and_no_slots_are_none() {
        let mut cursor = Cursor::default();
        cursor.note(1, 0);
        assert_eq!(cursor.step(1_000_000, 7).count(), 7);
        assert_eq!(cursor.step(2_000_000, 0).count(), 0);
    }

    #[test]
    fn silence_is_between_half_and_three_quarters_and_differs() {
        let patience: Vec<u64> = (0..1_000).map(|index| patience_ms(60_000, index)).collect();
        assert!(patience.iter().all(|&ms| (30_000..45_000).contains(&ms)));
        let early = patience.iter().filter(|&&ms| ms < 37_500).count();
        assert!((450..550).contains(&early), "{early}");
    }

    #[test]
    fn the_broker_is_given_up_after_one_and_a_half_keep_alives() {
        let mut slot = Slot::default();
        slot.state.keep_alive_s = 10;
        assert_eq!(due(&slot, 0, 4_999), Due::Nothing);
        assert_eq!(due(&slot, 0, 5_000), Due::Ping);
        slot.state.awaits_pong = true;
        slot.asked_ms = 5_000;
        slot.written_ms = 19_000;
        assert_eq!(due(&slot, 0, 19_999), Due::Nothing);
        assert_eq!(due(&slot, 0, 20_000), Due::GiveUp);
        slot.state.keep_alive_s = 0;
        assert_eq!(due(&slot, 0, u32::MAX), Due::Nothing);
    }
}
