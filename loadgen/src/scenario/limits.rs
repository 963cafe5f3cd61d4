//! What a scenario may ask for at most. Beyond these it is a slip of the pen, or more than this tool can count.

use crate::stamp::{STAMP_BYTES, STREAMS_MAX};
use codec::PACKET_BYTES_MAX;
use topic::TOPIC_BYTES_MAX;

/// Clients of a group, and of all groups together.
pub const CLIENTS_MAX: i64 = u32::MAX as i64;
/// Groups, streams, and subscriptions of a group.
pub const TABLES_MAX: usize = 1_000;
/// Filters of one subscription and client.
pub const FILTERS_PER_CLIENT_MAX: i64 = 1_000_000;
/// Bytes a second that a client takes from its connection.
pub const READ_BYTES_PER_SECOND_MAX: i64 = 1_000_000_000;
/// Topics of a stream.
pub const TOPICS_MAX: i64 = u32::MAX as i64;
/// Anything a second.
pub const RATE_MAX: f64 = 100_000_000.0;
/// The slowest rate: one in some eleven days.
pub const RATE_MIN: f64 = 0.000_001;
/// A run, a warm-up and a drain, in seconds: 30 days.
pub const SECONDS_MAX: f64 = 2_592_000.0;
/// The shortest measured time in seconds.
pub const SECONDS_MIN: f64 = 0.01;
/// Connections in progress.
pub const IN_PROGRESS_MAX: i64 = 10_000_000;
/// Messages in flight of one client: its packet identifiers.
pub const WINDOW_MAX: i64 = 65_535;
/// Messages in flight of one client where the file names no window and a rate paces the stream.
pub const WINDOW_DEFAULT: u32 = 1_000;
/// Messages of a burst.
pub const BURST_MAX: i64 = 1_000_000;
/// Storms of a run.
pub const STORMS_MAX: usize = 10_000;
/// The smallest payload of noise in bytes.
pub const PAYLOAD_BYTES_MIN: i64 = STAMP_BYTES as i64;
/// The largest payload in bytes: with the longest topic it still fits into a packet.
pub const PAYLOAD_BYTES_MAX: i64 = PACKET_BYTES_MAX as i64 - TOPIC_BYTES_MAX as i64 - 64;
/// Texts of a kind (topics of a stream, filters of a subscription) that are all rendered to check them. Of more, those at
/// both ends and a sample are: all of them differ in digits only.
pub const RENDERED_MAX: u64 = 1_000_000;
/// Filters and topics that are matched one by one, and deliveries per round of topics that are listed, for one
/// subscription and stream. Some seconds, and 100 bytes of memory each at worst.
pub const MATCHED_MAX: u64 = 20_000_000;
/// Messages of one publisher and topic: the stamp's number.
pub const LANE_MESSAGES_MAX: f64 = u32::MAX as f64;

const _: () = assert!(PAYLOAD_BYTES_MIN < PAYLOAD_BYTES_MAX);
const _: () = assert!(TABLES_MAX <= STREAMS_MAX as usize);
const _: () = assert!(WINDOW_DEFAULT as i64 <= WINDOW_MAX);
