//! Feeds arbitrary bytes to the codec in every version; what is accepted must
//! survive being written and read again. From the repository's root:
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo run -p codec --example fuzz_seeds -- broker/codec/fuzz/corpus/packets
//! cd broker/codec && cargo +nightly fuzz run packets -- -max_total_time=300
//! ```

#![no_main]

#[path = "../../tests/sound/mod.rs"]
mod sound;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sound::assert_sound(bytes));
