//! Logs to read and to damage.
#![allow(dead_code)]

use ft_pair_replay_log::{Header, Image, Index, Options, ReadError, Reader, Record, Start, Writer};
use ft_pair_shared::{Epoch, Input, Position};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub fn header() -> Header {
    Header::new(Image { digest: [7; 32], bytes: 1 << 20 }, Start::PowerOn, b"one vCPU".to_vec())
}

/// Records of `epochs` epochs with a few inputs each, without an End record. `salt` changes contents.
pub fn records(epochs: u64, salt: u64) -> Vec<Record> {
    let mut out = Vec::new();
    for epoch in 1..=epochs {
        let at = epoch * 1_000_000;
        let clock = Input::Clock { time_ns: at * 10 + epoch * salt % 997, rate: 10 << 32 };
        out.push(Record::Input { position: Position::at(at), input: clock });
        let console = Position { retired: at + 5, rep: epoch % 3, seq: 0 };
        let bytes = format!("line {epoch} of {salt}\n").repeat(12).into_bytes();
        let input = Input::Console { first: epoch * 100, bytes };
        out.push(Record::Input { position: console, input });
        if epoch % 4 == 0 {
            let position = console.after_input();
            out.push(Record::Input { position, input: Input::PowerButton });
        }
        let position = Position::at(at + 900_000);
        let digest = [(epoch + salt) as u8; 32];
        out.push(Record::EpochEnd { epoch: Epoch(epoch), position, digest });
    }
    out
}

pub fn with_end(mut records: Vec<Record>) -> Vec<Record> {
    let position = Position::at(records.last().map_or(0, |r| r.position().retired + 1));
    records.push(Record::End { position });
    records
}

/// Writes a recording with a frame every `flush` records and a segment every `rotate` records.
pub fn write(dir: &Path, header: &Header, records: &[Record], flush: usize, rotate: usize) {
    let mut writer = Writer::create(dir, header, Options::default()).unwrap();
    for (i, record) in records.iter().enumerate() {
        writer.append(record).unwrap();
        if (i + 1) % rotate == 0 {
            writer.rotate().unwrap();
        } else if (i + 1) % flush == 0 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap();
}

pub struct Log {
    pub tmp: TempDir,
    pub dir: PathBuf,
    pub records: Vec<Record>,
}

pub fn log(epochs: u64, salt: u64, flush: usize, rotate: usize) -> Log {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("log");
    let records = with_end(records(epochs, salt));
    write(&dir, &header(), &records, flush, rotate);
    Log { tmp, dir, records }
}

impl Log {
    pub fn segment(&self, number: u64) -> PathBuf {
        segment(&self.dir, number)
    }

    /// The frames, by (segment, offset, how many records lie before).
    pub fn frames(&self) -> Vec<(u64, u64, usize)> {
        let id = Header::read(&self.dir).unwrap().log_id;
        let index = Index::load(&self.dir, id).unwrap();
        let before = |p| self.records.iter().take_while(|r| r.position() < p).count();
        index.entries.iter().map(|e| (e.segment, e.offset, before(e.position))).collect()
    }
}

pub fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:06}.ftlog"))
}

/// All records up to the first error, and that error.
pub fn read(dir: &Path) -> (Vec<Record>, Option<ReadError>) {
    let mut records = Vec::new();
    let mut reader = match Reader::open(dir) {
        Ok(reader) => reader,
        Err(e) => return (records, Some(e)),
    };
    while let Some(record) = reader.next() {
        match record {
            Ok(record) => records.push(record),
            Err(e) => {
                assert!(reader.next().is_none(), "nothing comes after an error");
                return (records, Some(e));
            }
        }
    }
    (records, None)
}

/// Replaces a file's contents in place. Truncating it to nothing first would make some file systems
/// wait for the disk each time.
pub fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

pub fn flip(path: &Path, at: usize, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= mask;
    overwrite(path, &bytes);
}
