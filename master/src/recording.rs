//! Keeps what the vCPU thread tells of the execution in a recording, ahead of everybody who hears of it next.
//!
//! So a Slave never has what the recording lacks, and the side that goes live can cut the recording where it
//! stands and go on with it. What was written survives the kill of this process.

use crate::live::Report;
use ft_pair_replay_log::{Options, Record, ResumeError, Stand, WriteError, Writer};
use ft_pair_shared::Position;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the former writer, which has lost its generation or its life, has for its end.
const FORMER_WRITER: Duration = Duration::from_secs(10);

/// Why a recording ends before its guest does. What is there stays readable.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be gone on with.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A bug, which was printed.
    #[error("the thread that takes the recording over panicked")]
    Panicked,
}

type Resuming = JoinHandle<Result<Writer, ResumeError>>;

enum State {
    /// It is being taken over, which may take longer than a guest should wait. Until a Slave gets the
    /// machine's state nothing depends on it: without a Slave the guest is lost with this process.
    Resuming(Resuming, Vec<Record>),
    Open(Writer),
    Ended,
}

/// Writes a recording.
pub struct Recording {
    state: State,
    /// Records reach the operating system at least this often; at once, if it is zero.
    every: Duration,
    flushed: Instant,
}

impl Recording {
    /// Writes with `writer`, and hands records to the operating system every so often.
    pub fn new(writer: Writer, every: Duration) -> Self {
        Self { state: State::Open(writer), every, flushed: Instant::now() }
    }

    /// Goes on with the recording in `dir` from where a machine stands; takes it over in the background.
    pub fn resume(dir: &Path, stand: Stand) -> Self {
        let dir = dir.to_owned();
        let resume = move || Writer::resume(&dir, &stand, Options::default(), FORMER_WRITER);
        let state = State::Resuming(std::thread::spawn(resume), Vec::new());
        Self { state, every: Duration::ZERO, flushed: Instant::now() }
    }

    /// Writes what a report says of the execution, before it goes anywhere else.
    ///
    /// # Errors
    /// When the recording cannot be written, or gone on with. It has ended then.
    pub fn note(&mut self, report: &Report) -> Result<(), RecordingError> {
        let noted = self.note_inner(report);
        if noted.is_err() {
            self.state = State::Ended;
        }
        noted
    }

    fn note_inner(&mut self, report: &Report) -> Result<(), RecordingError> {
        match report {
            Report::Log { records, .. } => {
                for record in records {
                    self.append(record.clone())?;
                }
            }
            Report::Epoch { epoch, position, digest, .. } => {
                let (epoch, position, digest) = (*epoch, *position, digest.0);
                self.append(Record::EpochEnd { epoch, position, digest })?;
            }
            // From here on a Slave may have what the recording has to have. It is written with the next
            // report, which comes before the state leaves.
            Report::TlbFlushed { position } => {
                self.open()?;
                return self.append(Record::TlbFlush { position: *position });
            }
            _ => {}
        }
        self.flush()
    }

    /// The recording ends here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, position: Position) -> Result<(), RecordingError> {
        self.open()?;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(mut writer) => {
                writer.append(&Record::End { position })?;
                Ok(writer.finish()?)
            }
            State::Resuming(..) | State::Ended => Ok(()),
        }
    }

    fn append(&mut self, record: Record) -> Result<(), RecordingError> {
        match &mut self.state {
            State::Open(writer) => writer.append(&record)?,
            State::Resuming(_, waiting) => waiting.push(record),
            State::Ended => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RecordingError> {
        if let State::Resuming(thread, _) = &self.state
            && thread.is_finished()
        {
            self.open()?;
        }
        if let State::Open(writer) = &mut self.state
            && self.flushed.elapsed() >= self.every
        {
            writer.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Waits until the recording is taken over.
    fn open(&mut self) -> Result<(), RecordingError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Resuming(thread, waiting) => {
                let mut writer = thread.join().map_err(|_| RecordingError::Panicked)??;
                for record in &waiting {
                    writer.append(record)?;
                }
                self.state = State::Open(writer);
            }
            state => self.state = state,
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The guest ended at once: its last records still go in. Nobody is left to tell of an error.
        let _ = self.open();
    }
}
