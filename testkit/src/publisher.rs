//! Publishes a long row of messages with QoS 1 over one MQTT 3.1.1 connection, by rumqttc, and counts what was
//! acknowledged. Acknowledgements keep the order of the publishes [MQTT-4.6.0-2], so a count says which ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

/// Messages in flight at once.
const IN_FLIGHT_MAX: u16 = 100;

/// The row, on its way.
pub struct Publisher {
    acknowledged: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Publisher {
    /// Begins to publish `messages` (topic and payload) as client `id`.
    pub fn start(mqtt: SocketAddr, id: &str, messages: Vec<(String, String)>) -> Self {
        let mut options = MqttOptions::new(id, mqtt.ip().to_string(), mqtt.port());
        options.set_inflight(IN_FLIGHT_MAX);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, usize::from(IN_FLIGHT_MAX));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let (count, all) = (acknowledged.clone(), messages.len());
        let hearing = std::thread::spawn(move || {
            for event in connection.iter() {
                // The broker lives through the whole test: a lost connection is a failure.
                if let Event::Incoming(Packet::PubAck(_)) = event.expect("the connection holds")
                    && count.fetch_add(1, Ordering::SeqCst) + 1 == all
                {
                    return;
                }
            }
        });
        let saying = std::thread::spawn(move || {
            for (topic, payload) in messages {
                // Waits while the window is full: that is the flow control under test.
                client
                    .publish(topic, QoS::AtLeastOnce, false, payload)
                    .expect("the connection holds");
            }
        });
        Self {
            acknowledged,
            threads: vec![saying, hearing],
        }
    }

    /// How many were acknowledged: the first so many of the row.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until all are acknowledged.
    ///
    /// # Panics
    /// When the connection was lost.
    pub fn finish(mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("the connection holds");
        }
    }

    /// Waits for the end of a connection that the broker is to lose: how many were acknowledged before it.
    ///
    /// # Panics
    /// When everything was acknowledged: nothing was lost.
    pub fn lost(mut self) -> usize {
        let ends: Vec<bool> = self
            .threads
            .drain(..)
            .map(|thread| thread.join().is_ok())
            .collect();
        assert!(ends.contains(&false), "the connection holds");
        self.acknowledged()
    }
}
