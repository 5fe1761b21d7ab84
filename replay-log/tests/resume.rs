//! Recordings that another process goes on with: cut where it stands, whatever lies behind.

mod common;

use common::{header, read, records, segment, with_end};
use ft_pair_replay_log::*;
use ft_pair_shared::{Epoch, Input, Position};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

/// Records with flushes of the TLB after every third epoch.
fn life(epochs: u64, salt: u64) -> Vec<Record> {
    let mut out = Vec::new();
    for record in records(epochs, salt) {
        let flush = match record {
            Record::EpochEnd { epoch, position, .. } if epoch.0 % 3 == 0 => Some(position),
            _ => None,
        };
        out.push(record);
        out.extend(flush.map(|position| Record::TlbFlush { position }));
    }
    out
}

/// A machine that has executed `records` and nothing since.
fn stand(records: &[Record]) -> Stand {
    let mut stand = Stand { position: Position::ZERO, epoch: Epoch(0), last_input: None };
    for record in records {
        stand.position = record.position();
        match record {
            Record::Input { position, .. } => {
                stand.last_input = Some(*position);
                stand.position = position.after_input();
            }
            Record::EpochEnd { epoch, .. } => stand.epoch = *epoch,
            _ => {}
        }
    }
    stand
}

/// What the new writer writes: other inputs than those that are cut off.
fn continuation(from: &Stand) -> Vec<Record> {
    let mut out = Vec::new();
    for i in 1..=4 {
        let position = Position::at(from.position.retired + i * 70_000);
        out.push(Record::Input { position, input: Input::Clock { time_ns: 1 << 50, rate: 5 } });
        let position = position.after_input();
        out.push(Record::EpochEnd { epoch: Epoch(from.epoch.0 + i), position, digest: [0xcc; 32] });
    }
    with_end(out)
}

fn write_all(dir: &Path, records: &[Record], flush: usize, rotate: usize) {
    let mut writer = Writer::create(dir, &header(), Options::default()).unwrap();
    append(&mut writer, records, flush, rotate);
}

fn append(writer: &mut Writer, records: &[Record], flush: usize, rotate: usize) {
    for (i, record) in records.iter().enumerate() {
        writer.append(record).unwrap();
        if (i + 1) % rotate == 0 {
            writer.rotate().unwrap();
        } else if (i + 1) % flush == 0 {
            writer.flush().unwrap();
        }
    }
}

