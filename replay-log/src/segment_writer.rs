//! Writes the file of one segment.

use crate::chain::Chain;
use crate::segment::{FrameHeader, FrameKind, MAX_FRAME_RECORDS, Seal, SegmentHeader};
use ft_pair_shared::{Epoch, Position};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// zstd's fast end: the log is written while the guest runs.
const COMPRESSION_LEVEL: i32 = 1;
/// Below this many bytes compression does not pay.
const COMPRESS_FROM: usize = 256;

/// How far a segment is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentEnd {
    /// Number of the segment.
    pub(crate) number: u64,
    /// The chain's state.
    pub(crate) chain: Chain,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Records in it.
    pub(crate) records: u64,
}

/// An open segment file, at its end.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    file: File,
    end: SegmentEnd,
}

impl SegmentWriter {
    /// Creates the file, which must not exist, and writes its header.
    pub(crate) fn create(path: &Path, header: SegmentHeader) -> io::Result<Self> {
        let mut file = File::create_new(path)?;
        let bytes = header.to_bytes();
        file.write_all(&bytes)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            end: SegmentEnd {
                number: header.number,
                chain: header.chain.next(&[&bytes]),
                bytes: bytes.len() as u64,
                records: 0,
            },
        })
    }

    /// Goes on with a segment behind `end`; what the file has after it is cut off.
    pub(crate) fn resume(path: &Path, end: &SegmentEnd) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(end.bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, end: *end })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn number(&self) -> u64 {
        self.end.number
    }

    /// Length of the file so far, which is where the next frame starts.
    pub(crate) fn bytes(&self) -> u64 {
        self.end.bytes
    }

    /// Writes one frame of `records` encoded records.
    pub(crate) fn write_records(&mut self, plain: &[u8], records: u64) -> io::Result<()> {
        let len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        assert!(
            len <= MAX_FRAME_RECORDS,
            "a frame has at most {MAX_FRAME_RECORDS} bytes of records"
        );
        let (frame, chain) = match compress(plain)? {
            Some(zstd) => FrameHeader::frame(FrameKind::Zstd, len, &zstd, self.end.chain),
            None => FrameHeader::frame(FrameKind::Plain, len, plain, self.end.chain),
        };
        self.write(&frame, chain)?;
        self.end.records += records;
        Ok(())
    }

    /// Seals the segment, whose last record lies at `position`, and gives the state for the next.
    pub(crate) fn seal(&mut self, position: Position, epoch: Epoch) -> io::Result<Chain> {
        let seal = Seal { records: self.end.records, position, epoch, chain: self.end.chain };
        let (frame, chain) =
            FrameHeader::frame(FrameKind::Seal, 0, &seal.to_bytes(), self.end.chain);
        self.write(&frame, chain)?;
        Ok(chain)
    }

    /// Waits until all that was written is on stable storage.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A frame goes out whole or is cut off again, as far as the system lets us.
    fn write(&mut self, frame: &[u8], chain: Chain) -> io::Result<()> {
        if let Err(e) = self.file.write_all(frame) {
            // The error of the write is the one to report; a torn frame is also told apart by readers.
            let _ = self.file.set_len(self.end.bytes);
            return Err(e);
        }
        self.end.chain = chain;
        self.end.bytes += frame.len() as u64;
        Ok(())
    }
}

/// The compressed form where it is shorter.
fn compress(plain: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if plain.len() < COMPRESS_FROM {
        return Ok(None);
    }
    let zstd = zstd::bulk::compress(plain, COMPRESSION_LEVEL)?;
    Ok((zstd.len() < plain.len()).then_some(zstd))
}
