//! What a run found out, and how it is shown: as a text, as JSON, as a page, and beside other runs.

pub mod data;
mod file;

pub use data::*;
