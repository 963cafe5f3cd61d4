//! The text on a node: one or more levels, joined by `/`.

/// Longest label that is stored within its node, so that a [`Label`] takes 24 bytes:
/// `{id}/commands/+` needs no heap block of its own up to an id of 11 bytes.
const INLINE_BYTES_MAX: usize = 22;

/// Some levels of a filter, without a `#` among them.
#[derive(Debug)]
pub(super) enum Label {
    /// The first `len` of `bytes`.
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    /// What is longer than [`INLINE_BYTES_MAX`].
    Heap(Box<[u8]>),
}

impl Label {
    pub(super) fn new(text: &[u8]) -> Self {
        if text.len() > INLINE_BYTES_MAX {
            return Self::Heap(text.into());
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Self::Inline {
            len: text.len() as u8,
            bytes,
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(text) => text,
        }
    }
}

impl Default for Label {
    fn default() -> Self {
        Self::new(b"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_text_and_their_size() {
        for length in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 65_535] {
            let text = vec![b'x'; length];
            assert_eq!(Label::new(&text).text(), text);
        }
        assert_eq!(size_of::<Label>(), 24);
    }
}