fn resume(dir: &Path, stand: &Stand) -> Result<Writer, ResumeError> {
    Writer::resume(dir, stand, Options::default(), NOW)
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

fn assert_good(dir: &Path, wanted: &[Record], what: &str) {
    let (found, error) = read(dir);
    assert!(error.is_none(), "{what}: {error:?}");
    let same = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    assert!(
        found == wanted,
        "{what}: {} records, the first {same} of {} are right",
        found.len(),
        wanted.len()
    );
    let report = verify(dir).unwrap();
    assert!(report.is_good(), "{what}: {report:?}");
    assert_eq!(report.index, IndexState::Complete, "{what}");
}

#[test]
fn a_recording_goes_on_from_every_place_in_it() {
    let whole = with_end(life(9, 1));
    for (flush, rotate) in [(1, 1000), (4, 1000), (1, 1), (2, 5), (1000, 1000)] {
        for kept in 0..whole.len() {
            if matches!(whole[kept], Record::TlbFlush { .. }) {
                // It belongs to the epoch's end before, at the same position.
                continue;
            }
            let what = format!("flush {flush}, rotate {rotate}, {kept} records kept");
            let tmp = tempfile::tempdir().unwrap();
            write_all(tmp.path(), &whole, flush, rotate);
            let stand = stand(&whole[..kept]);
            let more = continuation(&stand);
            let mut writer = resume(tmp.path(), &stand).unwrap();
            let last = whole[..kept].last().map(Record::position);
            assert_eq!(writer.last(), last, "{what}");
            append(&mut writer, &more, flush, rotate);
            writer.finish().unwrap();
            assert_good(tmp.path(), &[&whole[..kept], &more[..]].concat(), &what);
        }
    }
}

#[test]
fn what_is_kept_is_readable_at_once() {
    let whole = with_end(life(6, 1));
    let tmp = tempfile::tempdir().unwrap();
    write_all(tmp.path(), &whole, 1000, 1000);
    let writer = resume(tmp.path(), &stand(&whole[..7])).unwrap();
    let (found, error) = read(tmp.path());
    assert_eq!(found, whole[..7]);
    assert!(matches!(error, Some(ReadError::Unfinished { torn: 0, .. })), "{error:?}");
    drop(writer);
}

/// A kill in the middle of a write leaves any number of a frame's bytes, or of a segment's header.
#[test]
fn a_torn_tail_is_cut_off() {
    let whole = life(5, 1);
    for rotate in [1000, 4] {
        let tmp = tempfile::tempdir().unwrap();
        write_all(tmp.path(), &whole, 1, rotate);
        let files = contents(tmp.path());
        let last = files.keys().rfind(|name| name.starts_with("segment")).unwrap();
        for len in 0..files[last].len() {
            let what = format!("rotate {rotate}, {len} bytes of {last}");
            let tmp = tempfile::tempdir().unwrap();
            for (name, bytes) in &files {
                let len = if name == last { len } else { bytes.len() };
                fs::write(tmp.path().join(name), &bytes[..len]).unwrap();
            }
            let (there, _) = read(tmp.path());
            let stand = stand(&there);
            let more = continuation(&stand);
            let mut writer = if len % 2 == 0 {
                resume(tmp.path(), &stand).unwrap()
            } else {
                Writer::reopen(tmp.path(), Options::default(), NOW).unwrap()
            };
            append(&mut writer, &more, 1, 1000);
            writer.finish().unwrap();
            assert_good(tmp.path(), &[there, more].concat(), &what);
        }
    }
}

#[test]
fn three_processes_after_each_other_write_one_recording() {
    let tmp = tempfile::tempdir().unwrap();
    write_all(tmp.path(), &life(6, 1), 1, 7);
    let mut kept = life(6, 1)[..11].to_vec();
    for _ in 0..2 {
        let stand = stand(&kept);
        let more = continuation(&stand);
        let mut writer = resume(tmp.path(), &stand).unwrap();
        append(&mut writer, &more, 1, 3);
        drop(writer);
        kept.extend_from_slice(&more[..4]);
    }
    let last = resume(tmp.path(), &stand(&kept)).unwrap();
    drop(last);
    let mut writer = Writer::reopen(tmp.path(), Options::default(), NOW).unwrap();
    let position = writer.last().unwrap();
    assert_eq!(position, kept.last().unwrap().position());
    writer.append(&Record::End { position }).unwrap();
    writer.finish().unwrap();
    kept.push(Record::End { position });
    assert_good(tmp.path(), &kept, "three writers");
}

#[test]
fn a_recording_is_not_gone_on_with_over_a_gap() {
    let whole = life(6, 1);
    let input = whole.iter().rposition(|r| matches!(r, Record::Input { .. })).unwrap();
    let tmp = tempfile::tempdir().unwrap();
    write_all(tmp.path(), &whole[..input], 1, 7);
    let before = contents(tmp.path());
    let ahead = stand(&whole);
    for (what, stand) in [
        ("an epoch is missing", ahead),
        ("an input is missing", stand(&whole[..=input])),
        ("the epoch is not the last one", Stand { epoch: Epoch(7), ..ahead }),
    ] {
        let error = resume(tmp.path(), &stand).unwrap_err();
        assert!(matches!(error, ResumeError::Gap { .. }), "{what}: {error}");
        assert_eq!(contents(tmp.path()), before, "{what}: nothing is changed");
    }
    // The same epoch without the input: nothing is missing.
    drop(resume(tmp.path(), &stand(&whole[..input])).unwrap());
}

#[test]
fn a_damaged_recording_is_refused_and_left_alone() {
    let whole = life(6, 1);
    let tmp = tempfile::tempdir().unwrap();
    write_all(tmp.path(), &whole, 1, 1000);
    common::flip(&segment(tmp.path(), 0), 150, 4);
    let before = contents(tmp.path());
    let error = resume(tmp.path(), &stand(&whole)).unwrap_err();
    assert!(matches!(error, ResumeError::Read(ReadError::Refused { .. })), "{error}");
    assert_eq!(contents(tmp.path()), before);
}

#[test]
fn one_writer_at_a_time() {
    let tmp = tempfile::tempdir().unwrap();
    let mut first = Writer::create(tmp.path(), &header(), Options::default()).unwrap();
    first.append(&records(1, 1)[0]).unwrap();
    first.flush().unwrap();
    let whole = read(tmp.path()).0;
    let error = resume(tmp.path(), &stand(&whole)).unwrap_err();
    assert!(matches!(error, ResumeError::Write(WriteError::Busy { .. })), "{error}");
    assert_eq!(read(tmp.path()).0, whole, "readers need no lock");
    let path = tmp.path().to_owned();
    let waiting = std::thread::spawn(move || {
        Writer::reopen(&path, Options::default(), Duration::from_secs(60)).map(drop)
    });
    drop(first);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_damaged_index_is_made_anew() {
    let whole = life(9, 1);
    let tmp = tempfile::tempdir().unwrap();
    write_all(tmp.path(), &whole, 1, 4);
    fs::write(tmp.path().join("index"), b"torn").unwrap();
    let stand = stand(&whole[..18]);
    let mut writer = resume(tmp.path(), &stand).unwrap();
    let more = continuation(&stand);
    append(&mut writer, &more, 2, 3);
    writer.finish().unwrap();
    assert_good(tmp.path(), &[&whole[..18], &more[..]].concat(), "index");
}
