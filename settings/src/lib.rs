//! The ground floor of the configuration: what a key may be set to is written once, beside its default, and everything
//! else follows from that: the check, the error's words and the line of the reference page.
//!
//! A crate describes its section with [`section!`]; how values relate (a queue that must hold a packet) it checks itself.
//! This crate knows no section's meaning and reads no file.

mod error;
pub mod kafka;
mod key;
mod secret;
mod section;

pub use error::Error;
pub use key::{Key, Kind, in_range, is_kind, words};
pub use secret::{HIDDEN, Secret};
pub use section::Section;
