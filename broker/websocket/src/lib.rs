//! WebSocket (RFC 6455) as MQTT uses it [MQTT-6.0.0-1 to -4], both sides, as state machines over bytes: no I/O, no clock, no MQTT.
//!
//! A [`Server`] or [`Client`] stands between a stream of bytes and what MQTT sees of it, and is told of bytes in pieces of any
//! size. Payload is passed on as it comes: no message is gathered, and a connection that is idle owns nothing but its struct.
//!
//! Frame headers are read and written by the crate `tungstenite`; why not more of it is in
//! `docs/adr/0009-websocket-frames-pass-through.md`.

mod bounds;
mod client;
mod end;
mod frames;
mod input;
mod mask;
mod request;
mod server;
mod writer;

pub use bounds::{FRAME_BYTES_MAX, FRAME_OUT_BYTES_MAX, REQUEST_BYTES_MAX};
pub use client::{Client, Greeting};
pub use end::{Close, End, Stranger, Violation};
pub use request::Rules;
pub use server::Server;
