//! Recordings as they are meant to be: written, read, sought in, counted, shortened.

mod common;

use common::{header, log, read, records, segment, with_end, write};
use ft_pair_replay_log::*;
use ft_pair_shared::{Epoch, Input, Position};
use std::fs;

#[test]
fn what_was_written_is_read() {
    for (flush, rotate) in [(1, 1), (1, 7), (3, 1000), (1000, 1000)] {
        let log = log(30, 1, flush, rotate);
        let (records, error) = read(&log.dir);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(records, log.records);
        let report = verify(&log.dir).unwrap();
        assert!(report.is_good());
        assert_eq!(report.index, IndexState::Complete);
    }
}

#[test]
fn segments_rotate_by_size() {
    let tmp = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1000, frame_bytes: 300 };
    let all = with_end(records(200, 3));
    let mut writer = Writer::create(tmp.path(), &header(), options).unwrap();
    all.iter().for_each(|r| writer.append(r).unwrap());
    writer.finish().unwrap();
    assert!(stat(tmp.path()).unwrap().segments > 5);
    assert_eq!(read(tmp.path()).0, all);
}

#[test]
fn the_head_of_a_killed_recording_is_read() {
    let tmp = tempfile::tempdir().unwrap();
    let all = records(20, 1);
    let mut writer = Writer::create(tmp.path(), &header(), Options::default()).unwrap();
    all.iter().for_each(|r| writer.append(r).unwrap());
    writer.flush().unwrap();
    let lost = Record::Input { position: Position::at(1 << 40), input: Input::PowerButton };
    writer.append(&lost).unwrap();
    std::mem::forget(writer);
    let (records, error) = read(tmp.path());
    assert_eq!(records, all);
    let Some(ReadError::Unfinished { place, torn: 0 }) = error else { panic!("{error:?}") };
    assert_eq!(place.last_good, Some(all.last().unwrap().position()));
    let report = verify(tmp.path()).unwrap();
    assert_eq!(report.verdict, Verdict::Unfinished { place, torn: 0 });
    assert_eq!(report.index, IndexState::Behind);
    assert!(!stat(tmp.path()).unwrap().finished);
    Index::rebuild(tmp.path()).unwrap();
    assert_eq!(verify(tmp.path()).unwrap().index, IndexState::Complete);
}

#[test]
fn a_recording_is_not_overwritten() {
    let log = log(2, 1, 10, 10);
    let again = Writer::create(&log.dir, &header(), Options::default());
    assert!(matches!(again, Err(WriteError::Exists { .. })));
    assert_eq!(read(&log.dir).0, log.records);
}

#[test]
fn every_position_and_epoch_is_found_with_any_index() {
    let log = log(12, 1, 2, 5);
    let good = fs::read(log.dir.join("index")).unwrap();
    let other = common::log(12, 9, 3, 4);
    let foreign = fs::read(other.dir.join("index")).unwrap();
    // The other log's frames under this log's id: every checksum is right, every entry wrong.
    let lying = [&good[..32], &foreign[32..]].concat();
    for index in [Some(good), Some(foreign), Some(lying), Some(vec![1; 50]), None] {
        match index {
            Some(bytes) => fs::write(log.dir.join("index"), bytes).unwrap(),
            None => fs::remove_file(log.dir.join("index")).unwrap(),
        }
        check_seeks(&log.dir, &log.records);
    }
}

fn check_seeks(dir: &std::path::Path, records: &[Record]) {
    let mut reader = Reader::open(dir).unwrap();
    for (i, record) in records.iter().enumerate() {
        let position = record.position();
        for target in [position, Position { seq: position.seq + 1, ..position }] {
            reader.seek(target).unwrap();
            let rest = reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
            let before = records.iter().take_while(|r| r.position() < target).count();
            assert_eq!(rest, records[before..], "at {target}");
        }
        if let Record::EpochEnd { epoch, digest, .. } = *record {
            assert_eq!(reader.seek_epoch(epoch).unwrap(), (position, digest));
            let rest = reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
            assert_eq!(rest, records[i + 1..]);
        }
    }
    let none = reader.seek_epoch(Epoch(1000));
    assert!(matches!(none, Err(ReadError::NoSuchEpoch { epoch: 1000 })));
}

#[test]
fn equal_positions_on_both_sides_of_a_rotation_are_both_found() {
    let tmp = tempfile::tempdir().unwrap();
    let position = Position::at(50);
    let all = [
        Record::EpochEnd { epoch: Epoch(1), position, digest: [1; 32] },
        Record::Input { position, input: Input::PowerButton },
        Record::End { position: position.after_input() },
    ];
    write(tmp.path(), &header(), &all, 1, 1);
    check_seeks(tmp.path(), &all);
    let mut reader = Reader::open(tmp.path()).unwrap();
    reader.seek(position).unwrap();
    assert_eq!(reader.count(), 3);
    assert_eq!(remove_before(tmp.path(), position).unwrap().segments, 0);
}

