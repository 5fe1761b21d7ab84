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
    Open(Box<Writer>),
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
        Self { state: State::Open(Box::new(writer)), every, flushed: Instant::now() }
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
                self.state = State::Open(Box::new(writer));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::EpochFigures;
    use ft_pair_replay_log::{Header, Image, ReadError, Reader, Start};
    use ft_pair_shared::protocol::RootDigest;
    use ft_pair_shared::{Epoch, Input};
    use std::path::PathBuf;

    fn at(retired: u64) -> Position {
        Position::at(retired)
    }

    fn log(retired: u64) -> Report {
        let record = Record::Input { position: at(retired), input: Input::PowerButton };
        Report::Log {
            end: at(retired + 1),
            inputs_taken: 0,
            records: vec![record],
            for_slave: false,
        }
    }

    fn epoch(epoch: u64, retired: u64) -> Report {
        Report::Epoch {
            epoch: Epoch(epoch),
            position: at(retired),
            digest: RootDigest([1; 32]),
            outputs: vec![],
            inputs_taken: 0,
            state: None,
            figures: EpochFigures::default(),
        }
    }

    fn begun(tmp: &tempfile::TempDir) -> (PathBuf, Writer) {
        let dir = tmp.path().join("log");
        let header = Header::new(Image { digest: [0; 32], bytes: 0 }, Start::PowerOn, vec![]);
        let writer = Writer::create(&dir, &header, Options::default()).unwrap();
        (dir, writer)
    }

    fn stand(retired: u64, epoch: u64) -> Stand {
        Stand { position: at(retired), epoch: Epoch(epoch), last_input: None }
    }

    /// Positions of all whole records.
    fn positions(dir: &Path) -> Vec<u64> {
        let records = Reader::open(dir).unwrap();
        let good = records.take_while(|record| {
            assert!(!matches!(record, Err(ReadError::Refused { .. })), "{record:?}");
            record.is_ok()
        });
        good.map(|record| record.unwrap().position().retired).collect()
    }

    #[test]
    fn every_report_is_written_before_it_goes_on() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, writer) = begun(&tmp);
        let mut recording = Recording::new(writer, Duration::ZERO);
        recording.note(&log(10)).unwrap();
        assert_eq!(positions(&dir), [10]);
        recording.note(&Report::TlbFlushed { position: at(20) }).unwrap();
        recording.note(&epoch(1, 20)).unwrap();
        assert_eq!(positions(&dir), [10, 20, 20]);
        recording.finish(at(30)).unwrap();
        assert_eq!(positions(&dir), [10, 20, 20, 30]);
    }

    #[test]
    fn a_slaves_state_waits_until_the_recording_is_taken_over() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, writer) = begun(&tmp);
        let mut former = Recording::new(writer, Duration::ZERO);
        former.note(&epoch(1, 20)).unwrap();
        former.note(&log(40)).unwrap();
        let mut recording = Recording::resume(&dir, stand(30, 1));
        recording.note(&log(35)).unwrap();
        recording.note(&epoch(2, 50)).unwrap();
        assert_eq!(positions(&dir), [20, 40], "the guest goes on, the former writer lives");
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(former);
        });
        recording.note(&Report::TlbFlushed { position: at(50) }).unwrap();
        recording.note(&Report::Paused { ticket: 1 }).unwrap();
        assert_eq!(positions(&dir), [20, 35, 50, 50]);
        ends.join().unwrap();
    }

    #[test]
    fn a_guest_that_ends_at_once_is_in_its_recording() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, writer) = begun(&tmp);
        let mut recording = Recording::resume(&dir, stand(0, 0));
        recording.note(&log(5)).unwrap();
        recording.note(&epoch(1, 6)).unwrap();
        drop(writer);
        drop(recording);
        assert_eq!(positions(&dir), [5, 6]);
    }

    #[test]
    fn a_recording_that_cannot_be_written_ends_and_says_so_once() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, writer) = begun(&tmp);
        let mut recording = Recording::new(writer, Duration::ZERO);
        std::fs::remove_dir_all(&dir).unwrap();
        let error = recording.note(&log(5)).unwrap_err();
        assert!(matches!(error, RecordingError::Write(WriteError::Io { .. })), "{error}");
        recording.note(&epoch(1, 6)).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_recording_with_a_gap_is_not_gone_on_with() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, writer) = begun(&tmp);
        drop(writer);
        let mut recording = Recording::resume(&dir, stand(100, 3));
        let error = recording.note(&Report::TlbFlushed { position: at(100) }).unwrap_err();
        assert!(matches!(error, RecordingError::Resume(ResumeError::Gap { .. })), "{error}");
    }
}
