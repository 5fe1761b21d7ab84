//! The compact encoding of records, on disk and on the stream from Master to Slave.
//!
//! A record is a tag byte, its position as a difference from the record before, and the fields of its
//! kind. Every record has exactly one encoding; any other bytes are refused.

use crate::order::{Order, OrderError};
use crate::{Record, varint};
use ft_pair_shared::{Epoch, Input, Position};

/// The most console bytes that one record carries.
pub const MAX_CONSOLE_BYTES: usize = 1 << 20;

const KIND_MASK: u8 = 0x07;
const CLOCK: u8 = 1;
const CONSOLE: u8 = 2;
const POWER_BUTTON: u8 = 3;
const EPOCH_END: u8 = 4;
const END: u8 = 5;
const TLB_FLUSH: u8 = 6;
/// The tag's bit that says that a nonzero difference of `rep` follows.
const HAS_REP: u8 = 0x08;
/// The same for `seq`.
const HAS_SEQ: u8 = 0x10;

/// Why bytes are no record. [`Self::Truncated`] may become one when more bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside the record.
    #[error("the record is cut off")]
    Truncated,
    /// The first byte names no kind of record.
    #[error("{0:#04x} is not the tag of a record")]
    Tag(u8),
    /// A number is too large or not in its shortest form.
    #[error("a number of the record is not in its one valid form")]
    Varint,
    /// A difference leads out of the range of the number that it changes.
    #[error("a difference in the record leads out of range")]
    Range,
    /// More console bytes than [`MAX_CONSOLE_BYTES`].
    #[error("the record has {0} console bytes, more than {MAX_CONSOLE_BYTES}")]
    TooLong(u64),
    /// A well-formed record that may not follow the ones before it.
    #[error(transparent)]
    Order(#[from] OrderError),
}

/// What differences are taken against. Both ends keep the same one.
#[derive(Debug, Clone, Default)]
struct Base {
    position: Position,
    anchor_retired: u64,
    time_ns: u64,
    rate: u64,
    /// Number of the console byte that is expected next.
    console: u64,
    epoch: u64,
}

impl Base {
    fn at(position: Position, epoch: Epoch) -> Self {
        Self { position, anchor_retired: position.retired, epoch: epoch.0, ..Self::default() }
    }

    /// Guest time at `retired` by the anchor before, modulo 2^64; only a guess to take differences from.
    fn predict(&self, retired: u64) -> u64 {
        let run = u128::from(retired.wrapping_sub(self.anchor_retired));
        self.time_ns.wrapping_add((run.wrapping_mul(u128::from(self.rate)) >> 32) as u64)
    }

    fn push(&mut self, record: &Record) {
        self.position = record.position();
        match record {
            Record::Input { position, input: Input::Clock { time_ns, rate } } => {
                self.anchor_retired = position.retired;
                self.time_ns = *time_ns;
                self.rate = *rate;
            }
            Record::Input { input: Input::Console { first, bytes }, .. } => {
                self.console = first.wrapping_add(bytes.len() as u64);
            }
            Record::EpochEnd { epoch, .. } => self.epoch = epoch.0,
            Record::Input { input: Input::PowerButton, .. }
            | Record::TlbFlush { .. }
            | Record::End { .. } => {}
        }
    }
}

/// Encodes records one after the other, each against the ones before.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    base: Base,
    order: Order,
}

impl Encoder {
    /// An encoder before the first record of a log or stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the encoding of `record` to `out`.
    ///
    /// # Panics
    /// If the record may not follow the ones before it (positions and epochs only grow, nothing follows
    /// the end), or has more than [`MAX_CONSOLE_BYTES`].
    pub fn encode(&mut self, record: &Record, out: &mut Vec<u8>) {
        self.assert_order(record);
        put_record(&self.base, record, out);
        self.base.push(record);
        self.order.push(record);
    }

    /// Says whether `record` may come next.
    pub fn check(&self, record: &Record) -> Result<(), OrderError> {
        self.order.check(record)
    }

