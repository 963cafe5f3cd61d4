//! The broker over real TCP, with clients that are not ours: mosquitto_pub, mosquitto_sub and mosquitto_rr, rumqttc, paho-mqtt in
//! Python, and MQTT.js under Node.js; and with sockets that send what no client would. One behaviour a test, in every version that
//! the client speaks.
//!
//! What the protocol says in each case is tested in `harness`, on virtual time. This is the second opinion: that
//! others' clients understand it the same way. Tests wait for what they expect, with a deadline, and never for a time.

#[path = "../certificates/mod.rs"]
mod certificates;

mod bad_input;
mod held;
mod listeners;
mod mosquitto;
mod mosquitto_v5;
mod paho;
mod rumqttc_v4;
mod rumqttc_v5;
mod start;
mod stop;
mod support;
mod websocket;
