//! The log of nondeterministic inputs: format, reader, writer, index, verification.
//!
//! A recording is a directory: a `header` file that says what was recorded and from which start, and
//! numbered segment files of chained, checksummed frames. `docs/log-format.md` has every byte of it.
//! Writer and reader live in this one crate, under one [`FORMAT_VERSION`], so that they cannot drift
//! apart unnoticed; the coding of a record ([`codec`]) is also that of the stream between the sides.
//!
//! ```
//! use ft_pair_replay_log::{Header, Image, Options, Reader, Record, Start, Writer};
//! use ft_pair_shared::{Input, Position};
//!
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path().join("recording");
//! let header = Header::new(Image { digest: [7; 32], bytes: 4096 }, Start::PowerOn, b"machine".to_vec());
//! let mut writer = Writer::create(&dir, &header, Options::default())?;
//! writer.append(&Record::Input { position: Position::at(10), input: Input::PowerButton })?;
//! writer.append(&Record::End { position: Position::at(20) })?;
//! writer.finish()?;
//!
//! let records = Reader::open(&dir)?.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(records.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chain;
pub mod codec;
mod error;
mod fields;
mod floor;
mod header;
mod index;
mod lock;
mod order;
mod reader;
mod record;
mod resume;
mod segment;
mod segment_reader;
mod segment_writer;
mod stat;
mod tail;
mod varint;
mod verify;
mod writer;

pub use codec::{CodecError, Decoder, Encoder, MAX_CONSOLE_BYTES};
pub use error::{Fault, HeaderFault, Place, ReadError, WriteError};
pub use floor::{Removed, remove_before};
pub use header::{FORMAT_VERSION, Header, Image, LogId, Start};
pub use index::{Index, IndexEntry, IndexError};
pub use order::OrderError;
pub use reader::Reader;
pub use record::Record;
pub use resume::{ResumeError, Stand};
pub use stat::{ClassStat, Rates, Stat, stat};
pub use verify::{IndexState, Report, Verdict, verify};
pub use writer::{Options, Writer};