    /// Position of the last record.
    pub fn last(&self) -> Option<Position> {
        self.order.last()
    }

    /// The epoch that ended last, 0 for none.
    pub fn epoch(&self) -> Epoch {
        self.order.epoch()
    }

    /// Takes differences against `first`'s position alone from here on: it begins a segment.
    pub(crate) fn begin_segment(&mut self, first: &Record) {
        self.assert_order(first);
        self.base = Base::at(first.position(), self.order.epoch());
    }

    fn assert_order(&self, record: &Record) {
        if let Err(e) = self.order.check(record) {
            panic!("records of a log keep their order: {e}");
        }
    }
}

/// Decodes what [`Encoder`] wrote, in the same order.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    base: Base,
    order: Order,
}

impl Decoder {
    /// A decoder before the first record of a log or stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder in the middle of a log, before a segment: after a record at `last`, `epoch` having
    /// ended.
    pub(crate) fn resume(last: Position, epoch: Epoch) -> Self {
        Self { base: Base::default(), order: Order::resume(last, epoch) }
    }

    /// Takes one record off the front of `input`. On an error neither `input` nor the decoder changes,
    /// so a stream may try again after [`CodecError::Truncated`] when it has more bytes.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Record, CodecError> {
        let mut rest = *input;
        let record = take_record(&self.base, &mut rest)?;
        self.order.check(&record)?;
        self.base.push(&record);
        self.order.push(&record);
        *input = rest;
        Ok(record)
    }

    /// Position of the last record.
    pub fn last(&self) -> Option<Position> {
        self.order.last()
    }

    /// The epoch that ended last, 0 for none.
    pub fn epoch(&self) -> Epoch {
        self.order.epoch()
    }

    /// True after the End record.
    pub fn ended(&self) -> bool {
        self.order.ended()
    }

    /// Goes on encoding where this left off decoding.
    pub(crate) fn into_encoder(self) -> Encoder {
        Encoder { base: self.base, order: self.order }
    }

    /// Takes differences against `position` alone from here on, as at the start of a segment.
    pub(crate) fn rebase(&mut self, position: Position) {
        self.base = Base::at(position, self.order.epoch());
    }
}

