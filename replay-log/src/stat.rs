//! What a log consists of and what it costs.

use crate::error::ReadError;
use crate::reader::Reader;
use crate::{Record, Start};
use ft_pair_shared::{Input, Position};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The records of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassStat {
    /// Records.
    pub count: u64,
    /// Their encoded bytes, before compression.
    pub bytes: u64,
}

/// Bytes of one kind, relative to the execution that they describe. `None` where that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes per million retired instructions.
    pub bytes_per_million_instructions: Option<f64>,
    /// Bytes per second of guest time.
    pub bytes_per_guest_second: Option<f64>,
}

/// What a log consists of. All bytes of classes are encoded bytes, before compression.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stat {
    /// Clock anchors.
    pub clock: ClassStat,
    /// Console input records.
    pub console: ClassStat,
    /// Bytes that were typed, without their records' overhead.
    pub console_typed_bytes: u64,
    /// Presses of the power button.
    pub power: ClassStat,
    /// All inputs: the three above.
    pub inputs: ClassStat,
    /// Ends of epochs, with their digests.
    pub epochs: ClassStat,
    /// Flushes of the TLB.
    pub tlb_flushes: ClassStat,
    /// The End record.
    pub end: ClassStat,
    /// All records.
    pub records: ClassStat,
    /// Segments.
    pub segments: u64,
    /// Frames of records.
    pub frames: u64,
    /// Bytes on disk that hold records, compressed where that pays.
    pub stored_bytes: u64,
    /// Bytes on disk of segment headers, frame headers and seals.
    pub framing_bytes: u64,
    /// Bytes of the recording's header file.
    pub header_bytes: u64,
    /// Bytes on disk of header and segments, up to where the log is good.
    pub file_bytes: u64,
    /// Position of the first record.
    pub first: Option<Position>,
    /// Position of the last record.
    pub last: Option<Position>,
    /// Instructions that the log covers: from power-on, or else from its first record, to its last.
    pub instructions: u64,
    /// Guest time from the first clock anchor to the last record, nanoseconds.
    pub guest_ns: Option<u64>,
    /// Encoded bytes of inputs, relative to the execution.
    pub input_rates: Rates,
    /// Encoded bytes of epoch ends, relative to the execution.
    pub digest_rates: Rates,
    /// Bytes on disk, relative to the execution.
    pub file_rates: Rates,
    /// True if the log ends with an End record.
    pub finished: bool,
}

/// Reads the recording in `dir` and counts. An unfinished log is counted up to where it stops.
///
/// # Errors
/// The log cannot be read or is refused; [`crate::verify()`] also counts the good part of such a log.
pub fn stat(dir: &Path) -> Result<Stat, ReadError> {
    let mut reader = Reader::open(dir)?;
    let mut counter = Counter::default();
    while let Some(record) = reader.next() {
        match record {
            Ok(record) => counter.add(&record, reader.usage().last_record),
            Err(ReadError::Unfinished { .. }) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(counter.finish(&reader))
}

/// Counts records as they are read.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    stat: Stat,
    clock: Option<Clock>,
}

/// Guest time of the log: its start, and the anchor in force.
#[derive(Debug, Clone, Copy)]
struct Clock {
    first_ns: u64,
    retired: u64,
    time_ns: u64,
    rate: u64,
}

impl Counter {
    /// Counts `record`, which takes `bytes` encoded.
    pub(crate) fn add(&mut self, record: &Record, bytes: u64) {
        let stat = &mut self.stat;
        let class = match record {
            Record::Input { input: Input::Clock { .. }, .. } => &mut stat.clock,
            Record::Input { input: Input::Console { bytes, .. }, .. } => {
                stat.console_typed_bytes += bytes.len() as u64;
                &mut stat.console
            }
            Record::Input { input: Input::PowerButton, .. } => &mut stat.power,
            Record::EpochEnd { .. } => &mut stat.epochs,
            Record::TlbFlush { .. } => &mut stat.tlb_flushes,
            Record::End { .. } => &mut stat.end,
        };
        class.add(bytes);
        stat.records.add(bytes);
        if let Record::Input { position, input } = record {
            stat.inputs.add(bytes);
            self.anchor(*position, input);
        }
        self.stat.first.get_or_insert(record.position());
        self.stat.last = Some(record.position());
    }

    fn anchor(&mut self, position: Position, input: &Input) {
        if let Input::Clock { time_ns, rate } = *input {
            let first_ns = self.clock.map_or(time_ns, |c| c.first_ns);
            self.clock = Some(Clock { first_ns, retired: position.retired, time_ns, rate });
        }
    }

    /// The result, with what `reader` saw of the files.
    pub(crate) fn finish(self, reader: &Reader) -> Stat {
        let usage = reader.usage();
        let header_bytes = reader.header().file_bytes();
        let whole = reader.header().start == Start::PowerOn && reader.removed().is_none();
        let mut stat = Stat {
            segments: usage.segments,
            frames: usage.frames,
            stored_bytes: usage.stored,
            framing_bytes: usage.files - usage.stored,
            header_bytes,
            file_bytes: header_bytes + usage.files,
            finished: self.stat.end.count == 1,
            ..self.stat
        };
        let from = if whole { Some(Position::ZERO) } else { stat.first };
        if let (Some(from), Some(last)) = (from, stat.last) {
            stat.instructions = last.retired - from.retired;
            stat.guest_ns = self.clock.map(|c| c.elapsed(last.retired));
        }
        stat.input_rates = stat.rates(stat.inputs.bytes);
        stat.digest_rates = stat.rates(stat.epochs.bytes);
        stat.file_rates = stat.rates(stat.file_bytes);
        stat
    }
}

impl Clock {
    /// Guest time from the first anchor to `retired`, nanoseconds.
    fn elapsed(self, retired: u64) -> u64 {
        let run = (u128::from(retired - self.retired) * u128::from(self.rate)) >> 32;
        let now = u128::from(self.time_ns) + run;
        u64::try_from(now.saturating_sub(u128::from(self.first_ns))).unwrap_or(u64::MAX)
    }
}

impl ClassStat {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Stat {
    fn rates(&self, bytes: u64) -> Rates {
        let per =
            |unit: f64, amount: u64| (amount > 0).then(|| bytes as f64 * unit / amount as f64);
        Rates {
            bytes_per_million_instructions: per(1e6, self.instructions),
            bytes_per_guest_second: self.guest_ns.and_then(|ns| per(1e9, ns)),
        }
    }
}
