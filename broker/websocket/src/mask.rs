//! Masks: what a client disguises its payload with (RFC 6455, 5.3).

/// Puts the mask over the bytes, or takes it off: the mask for what comes behind them.
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    const WIDE: usize = 16;
    let mut wide = [0; WIDE];
    for part in wide.as_chunks_mut().0 {
        *part = mask;
    }
    let wide = u128::from_ne_bytes(wide);
    let (chunks, rest) = bytes.as_chunks_mut::<WIDE>();
    for chunk in chunks {
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let mut next = mask;
    next.rotate_left(rest.len() % mask.len());
    next
}

/// The masks of a client.
///
/// They keep a page from writing what a proxy would read as HTTP (RFC 6455, 10.3), and have to be hard to guess for that. Here
/// is no page and no secret: that they differ will do.
#[derive(Debug)]
pub(crate) struct Masks(u64);

impl Masks {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> [u8; 4] {
        // SplitMix64 (Steele, Lea, Flood, 2014).
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed >> 32) as u32).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_goes_on_where_it_stopped() {
        let plain: Vec<u8> = (0..100).collect();
        for cut in 0..plain.len() {
            let mut bytes = plain.clone();
            let next = apply_mask(&mut bytes[..cut], [1, 2, 4, 8]);
            apply_mask(&mut bytes[cut..], next);
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte, plain[at] ^ [1, 2, 4, 8][at % 4], "{cut} {at}");
            }
        }
    }
}