#[test]
fn a_seek_past_an_unfinished_log_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    write(tmp.path(), &header(), &records(5, 1), 2, 4);
    let mut reader = Reader::open(tmp.path()).unwrap();
    reader.seek(Position::at(u64::MAX)).unwrap();
    assert!(matches!(reader.next(), Some(Err(ReadError::Unfinished { .. }))));
    assert!(reader.next().is_none());
}

#[test]
fn old_segments_go_and_the_rest_stays_good() {
    let log = log(12, 1, 2, 5);
    let cut = log.records[17].position();
    let removed = remove_before(&log.dir, cut).unwrap();
    assert_eq!(removed.segments, 3);
    assert!(removed.bytes > 0 && !segment(&log.dir, 2).exists());
    let (records, error) = read(&log.dir);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, log.records[15..]);
    let report = verify(&log.dir).unwrap();
    assert!(report.is_good());
    assert_eq!(report.index, IndexState::Complete);
    let mut reader = Reader::open(&log.dir).unwrap();
    let last = log.records[14].position();
    assert_eq!(reader.removed(), Some(last));
    assert!(matches!(reader.seek(last), Err(ReadError::Removed { .. })));
    assert!(matches!(reader.seek_epoch(Epoch(1)), Err(ReadError::Removed { .. })));
    check_seeks(&log.dir, &log.records[15..]);
    assert_eq!(remove_before(&log.dir, cut).unwrap(), Removed::default());
    // A kill between the note and the removal leaves old files; they neither disturb nor stay.
    fs::copy(log.segment(3), log.segment(1)).unwrap();
    assert_eq!(read(&log.dir).0, log.records[15..]);
    assert_eq!(remove_before(&log.dir, cut).unwrap().segments, 1);
    // Loss is not mistaken for removal.
    fs::remove_file(log.segment(3)).unwrap();
    let Some(ReadError::Refused { place, fault }) = read(&log.dir).1 else { panic!() };
    assert_eq!((place.segment, fault), (3, Fault::SegmentMissing));
}

#[test]
fn segments_go_while_the_writer_runs() {
    let tmp = tempfile::tempdir().unwrap();
    let all = with_end(records(40, 1));
    let mut writer = Writer::create(tmp.path(), &header(), Options::default()).unwrap();
    for record in &all {
        writer.append(record).unwrap();
        if matches!(record, Record::EpochEnd { .. }) {
            writer.rotate().unwrap();
            remove_before(tmp.path(), record.position()).unwrap();
        }
    }
    writer.finish().unwrap();
    let (records, error) = read(tmp.path());
    assert!(error.is_none(), "{error:?}");
    assert!(records.len() < 6 && all.ends_with(&records));
}

#[test]
fn every_byte_is_counted_once() {
    let log = log(30, 1, 10, 50);
    let stat = stat(&log.dir).unwrap();
    let files: u64 = (0..stat.segments).map(|n| fs::metadata(log.segment(n)).unwrap().len()).sum();
    let header = fs::metadata(log.dir.join("header")).unwrap().len();
    assert_eq!(stat.file_bytes, files + header);
    assert_eq!(stat.file_bytes, stat.header_bytes + stat.framing_bytes + stat.stored_bytes);
    assert_eq!(stat.inputs.bytes, stat.clock.bytes + stat.console.bytes + stat.power.bytes);
    assert_eq!(stat.records.bytes, stat.inputs.bytes + stat.epochs.bytes + stat.end.bytes);
    assert_eq!(stat.records.count, log.records.len() as u64);
    assert!(stat.stored_bytes < stat.records.bytes, "this log compresses");
    assert_eq!((stat.clock.count, stat.epochs.count, stat.power.count), (30, 30, 7));
    assert_eq!(stat.instructions, log.records.last().unwrap().position().retired);
    assert!(stat.guest_ns.unwrap().abs_diff(299_000_000) < 1_000_000, "{:?}", stat.guest_ns);
    let per_second = stat.file_rates.bytes_per_guest_second.unwrap();
    assert!((per_second - stat.file_bytes as f64 / 0.299).abs() < per_second / 100.0);
    let report = verify(&log.dir).unwrap();
    // Through text the rates may lose their last bit, all else is the same.
    let mut back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    back.stat.input_rates = report.stat.input_rates;
    back.stat.digest_rates = report.stat.digest_rates;
    back.stat.file_rates = report.stat.file_rates;
    assert_eq!(back, report);
}

#[test]
#[should_panic(expected = "positions only grow")]
fn a_position_before_the_last_is_a_bug_of_the_caller() {
    let tmp = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(tmp.path(), &header(), Options::default()).unwrap();
    for at in [10, 9] {
        let input = Input::PowerButton;
        writer.append(&Record::Input { position: Position::at(at), input }).unwrap();
        writer.rotate().unwrap();
    }
}
