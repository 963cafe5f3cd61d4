//! Every bound of the real clients: its name and its unit, in one place.

use std::time::Duration;

/// Bytes read for one client in one turn, so that the others get theirs.
pub(crate) const READ_BYTES_PER_TURN: usize = 262_144;
/// Readiness events taken from the kernel in one turn.
pub(crate) const EVENTS_PER_TURN_MAX: usize = 4_096;
/// Bytes that wait for one client's socket from which on it has no [room](crate::swarm::Swarm::room).
pub(crate) const ROOM_BYTES_MAX: usize = 262_144;
/// Bytes that wait for one client's socket; with more its connection ends, as the broker does not read.
pub(crate) const WAITING_BYTES_MAX: usize = 64 * 1_048_576;
/// Emptied outboxes that are kept for reuse.
pub(crate) const SPARE_OUTBOXES_MAX: usize = 1_024;
/// The largest of them, in bytes.
pub(crate) const SPARE_OUTBOX_BYTES_MAX: usize = 16_384;
/// Connections of clients that said goodbye and that the broker has not closed yet.
pub(crate) const LEAVING_MAX: usize = 1_024;
/// How long such a connection waits for the broker to close it.
pub(crate) const LEAVING_MS_MAX: u32 = 1_000;
/// Reads from such a connection at once.
pub(crate) const LEAVING_READS_MAX: usize = 256;
/// A client that reads slowly writes a PINGREQ so often: that the broker has ended its connection stands behind all that it
/// has not read, and is told at once only to who writes.
pub(crate) const PROBE_MS: u32 = 1_000;
/// The longest wait of a turn while pings or time-outs may be due.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long a turn with less than a millisecond to wait sleeps between two looks. What comes meanwhile is noticed later by
/// as much.
pub(crate) const NAP_MAX: Duration = Duration::from_micros(100);
