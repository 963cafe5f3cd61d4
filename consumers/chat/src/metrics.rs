//! The backend's own numbers, for Prometheus; its consumer has others.

use prometheus::{IntCounter, Registry};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) messages: IntCounter,
    pub(crate) messages_again: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            messages: IntCounter::new("millstream_chat_messages_total", "Messages stored")?,
            messages_again: IntCounter::new(
                "millstream_chat_messages_again_total",
                "Messages read again that had been stored before; their receipts were sent again",
            )?,
        };
        registry.register(Box::new(metrics.messages.clone()))?;
        registry.register(Box::new(metrics.messages_again.clone()))?;
        Ok(metrics)
    }
}
