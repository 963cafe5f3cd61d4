//! Simulated clients: that they speak MQTT as real ones do, keep alive by themselves, and tell all that happened once.

mod flows;
mod keep_alive;
mod shards;
mod support;
