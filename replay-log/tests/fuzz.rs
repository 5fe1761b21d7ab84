//! Random damage, seeded: no panic, and never a record that was not written there.

mod common;

use common::{log, overwrite, read};
use ft_pair_replay_log::{Decoder, Encoder, ReadError, Reader, Record, verify};
use ft_pair_shared::Position;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;

const ROUNDS: u32 = 20_000;

/// Damages `bytes` in one to three of many ways.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, donors: &[Vec<u8>]) {
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..=bytes.len());
        let len = rng.random_range(0..=(bytes.len() - at).min(64));
        match rng.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let copy = bytes[at..at + len].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => bytes[at..at + len].fill(*[0, 0xff].choose(rng).unwrap()),
            6 => rng.fill_bytes(&mut bytes[at..at + len]),
            _ => {
                let donor = donors.choose(rng).unwrap();
                let from = rng.random_range(0..donor.len());
                let end = rng.random_range(from..=donor.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&donor[from..end]);
            }
        }
    }
}

#[test]
fn a_mutated_log_gives_its_head_or_nothing() {
    let (log, other) = (log(12, 1, 3, 9), common::log(12, 2, 3, 9));
    let names = ["header", "segment-000000.ftlog", "segment-000001.ftlog", "segment-000003.ftlog"];
    let files = |dir: &Path| names.map(|n| fs::read(dir.join(n)).unwrap());
    let good = files(&log.dir);
    let donors = [&good[..], &files(&other.dir)[..]].concat();
    let mut rng = ChaCha8Rng::seed_from_u64(0x0f75_2026);
    for round in 0..ROUNDS {
        let which = rng.random_range(0..names.len());
        let mut bad = good[which].clone();
        mutate(&mut rng, &mut bad, &donors);
        let path = log.dir.join(names[which]);
        overwrite(&path, &bad);
        check(&log.dir, &log.records, bad == good[which], round);
        overwrite(&path, &good[which]);
    }
    assert!(verify(&log.dir).unwrap().is_good());
}

fn check(dir: &Path, all: &[Record], same: bool, round: u32) {
    let (records, error) = read(dir);
    assert!(all.starts_with(&records), "round {round}: a record that was never written there");
    assert_eq!(error.is_none(), same, "round {round}: {error:?}");
    if let Some(place) = error.as_ref().and_then(ReadError::place) {
        assert_eq!(place.last_good, records.last().map(Record::position), "round {round}");
    }
    let target = all[round as usize % all.len()].position();
    check_seek(dir, all, target, round);
}

/// From a seek on, too, only what was written there is read.
fn check_seek(dir: &Path, all: &[Record], target: Position, round: u32) {
    let Ok(mut reader) = Reader::open(dir) else { return };
    if reader.seek(target).is_err() {
        return;
    }
    let records: Vec<_> = reader.map_while(Result::ok).collect();
    let expected: Vec<_> = all.iter().filter(|r| r.position() >= target).cloned().collect();
    assert!(expected.starts_with(&records), "round {round}: seek to {target}");
}

#[test]
fn a_mutated_index_changes_nothing() {
    let (log, other) = (log(12, 1, 3, 9), common::log(12, 2, 2, 7));
    let path = log.dir.join("index");
    let good = fs::read(&path).unwrap();
    let donors = [good.clone(), fs::read(other.dir.join("index")).unwrap()];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for round in 0..ROUNDS / 10 {
        let mut bad = good.clone();
        mutate(&mut rng, &mut bad, &donors);
        overwrite(&path, &bad);
        let target = log.records[round as usize % log.records.len()].position();
        let mut reader = Reader::open(&log.dir).unwrap();
        reader.seek(target).unwrap();
        let first = reader.next().unwrap().unwrap();
        assert_eq!(first.position(), target, "round {round}");
        verify(&log.dir).unwrap();
    }
}

#[test]
fn random_bytes_never_decode_to_what_they_are_not() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let donors = [log(3, 1, 100, 100).records]
        .map(|records| {
            let (mut encoder, mut out) = (Encoder::new(), Vec::new());
            records.iter().for_each(|r| encoder.encode(r, &mut out));
            out
        })
        .to_vec();
    for round in 0..2 * ROUNDS {
        let mut bytes = donors[0].clone();
        mutate(&mut rng, &mut bytes, &donors);
        let (mut decoder, mut encoder) = (Decoder::new(), Encoder::new());
        let (mut rest, mut again) = (&bytes[..], Vec::new());
        while let Ok(record) = decoder.decode(&mut rest) {
            encoder.encode(&record, &mut again);
        }
        assert_eq!(again, bytes[..bytes.len() - rest.len()], "round {round}");
    }
}
