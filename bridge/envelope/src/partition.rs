//! Which partition a key belongs to, as Kafka's Java clients decide it.
//!
//! Order is kept per key only if every producer sends a key to the same partition, so all agree on murmur2 of the key.

/// The hash of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`): murmur2, 32 bits, with Kafka's seed.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Java's array length is 32 bits; no key comes near it, and the hash takes it modulo 2^32 as Java would.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ (key.len() as u32);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (position, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` in a topic of `partitions` partitions, as Java's default partitioner chooses it.
///
/// # Panics
///
/// If `partitions` is not positive; a Kafka topic has at least one.
#[must_use]
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    // Java clears the sign bit (`toPositive`) rather than taking the absolute value.
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
    positive % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first six from Apache Kafka's own `UtilsTest.testMurmur2`, the others computed by kafka-clients 4.1.0.
    const JAVA: [(&[u8], i32); 10] = [
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"a-little-bit-longer-string", -1_486_304_829),
        (
            b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        (b"abc", 479_470_107),
        (b"", 275_646_681),
        (b"rooms/lobby/messages", -1_363_290_912),
        (b"devices/d-17/telemetry/temperature", -2_062_580_882),
        ("räume/ü".as_bytes(), 1_178_835_606),
    ];

    #[test]
    fn murmur2_agrees_with_java() {
        for (key, hash) in JAVA {
            assert_eq!(
                murmur2(key).cast_signed(),
                hash,
                "{}",
                String::from_utf8_lossy(key)
            );
        }
    }

    #[test]
    fn partition_agrees_with_java() {
        for (key, hash) in JAVA {
            for partitions in [1, 2, 3, 12, 100, i32::MAX] {
                assert_eq!(partition(key, partitions), (hash & i32::MAX) % partitions);
            }
        }
    }
}
