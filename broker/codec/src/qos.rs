//! Quality of service: how hard a message is tried.

/// Quality of service of a message, a will or a subscription.
#[repr(u8)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: repeated until a PUBACK comes.
    AtLeastOnce = 1,
    /// QoS 2: delivered exactly once by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level in the low two bits, or `None` for 3, which no packet may
    /// carry [MQTT-3.3.1-4].
    pub(crate) const fn from_bits(bits: u8) -> Option<Qos> {
        match bits & 0b11 {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

impl From<Qos> for u8 {
    fn from(qos: Qos) -> u8 {
        qos as u8
    }
}

impl TryFrom<u8> for Qos {
    /// The number that is no QoS.
    type Error = u8;

    fn try_from(level: u8) -> Result<Qos, u8> {
        match level {
            0..=2 => Qos::from_bits(level).ok_or(level),
            _ => Err(level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Qos;

    #[test]
    fn only_three_numbers_are_a_qos() {
        for level in 0..=u8::MAX {
            match Qos::try_from(level) {
                Ok(qos) => assert_eq!(u8::from(qos), level),
                Err(refused) => assert!(refused == level && level > 2),
            }
        }
        assert!(Qos::AtMostOnce < Qos::AtLeastOnce && Qos::AtLeastOnce < Qos::ExactlyOnce);
    }
}
