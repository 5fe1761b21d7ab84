//! The power-loss model: whatever subset of the unsynced writes a power cut loses, the file is what the
//! guest's disk was after some flush, plus single sectors of what no later flush covered.

use super::file::DiskFile;
use super::overlay::OverlayDisk;
use crate::block_device::{BlockDevice, SECTOR};
use ft_pair_shared::Epoch;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECTORS: u64 = 24;

#[derive(Debug, Clone)]
enum Io {
    Write { sector: usize, data: Vec<u8> },
    Sync { ok: bool },
}

/// A file that keeps a record of all that is done to it, and fails now and then.
#[derive(Clone)]
struct Recorder {
    inner: Arc<Mutex<Recorded>>,
    fail_in: u32,
}

/// Content, record, and the dice for failures.
type Recorded = (Vec<u8>, Vec<Io>, ChaCha8Rng);

impl Recorder {
    fn fails(&self, rng: &mut ChaCha8Rng) -> bool {
        self.fail_in > 0 && rng.random_ratio(1, self.fail_in)
    }
}

impl DiskFile for Recorder {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock().unwrap();
        buf.copy_from_slice(&inner.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (content, record, rng) = &mut *self.inner.lock().unwrap();
        if self.fails(rng) {
            return Err(io::Error::from_raw_os_error(28));
        }
        content[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        for (i, data) in data.chunks(SECTOR).enumerate() {
            record.push(Io::Write { sector: offset as usize / SECTOR + i, data: data.to_vec() });
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (_, record, rng) = &mut *self.inner.lock().unwrap();
        let ok = !self.fails(rng);
        record.push(Io::Sync { ok });
        if ok { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) }
    }
}

/// What the guest did, committed epochs only: value of a sector is the number of its write.
struct Model {
    /// Per segment (between flushes): `(sector, value)`.
    segments: Vec<Vec<(usize, u32)>>,
}

fn sector_bytes(value: u32) -> Vec<u8> {
    value.to_le_bytes().repeat(SECTOR / 4)
}

fn value_of(image: &[u8], sector: usize) -> u32 {
    let bytes = &image[sector * SECTOR..(sector + 1) * SECTOR];
    assert!(bytes.chunks(4).all(|c| c == &bytes[..4]), "sectors are not torn");
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// True if the image is the state after `flushes` flushes with single sectors of the next segment.
fn is_prefix(image: &[u8], model: &Model, flushes: usize) -> bool {
    let mut allowed: Vec<Vec<u32>> = vec![vec![0]; SECTORS as usize];
    for (sector, value) in model.segments[..flushes].iter().flatten() {
        allowed[*sector] = vec![*value];
    }
    for (sector, value) in model.segments.get(flushes).into_iter().flatten() {
        allowed[*sector].push(*value);
    }
    (0..SECTORS as usize).all(|s| allowed[s].contains(&value_of(image, s)))
}

/// The power goes after `upto` operations: writes before the last good sync are there, later ones by lot.
/// A failed sync promises nothing and may have dropped what came before it.
fn image_after_cut(record: &[Io], upto: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut image = vec![0; SECTORS as usize * SECTOR];
    let mut unsynced: Vec<(usize, &[u8], bool)> = Vec::new();
    let put = |image: &mut Vec<u8>, sector: usize, data: &[u8]| {
        image[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(data);
    };
    for op in &record[..upto] {
        match op {
            Io::Write { sector, data } => unsynced.push((*sector, data, false)),
            // The kernel marks the pages clean although they never reached the disk.
            Io::Sync { ok: false } => unsynced.iter_mut().for_each(|w| w.2 |= rng.random_bool(0.5)),
            Io::Sync { ok: true } => {
                for (sector, data, lost) in unsynced.drain(..) {
                    if !lost {
                        put(&mut image, sector, data);
                    }
                }
            }
        }
    }
    for (sector, data, lost) in unsynced {
        if !lost && rng.random_bool(0.5) {
            put(&mut image, sector, data);
        }
    }
    image
}

fn run(seed: u64, fail_in: u32) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let content = vec![0; SECTORS as usize * SECTOR];
    let file = Recorder {
        inner: Arc::new(Mutex::new((content, Vec::new(), ChaCha8Rng::seed_from_u64(seed ^ 1)))),
        fail_in,
    };
    let mut disk =
        OverlayDisk::with_file(Box::new(file.clone()), "recorder".into(), SECTORS, 1 << 20)
            .unwrap();
    let control = disk.control();
    let mut model = Model { segments: vec![Vec::new()] };
    // What a rollback goes back to.
    let mut kept = (model.segments.clone(), vec![0_u32; SECTORS as usize]);
    let mut now = kept.1.clone();
    let mut epoch = Epoch(0);
    let mut next = 1_u32;
    // Durable flushes reported so far, with the length of the record then.
    let mut reports: Vec<(u64, usize)> = Vec::new();
    for _ in 0..rng.random_range(20..80) {
        match rng.random_range(0..10) {
            0..5 => {
                let sector = rng.random_range(0..SECTORS);
                let count = rng.random_range(1..=4.min(SECTORS - sector));
                let mut data = Vec::new();
                for s in sector..sector + count {
                    model.segments.last_mut().unwrap().push((s as usize, next));
                    now[s as usize] = next;
                    data.extend(sector_bytes(next));
                    next += 1;
                }
                disk.write(sector, &data);
            }
            5..7 => {
                assert_eq!(disk.flush(), model.segments.len() as u64);
                model.segments.push(Vec::new());
            }
            7..9 => {
                epoch = epoch.next();
                control.mark_epoch(epoch);
                control.commit(epoch).unwrap();
                kept = (model.segments.clone(), now.clone());
            }
            _ => {
                control.discard_after(epoch).unwrap();
                model.segments = kept.0.clone();
                now = kept.1.clone();
            }
        }
        let mut buf = vec![0; SECTORS as usize * SECTOR];
        disk.read(0, &mut buf).unwrap();
        for (s, value) in now.iter().enumerate() {
            assert_eq!(value_of(&buf, s), *value, "seed {seed}: a read sees the newest write");
        }
        let durable = control.durable_flush();
        reports.push((durable, file.inner.lock().unwrap().1.len()));
    }
    control.discard_after(epoch).unwrap();
    model.segments = kept.0;
    if fail_in == 0 {
        assert_eq!(control.drain(Duration::from_secs(20)), Ok(true), "seed {seed}");
        assert_eq!(control.pending_bytes(), 0);
        let content = file.inner.lock().unwrap().0.clone();
        for (s, value) in kept.1.iter().enumerate() {
            assert_eq!(
                value_of(&content, s),
                *value,
                "seed {seed}: the file has what was committed"
            );
        }
    }
    reports.push((control.durable_flush(), file.inner.lock().unwrap().1.len()));
    drop(disk);
    let record = file.inner.lock().unwrap().1.clone();
    for _ in 0..200 {
        let upto = rng.random_range(0..=record.len());
        let image = image_after_cut(&record, upto, &mut rng);
        let promised =
            reports.iter().filter(|(_, len)| *len <= upto).map(|(n, _)| *n).max().unwrap_or(0);
        let holds = (promised as usize..=model.segments.len())
            .any(|n| n <= model.segments.len() && is_prefix(&image, &model, n));
        assert!(holds, "seed {seed}: cut after {upto} of {} operations", record.len());
    }
}

#[test]
fn every_power_cut_leaves_a_state_that_a_flush_promised() {
    for seed in 0..150 {
        run(seed, 0);
    }
}

#[test]
fn so_it_does_when_writes_and_syncs_fail() {
    for seed in 1000..1040 {
        run(seed, 6);
    }
}
