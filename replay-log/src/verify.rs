//! Checks a whole recording.

use crate::error::{Place, ReadError};
use crate::index::{Index, IndexError};
use crate::reader::Reader;
use crate::stat::{Counter, Stat};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Whether a log is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every byte is as it was written, up to the End record.
    Good,
    /// The log stops without an End record; what there is, is good.
    Unfinished {
        /// Where it stops.
        place: Place,
        /// Bytes there of a frame that was not written to its end.
        torn: u64,
    },
    /// The log is good only up to a place.
    Refused {
        /// Where the first bad entry is.
        place: Place,
        /// What is wrong, in words.
        fault: String,
    },
}

/// How the index compares with the log. Readers do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// It has every frame of the log's good part.
    Complete,
    /// It is right as far as it goes, as for a log that was cut off.
    Behind,
    /// It is missing.
    Missing,
    /// It is damaged, or says other things than the log; rebuild it.
    Wrong,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the log is good.
    pub verdict: Verdict,
    /// How the index compares with it.
    pub index: IndexState,
    /// What its good part consists of.
    pub stat: Stat,
}

impl Report {
    /// True for a log that is good to its End record.
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }
}

/// Reads all of the recording in `dir` and checks every byte of its segments.
///
/// # Errors
/// The recording's header cannot be read or is refused, or the system refuses. Anything wrong with
/// the log itself is in the report.
pub fn verify(dir: &Path) -> Result<Report, ReadError> {
    let mut reader = Reader::open(dir)?;
    let mut counter = Counter::default();
    let mut frames = Index::default();
    let mut verdict = Verdict::Good;
    while let Some(record) = reader.next() {
        match record {
            Ok(record) => {
                counter.add(&record, reader.usage().last_record);
                frames.note(reader.frame());
            }
            Err(ReadError::Unfinished { place, torn }) => {
                verdict = Verdict::Unfinished { place, torn };
            }
            Err(ReadError::Refused { place, fault }) => {
                verdict = Verdict::Refused { place, fault: fault.to_string() };
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Report { verdict, index: compare(&reader, &frames), stat: counter.finish(&reader) })
}

fn compare(reader: &Reader, frames: &Index) -> IndexState {
    let index = match Index::load(reader.dir(), reader.header().log_id) {
        Ok(index) => index,
        Err(IndexError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return IndexState::Missing;
        }
        Err(_) => return IndexState::Wrong,
    };
    let kept = index.entries.partition_point(|e| e.segment < reader.first_segment());
    let entries = &index.entries[kept..];
    if entries == frames.entries {
        IndexState::Complete
    } else if frames.entries.starts_with(entries) {
        IndexState::Behind
    } else {
        IndexState::Wrong
    }
}
