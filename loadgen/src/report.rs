//! What a run found out, and how it is shown: as a text, as JSON, as a page, and beside other runs.
//!
//! [`data`] holds the figures as they were counted; [`derived`] works out the ones that people compare (rates, CPU for a
//! message, bytes for a client). Text and pages are made of the same tables, so they cannot disagree.

mod charts;
pub mod compare;
pub mod data;
pub mod derived;
mod file;
pub mod json;
pub mod page;
mod table;
mod tables;
pub mod text;
mod units;

#[cfg(test)]
mod browser_tests;
#[cfg(test)]
mod sample;

pub use data::*;
pub(crate) use units::counted;
