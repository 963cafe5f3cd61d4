//! Every bound of a WebSocket connection: its name and its unit, in one place.

/// The largest frame and the largest message that is taken, in bytes of payload: MQTT's largest packet. Nothing of it is
/// gathered, so this costs no memory.
pub const FRAME_BYTES_MAX: u32 = 268_435_460;
/// The largest frame that is sent, in bytes of payload. A browser hands a message over when all of it is there.
pub const FRAME_OUT_BYTES_MAX: usize = 65_536;
/// The longest request or response with which a connection begins, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8_192;
/// Headers of a request or response.
pub(crate) const HEADERS_MAX: usize = 64;
/// The payload of a control frame, in bytes (RFC 6455, 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;
/// The header of a frame, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 14;
