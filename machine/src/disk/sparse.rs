//! Holes of sparse files.

use std::fs::File;
use std::io;

/// A stretch of a file that is data throughout, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub start: u64,
    pub end: u64,
    pub data: bool,
}

/// Divides a file into data and holes. Where the host cannot tell, all is data.
pub(crate) fn pieces(file: &File, len: u64) -> io::Result<Vec<Piece>> {
    use rustix::fs::{SeekFrom, seek};
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(len),
            // No data from here on.
            Err(rustix::io::Errno::NXIO) => len,
            Err(rustix::io::Errno::INVAL) => {
                pieces.push(Piece { start: at, end: len, data: true });
                break;
            }
            Err(e) => return Err(e.into()),
        };
        if start > at {
            pieces.push(Piece { start: at, end: start, data: false });
        }
        if start == len {
            break;
        }
        let end = seek(file, SeekFrom::Hole(start)).map_or(len, |end| end.min(len));
        // A file that changes meanwhile must not keep us here.
        let end = if end > start { end } else { len };
        pieces.push(Piece { start, end, data: true });
        at = end;
    }
    Ok(pieces)
}

/// True if all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (odd, words) = bytes.split_at(bytes.len() % 16);
    let zero = |c: &[u8]| u128::from_ne_bytes(c.try_into().expect("sixteen bytes")) == 0;
    odd.iter().all(|b| *b == 0) && words.chunks_exact(16).all(zero)
}
