//! The running hash that ties every frame to all that came before it.

/// State of the hash chain: a function of every byte of the log so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) [u8; 32]);

impl Chain {
    /// The state before the first segment, from the bytes of the header file.
    pub(crate) fn start(header_file: &[u8]) -> Self {
        Self(blake3::derive_key("ft-pair replay log, chain of segments", header_file))
    }

    /// The state after `parts`.
    pub(crate) fn next(&self, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The part of the state that a frame carries.
    pub(crate) fn tag(&self) -> [u8; 8] {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0[..8]);
        tag
    }
}