fn put_record(base: &Base, record: &Record, out: &mut Vec<u8>) {
    let kind = match record {
        Record::Input { input: Input::Clock { .. }, .. } => CLOCK,
        Record::Input { input: Input::Console { .. }, .. } => CONSOLE,
        Record::Input { input: Input::PowerButton, .. } => POWER_BUTTON,
        Record::EpochEnd { .. } => EPOCH_END,
        Record::TlbFlush { .. } => TLB_FLUSH,
        Record::End { .. } => END,
    };
    put_position(base, kind, record.position(), out);
    match record {
        Record::Input { position, input: Input::Clock { time_ns, rate } } => {
            varint::put(out, varint::zigzag(base.predict(position.retired), *time_ns));
            varint::put(out, varint::zigzag(base.rate, *rate));
        }
        Record::Input { input: Input::Console { first, bytes }, .. } => {
            assert!(
                bytes.len() <= MAX_CONSOLE_BYTES,
                "one record carries at most {MAX_CONSOLE_BYTES} console bytes"
            );
            varint::put(out, varint::zigzag(base.console, *first));
            varint::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Record::EpochEnd { epoch, digest, .. } => {
            varint::put(out, epoch.0 - base.epoch - 1);
            out.extend_from_slice(digest);
        }
        Record::Input { input: Input::PowerButton, .. }
        | Record::TlbFlush { .. }
        | Record::End { .. } => {}
    }
}

/// Tag and position. A larger part that grew sets the smaller ones back to 0 before their difference.
fn put_position(base: &Base, kind: u8, position: Position, out: &mut Vec<u8>) {
    let from = base.position;
    let rep_from = if position.retired == from.retired { from.rep } else { 0 };
    let seq_from = if position.same_boundary(from) { from.seq } else { 0 };
    let (rep, seq) = (position.rep - rep_from, position.seq - seq_from);
    let tag = kind | if rep != 0 { HAS_REP } else { 0 } | if seq != 0 { HAS_SEQ } else { 0 };
    out.push(tag);
    varint::put(out, position.retired - from.retired);
    if rep != 0 {
        varint::put(out, rep);
    }
    if seq != 0 {
        varint::put(out, u64::from(seq));
    }
}

fn take_record(base: &Base, rest: &mut &[u8]) -> Result<Record, CodecError> {
    let tag = take_bytes(rest, 1)?[0];
    let kind = tag & KIND_MASK;
    if tag & !(KIND_MASK | HAS_REP | HAS_SEQ) != 0 || !(CLOCK..=TLB_FLUSH).contains(&kind) {
        return Err(CodecError::Tag(tag));
    }
    let position = take_position(base.position, tag, rest)?;
    let input = match kind {
        CLOCK => take_clock(base, position, rest)?,
        CONSOLE => take_console(base, rest)?,
        POWER_BUTTON => Input::PowerButton,
        EPOCH_END => return take_epoch_end(base, position, rest),
        TLB_FLUSH => return Ok(Record::TlbFlush { position }),
        _ => return Ok(Record::End { position }),
    };
    Ok(Record::Input { position, input })
}

fn take_position(from: Position, tag: u8, rest: &mut &[u8]) -> Result<Position, CodecError> {
    let retired = from.retired.checked_add(varint::take(rest)?).ok_or(CodecError::Range)?;
    let rep_from = if retired == from.retired { from.rep } else { 0 };
    let rep_delta = take_difference(tag & HAS_REP != 0, rest)?;
    let rep = rep_from.checked_add(rep_delta).ok_or(CodecError::Range)?;
    let seq_from = if retired == from.retired && rep == from.rep { from.seq } else { 0 };
    let seq_delta = take_difference(tag & HAS_SEQ != 0, rest)?;
    let seq = u64::from(seq_from).checked_add(seq_delta).and_then(|s| u32::try_from(s).ok());
    Ok(Position { retired, rep, seq: seq.ok_or(CodecError::Range)? })
}

/// A difference that is there only if it is not 0.
fn take_difference(present: bool, rest: &mut &[u8]) -> Result<u64, CodecError> {
    if !present {
        return Ok(0);
    }
    match varint::take(rest)? {
        0 => Err(CodecError::Varint),
        n => Ok(n),
    }
}

fn take_clock(base: &Base, position: Position, rest: &mut &[u8]) -> Result<Input, CodecError> {
    let time_ns = varint::unzigzag(base.predict(position.retired), varint::take(rest)?);
    let rate = varint::unzigzag(base.rate, varint::take(rest)?);
    Ok(Input::Clock { time_ns, rate })
}

fn take_console(base: &Base, rest: &mut &[u8]) -> Result<Input, CodecError> {
    let first = varint::unzigzag(base.console, varint::take(rest)?);
    let len = varint::take(rest)?;
    if len > MAX_CONSOLE_BYTES as u64 {
        return Err(CodecError::TooLong(len));
    }
    let bytes = take_bytes(rest, len as usize)?.to_vec();
    Ok(Input::Console { first, bytes })
}

fn take_epoch_end(base: &Base, position: Position, rest: &mut &[u8]) -> Result<Record, CodecError> {
    let skipped = varint::take(rest)?;
    let epoch = base.epoch.checked_add(1).and_then(|e| e.checked_add(skipped));
    let epoch = Epoch(epoch.ok_or(CodecError::Range)?);
    let mut digest = [0; 32];
    digest.copy_from_slice(take_bytes(rest, 32)?);
    Ok(Record::EpochEnd { epoch, position, digest })
}

fn take_bytes<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (bytes, after) = rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
    *rest = after;
    Ok(bytes)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
