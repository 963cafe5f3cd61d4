//! The protocol, one behaviour a test, on a whole broker in this thread: real workers, sessions, router and sink over
//! connections in memory and on the test's own time ([`broker::sim::Sim`]). Nothing here waits or opens a socket.
//!
//! Packets that a client got are compared as text, see `support::text`. `random` runs thousands of clients from a seed.

#[path = "../certificates/mod.rs"]
mod certificates;

mod access;
mod admin;
mod bad_input;
mod connect;
mod downlink;
mod downlink_outcomes;
mod flow_control;
mod held;
mod identity;
mod layers;
mod leave;
mod losses;
mod memory;
mod offline;
mod publish_in;
mod publish_out;
mod random;
mod recheck;
mod reconfigure;
mod refused_again;
mod replay;
mod retained;
mod shared;
mod shared_room;
mod shared_strategy;
mod shutdown;
mod sink;
mod subscription_bounds;
mod subscriptions;
mod support;
mod sys;
mod takeover;
mod tls;
mod trace;
mod turns;
mod websocket;
mod wills;
