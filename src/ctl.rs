//! What `millstream ctl` is made of: a client of the operators' API, and tables for a terminal.

mod client;
mod table;

pub use client::{Client, encoded};
pub use table::{Table, ago, is_obeyed, shown};
