//! An idle client, and what the allocator holds.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated now.
pub fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
}

/// The bytes that a client says: CONNECT, and a subscription of its own.
pub fn hello(number: u32) -> Vec<u8> {
    let id = format!("client-{number:07}");
    let mut bytes = vec![0x10, 12 + id.len() as u8];
    bytes.extend(b"\0\x04MQTT\x04\x02\x01\x2c\0");
    bytes.push(id.len() as u8);
    bytes.extend(id.as_bytes());
    bytes.extend([0x82, 5 + id.len() as u8, 0, 1, 0, id.len() as u8]);
    bytes.extend(id.as_bytes());
    bytes.push(0);
    bytes
}
