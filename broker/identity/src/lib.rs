//! Who a client is. A listener has a [`Chain`] of links; each looks at the [`Credentials`] that a CONNECT brought, and accepts
//! them as a [`Principal`], refuses them, or passes them on. A link that needs time (a password hash, a service elsewhere)
//! answers later, from a thread of its own, and holds up nobody meanwhile.
//!
//! This crate knows nothing of packets, sessions and workers, nor what a principal may do: that is the broker's business.
//!
//! What a wrong password costs is paid by who sends it: [`Attempts`] bounds what one address may have under way or have
//! failed at, hashes run on few threads of low priority with a bounded queue, and a user that does not exist costs what one
//! that does.

#![forbid(unsafe_code)]

mod attempts;
mod chain;
mod config;
pub mod http;
pub mod jwt;
mod node;
pub mod password;
mod pool;
mod principal;
mod watch;
mod web;

pub use attempts::Attempts;
pub use chain::{Accepted, Asked, Chain, Link, Question, Refusal, Refused, Said, Verdict};
pub use config::{Config, FileConfig, HttpConfig, JwtConfig, TokenIn};
pub use node::{Identity, StartError};
pub use pool::Pool;
pub use principal::{Certificate, Credentials, Password, Principal};
