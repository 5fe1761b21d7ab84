//! Damaged and mixed-up recordings: each is refused at the right place, with its head intact.

mod common;

use common::{Log, flip, header, log, overwrite, read, records, with_end, write};
use ft_pair_replay_log::*;
use std::fs;
use std::path::Path;

/// The log reads as far as `good` records, and is then bad at (`segment`, `offset`).
fn assert_bad(dir: &Path, all: &[Record], good: usize, at: (u64, u64), what: &str) -> ReadError {
    let (records, error) = read(dir);
    assert_eq!(records.len(), good, "{what}: {error:?}");
    assert_eq!(records, all[..good], "{what}");
    let error = error.unwrap_or_else(|| panic!("{what}: was read to its end"));
    let place = error.place().unwrap_or_else(|| panic!("{what}: {error}"));
    assert_eq!((place.segment, place.offset), at, "{what}: {error}");
    assert_eq!(place.last_good, good.checked_sub(1).map(|i| all[i].position()), "{what}");
    error
}

/// The frame that byte `at` of a segment lies in: where it starts, and the records before it.
fn frame_of(log: &Log, segment: u64, at: u64) -> (u64, usize) {
    let len = fs::metadata(log.segment(segment)).unwrap().len();
    let seal = len - 93;
    let in_segment = log.frames().into_iter().filter(|f| f.0 == segment);
    let first = in_segment.clone().next().unwrap().2;
    let next = log.frames().into_iter().find(|f| f.0 > segment);
    let all = next.map_or(log.records.len(), |f| f.2);
    let mut starts = in_segment.map(|f| (f.1, f.2)).chain([(seal, all)]);
    starts.rfind(|&(start, _)| start <= at).unwrap_or((0, first))
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let log = log(8, 1, 5, 13);
    for segment in 0..2 {
        let path = log.segment(segment);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let (start, before) = frame_of(&log, segment, at as u64);
            for mask in [1, 0x80, 0xff] {
                flip(&path, at, mask);
                let what = format!("segment {segment}, byte {at} ^ {mask:#x}");
                let error = assert_bad(&log.dir, &log.records, before, (segment, start), &what);
                assert!(matches!(error, ReadError::Refused { .. }), "{what}: {error}");
                overwrite(&path, &good);
            }
        }
    }
}

#[test]
fn every_cut_of_the_last_segment_is_told_as_what_it_is() {
    let log = log(8, 1, 5, 13);
    let last = 2 - u64::from(!log.segment(2).exists());
    let path = log.segment(last);
    let good = fs::read(&path).unwrap();
    for len in 0..good.len() {
        overwrite(&path, &good[..len]);
        let (start, before) = frame_of_good(&log, last, len as u64, good.len() as u64);
        let what = format!("cut to {len}");
        let error = assert_bad(&log.dir, &log.records, before, (last, start), &what);
        match error {
            // The End record is there, its seal is not.
            ReadError::Refused { fault: Fault::NotSealed, .. } => {
                assert_eq!(before, log.records.len());
            }
            ReadError::Unfinished { torn, .. } => assert_eq!(torn, len as u64 - start, "{what}"),
            e => panic!("{what}: {e}"),
        }
    }
}

/// As [`frame_of`], for a file that was `whole` bytes long.
fn frame_of_good(log: &Log, segment: u64, at: u64, whole: u64) -> (u64, usize) {
    let starts = log.frames().into_iter().filter(|f| f.0 == segment);
    let first = starts.clone().next().unwrap();
    let ends: Vec<_> =
        starts.map(|f| (f.1, f.2)).chain([(whole - 93, log.records.len())]).collect();
    ends.into_iter().rfind(|e| e.0 <= at).unwrap_or((0, first.2))
}

#[test]
fn every_cut_of_an_earlier_segment_is_refused() {
    let log = log(8, 1, 5, 13);
    let path = log.segment(0);
    let good = fs::read(&path).unwrap();
    for len in 0..good.len() {
        overwrite(&path, &good[..len]);
        let (start, before) = {
            let ends = log.frames().into_iter().filter(|f| f.0 == 0).map(|f| (f.1, f.2));
            let mut ends = ends.chain([(good.len() as u64 - 93, 13)]);
            ends.rfind(|e| e.0 <= len as u64).unwrap_or((0, 0))
        };
        let what = format!("cut to {len}");
        let error = assert_bad(&log.dir, &log.records, before, (0, start), &what);
        assert!(matches!(error, ReadError::Refused { fault: Fault::NotSealed, .. }), "{error}");
    }
}

/// The bytes of a one-segment log, cut into its header, frames and seal.
fn pieces(log: &Log) -> Vec<Vec<u8>> {
    let bytes = fs::read(log.segment(0)).unwrap();
    let mut cuts: Vec<_> = log.frames().iter().map(|f| f.1 as usize).collect();
    cuts.insert(0, 0);
    cuts.push(bytes.len() - 93);
    cuts.push(bytes.len());
    cuts.windows(2).map(|w| bytes[w[0]..w[1]].to_vec()).collect()
}

