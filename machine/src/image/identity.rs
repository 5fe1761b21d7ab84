//! Which image it is: digest and length, so that both sides know that they start from the same one.

use super::ImageError;
use crate::disk::sparse::{self, Piece};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Identity of an image's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// Length in bytes.
    pub len: u64,
    /// blake3 over the MiB-sized chunks that are not all zero, each with its offset, so that holes cost
    /// nothing.
    pub digest: [u8; 32],
}

impl std::fmt::Display for ImageIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.digest.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, " ({} bytes)", self.len)
    }
}

/// Digests an image. `progress` is told how many bytes of how many are done.
///
/// The result depends on the content alone: a hole counts as the zeros that it reads as.
///
/// # Errors
/// As [`super::open_guest`] for files that cannot be read.
pub fn identify(
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ImageIdentity, ImageError> {
    let (file, len) = super::open_plain(path)?;
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ft-pair image 1");
    hasher.update(&len.to_le_bytes());
    let mut buf = vec![0; CHUNK];
    let mut pieces = sparse::pieces(&file, len).map_err(io)?.into_iter().peekable();
    let mut at = 0;
    while at < len {
        let n = CHUNK.min((len - at) as usize);
        while pieces.next_if(|p| p.end <= at).is_some() {}
        // Data may begin in this chunk although the piece at its start is a hole.
        let hole =
            matches!(pieces.peek(), Some(Piece { data: false, end, .. }) if *end >= at + n as u64);
        let zero = hole || {
            file.read_exact_at(&mut buf[..n], at).map_err(io)?;
            sparse::is_zero(&buf[..n])
        };
        // Zero chunks are left out, the others come with their number.
        if !zero {
            hasher.update(&at.to_le_bytes());
            hasher.update(&buf[..n]);
        }
        at += n as u64;
        progress(at, len);
    }
    Ok(ImageIdentity { len, digest: *hasher.finalize().as_bytes() })
}
