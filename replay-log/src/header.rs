//! The recording's header file: what was recorded, by what, from which start.

use crate::fields::{Fields, PutFields};
use crate::{HeaderFault, ReadError, WriteError};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the format of all files of a recording.
pub const FORMAT_VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"FTPAIRLG";
const FILE: &str = "header";
const CHECK_BYTES: usize = 32;

/// Names one recording, so that segments of another one are not taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogId(pub [u8; 16]);

/// The disk image (or kernel) that the recorded machine booted, as it was at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// blake3 of the whole image.
    pub digest: [u8; 32],
    /// Its length, bytes.
    pub bytes: u64,
}

/// The state of the machine from which the recording starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Power-on with the machine configuration of the header.
    PowerOn,
    /// A snapshot, kept in the directory of the recording.
    Snapshot {
        /// Name of the snapshot's file, without a directory.
        file: String,
        /// blake3 of that file.
        digest: [u8; 32],
    },
}

/// What a recording is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Names the recording.
    pub log_id: LogId,
    /// Version of the ft-pair that wrote it.
    pub crate_version: String,
    /// The machine's configuration, in the encoding of the machine crate.
    pub machine: Vec<u8>,
    /// What the machine booted.
    pub image: Image,
    /// Where the recording starts.
    pub start: Start,
}

impl Header {
    /// The header of a new recording, with a fresh [`LogId`], by this version of ft-pair.
    pub fn new(image: Image, start: Start, machine: Vec<u8>) -> Self {
        Self {
            log_id: LogId(uuid::Uuid::new_v4().into_bytes()),
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            image,
            start,
        }
    }

    /// Reads and checks the header of the recording in `dir`, without looking at its segments.
    ///
    /// # Errors
    /// The file cannot be read, is of another kind or version, or is damaged.
    pub fn read(dir: &Path) -> Result<Self, ReadError> {
        Self::read_with_bytes(dir).map(|(header, _)| header)
    }

    /// The header and the bytes of its file, which start the chain of segments.
    pub(crate) fn read_with_bytes(dir: &Path) -> Result<(Self, Vec<u8>), ReadError> {
        let path = path(dir);
        let bytes = fs::read(&path).map_err(|e| ReadError::io(&path, e))?;
        match Self::from_bytes(&bytes) {
            Ok(header) => Ok((header, bytes)),
            Err(fault) => Err(ReadError::Header { path, fault }),
        }
    }

    /// Writes the header of a new recording; all of it appears at once.
    pub(crate) fn write(&self, dir: &Path) -> Result<Vec<u8>, WriteError> {
        let bytes = self.to_bytes();
        let path = path(dir);
        if path.exists() {
            return Err(WriteError::Exists { path: dir.to_owned() });
        }
        replace_file(&path, &bytes).map_err(|e| WriteError::io(&path, e))?;
        Ok(bytes)
    }

    /// Length of the header's file, bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.to_bytes().len() as u64
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u32(FORMAT_VERSION);
        out.extend_from_slice(&self.log_id.0);
        put_counted(&mut out, self.crate_version.as_bytes());
        put_counted(&mut out, &self.machine);
        out.extend_from_slice(&self.image.digest);
        out.put_u64(self.image.bytes);
        match &self.start {
            Start::PowerOn => out.push(0),
            Start::Snapshot { file, digest } => {
                out.push(1);
                put_counted(&mut out, file.as_bytes());
                out.extend_from_slice(digest);
            }
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(check.as_bytes());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderFault> {
        check_kind(bytes, &MAGIC)?;
        let (body, check) =
            bytes.split_at_checked(bytes.len() - CHECK_BYTES.min(bytes.len())).unwrap_or_default();
        if blake3::hash(body).as_bytes() != check {
            return Err(HeaderFault::Damaged);
        }
        Self::from_body(Fields(&body[12..])).ok_or(HeaderFault::Damaged)
    }

    fn from_body(mut fields: Fields<'_>) -> Option<Self> {
        let log_id = LogId(fields.array()?);
        let crate_version = string(fields.counted()?)?;
        let machine = fields.counted()?.to_vec();
        let image = Image { digest: fields.array()?, bytes: fields.u64()? };
        let start = match fields.array()? {
            [0] => Start::PowerOn,
            [1] => Start::Snapshot { file: string(fields.counted()?)?, digest: fields.array()? },
            _ => return None,
        };
        fields.0.is_empty().then_some(Self { log_id, crate_version, machine, image, start })
    }
}

/// The header's file.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Checks magic and version, which every file of a recording starts with.
pub(crate) fn check_kind(bytes: &[u8], magic: &[u8; 8]) -> Result<(), HeaderFault> {
    let mut fields = Fields(bytes);
    if fields.bytes(8) != Some(magic) {
        return Err(HeaderFault::Magic);
    }
    match fields.u32() {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) => Err(HeaderFault::Version { found, supported: FORMAT_VERSION }),
        None => Err(HeaderFault::Damaged),
    }
}

/// Writes a file so that, after a crash, either the old or the whole new one is there.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a field of the log's header is below 4 GiB");
    out.put_u32(len);
    out.extend_from_slice(bytes);
}

fn string(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> [Header; 2] {
        let image = Image { digest: [3; 32], bytes: 1 << 30 };
        let snapshot = Start::Snapshot { file: "start.snap".into(), digest: [9; 32] };
        [
            Header::new(image, Start::PowerOn, vec![]),
            Header::new(image, snapshot, b"two sockets".to_vec()),
        ]
    }

    #[test]
    fn headers_come_back() {
        for header in headers() {
            assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        for bytes in headers().map(|h| h.to_bytes()) {
            for i in 0..bytes.len() {
                assert!(Header::from_bytes(&bytes[..i]).is_err(), "cut at {i}");
                for bit in 0..8 {
                    let mut bad = bytes.clone();
                    bad[i] ^= 1 << bit;
                    assert!(Header::from_bytes(&bad).is_err(), "bit {bit} of byte {i}");
                }
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = headers()[0].to_bytes();
        bytes[8] = 77;
        let expected = HeaderFault::Version { found: 77, supported: FORMAT_VERSION };
        assert_eq!(Header::from_bytes(&bytes), Err(expected));
    }
}