#[test]
fn swapped_dropped_doubled_and_foreign_frames_are_refused() {
    let log = log(12, 1, 4, 1000);
    let other = common::log(12, 2, 4, 1000);
    let (good, foreign) = (pieces(&log), pieces(&other));
    let frames = log.frames();
    let check = |bad: Vec<Vec<u8>>, frame: usize, what: &str| {
        overwrite(&log.segment(0), &bad.concat());
        let at: usize = bad[..frame].iter().map(Vec::len).sum();
        let before = frames.get(frame - 1).map_or(log.records.len(), |f| f.2);
        let error = assert_bad(&log.dir, &log.records, before, (0, at as u64), what);
        assert!(matches!(error, ReadError::Refused { fault: Fault::FrameChain, .. }), "{error}");
    };
    for i in 1..good.len() - 1 {
        for j in i + 1..good.len() - 1 {
            let mut bad = good.clone();
            bad.swap(i, j);
            check(bad, i, &format!("frames {i} and {j} swapped"));
        }
        let mut bad = good.clone();
        bad.remove(i);
        check(bad, i, &format!("frame {i} dropped"));
        let mut bad = good.clone();
        bad.insert(i, good[i].clone());
        check(bad, i + 1, &format!("frame {i} doubled"));
        let mut bad = good.clone();
        bad[i] = foreign[i].clone();
        check(bad, i, &format!("frame {i} foreign"));
    }
    let mut bad = good.clone();
    *bad.last_mut().unwrap() = foreign.last().unwrap().clone();
    check(bad, good.len() - 1, "seal foreign");
}

#[test]
fn bytes_after_the_seal_are_refused() {
    let log = log(4, 1, 4, 1000);
    let mut bytes = fs::read(log.segment(0)).unwrap();
    let seal = bytes.len() as u64 - 93;
    bytes.push(0);
    overwrite(&log.segment(0), &bytes);
    let error = assert_bad(&log.dir, &log.records, log.records.len(), (0, seal), "a byte more");
    assert!(matches!(error, ReadError::Refused { fault: Fault::Trailing, .. }), "{error}");
}

#[test]
fn swapped_missing_and_foreign_segments_are_refused() {
    let expect = |log: &Log, segment: u64, fault: Fault| {
        let before = (segment as usize * 5).min(log.records.len());
        let error = assert_bad(&log.dir, &log.records, before, (segment, 0), &fault.to_string());
        let ReadError::Refused { fault: found, .. } = error else { panic!("{error}") };
        assert_eq!(found, fault);
    };
    let other = common::log(12, 2, 3, 5);
    for segment in 0..4 {
        let log = log(12, 1, 3, 5);
        fs::copy(other.segment(segment), log.segment(segment)).unwrap();
        expect(&log, segment, Fault::Foreign);

        let log = common::log(12, 1, 3, 5);
        fs::rename(log.segment(segment), log.dir.join("aside")).unwrap();
        expect(&log, segment, Fault::SegmentMissing);
        fs::rename(log.segment(5), log.segment(segment)).unwrap();
        fs::rename(log.dir.join("aside"), log.segment(5)).unwrap();
        expect(&log, segment, Fault::Number(5));
    }
}

#[test]
fn a_missing_tail_is_unfinished() {
    let log = log(12, 1, 3, 5);
    let segments = stat(&log.dir).unwrap().segments;
    for n in (0..segments).rev() {
        fs::remove_file(log.segment(n)).unwrap();
        let error = assert_bad(&log.dir, &log.records, n as usize * 5, (n, 0), "tail gone");
        assert!(matches!(error, ReadError::Unfinished { torn: 0, .. }), "{error}");
    }
}

/// The same recording id, other contents: only the chain tells the segments apart.
#[test]
fn a_segment_of_a_twin_recording_does_not_fit() {
    let tmp = tempfile::tempdir().unwrap();
    let (header, a, b) = (header(), tmp.path().join("a"), tmp.path().join("b"));
    let (first, second) = (with_end(records(12, 1)), with_end(records(12, 2)));
    write(&a, &header, &first, 3, 5);
    write(&b, &header, &second, 3, 5);
    fs::copy(common::segment(&b, 2), common::segment(&a, 2)).unwrap();
    let error = assert_bad(&a, &first, 10, (2, 0), "twin");
    assert!(matches!(error, ReadError::Refused { fault: Fault::SegmentChain, .. }), "{error}");
    // Sought directly, it does not fit either.
    let mut reader = Reader::open(&a).unwrap();
    assert!(matches!(reader.seek(first[12].position()), Err(ReadError::Refused { .. })));
}

#[test]
fn a_changed_header_or_floor_is_refused() {
    let log = log(12, 1, 3, 5);
    remove_before(&log.dir, log.records[20].position()).unwrap();
    for name in ["header", "floor"] {
        let path = log.dir.join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            flip(&path, at, 0x10);
            let (records, error) = read(&log.dir);
            assert!(records.is_empty());
            assert!(matches!(error, Some(ReadError::Header { .. })), "{name} {at}: {error:?}");
            overwrite(&path, &good[..at]);
            assert!(matches!(Reader::open(&log.dir), Err(ReadError::Header { .. })), "{name} {at}");
            overwrite(&path, &good);
        }
    }
    // Another recording's header: of the chain's start it is no part of.
    let other = common::log(12, 1, 3, 5);
    let fresh = common::log(12, 1, 3, 5);
    fs::copy(other.dir.join("header"), fresh.dir.join("header")).unwrap();
    assert_bad(&fresh.dir, &fresh.records, 0, (0, 0), "foreign header");
}

#[test]
fn verify_reports_where_and_keeps_the_count_of_the_head() {
    let log = log(12, 1, 3, 5);
    let len = fs::metadata(log.segment(3)).unwrap().len();
    flip(&log.segment(3), len as usize - 1, 1);
    let report = verify(&log.dir).unwrap();
    let Verdict::Refused { place, fault } = &report.verdict else { panic!("{report:?}") };
    assert_eq!((place.segment, place.offset), (3, len - 93));
    assert_eq!(*fault, Fault::FrameBytes.to_string());
    assert_eq!(report.stat.records.count, 20);
    assert!(!report.is_good());
    assert!(matches!(stat(&log.dir), Err(ReadError::Refused { .. })));
}
