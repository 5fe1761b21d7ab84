//! The power goes while a Debian guest writes its ledger: whatever subset of the unsynced writes is lost,
//! the file system recovers without a complaint, and no line is missing that the world had seen.
//!
//! Kill -9 does not show this, since the host's page cache survives it. So everything that is done to the
//! copy's file is recorded, and images are built as a disk would hold them after a power cut: all that
//! was synced, and of the rest any sectors.

mod guest;

use ft_pair_machine::disk::{DiskControl, DiskFile, OverlayDisk, RealFile};
use ft_pair_machine::{Machine, Stop};
use ft_pair_shared::{Epoch, Position};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECTOR: usize = 512;
/// Instructions in an epoch.
const EPOCH: u64 = 1_000_000;

#[derive(Debug, Clone)]
enum Io {
    Write { offset: u64, data: Arc<[u8]> },
    Sync,
}

/// A file of the host that remembers what is done to it.
struct Recorder {
    file: RealFile,
    record: Arc<Mutex<Vec<Io>>>,
}

impl DiskFile for Recorder {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // In the record first: at a cut in between it may be lost, but never be there unrecorded.
        self.record.lock().unwrap().push(Io::Write { offset, data: data.into() });
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        // Recorded afterwards: it promises nothing before it returns. The host's own sync is left out.
        self.record.lock().unwrap().push(Io::Sync);
        Ok(())
    }
}

/// A guest that writes its ledger on a recorded disk, and the world that sees its console.
struct World {
    machine: Machine,
    disk: DiskControl,
    record: Arc<Mutex<Vec<Io>>>,
    epoch: Epoch,
    /// Output that waits for its epoch's commit, and for the flushes before its end to be durable.
    held: VecDeque<(Epoch, u64, Vec<u8>)>,
    console: String,
    /// How much of it was looked at for ledger lines.
    looked_at: usize,
    /// Ledger lines out, with the length of the record when they came out.
    seen: Vec<(u64, usize)>,
}

impl World {
    fn begin(append: &str, image: &Path) -> Self {
        let record = Arc::new(Mutex::new(Vec::new()));
        let file = RealFile::open(image).unwrap();
        let sectors = file.len() / SECTOR as u64;
        let recorder = Box::new(Recorder { file, record: Arc::clone(&record) });
        let disk = OverlayDisk::with_file(recorder, "recorded".into(), sectors, 1 << 30).unwrap();
        let control = disk.control();
        let machine = guest::machine(image, append, disk);
        Self {
            machine,
            disk: control,
            record,
            epoch: Epoch(0),
            held: VecDeque::new(),
            console: String::new(),
            looked_at: 0,
            seen: Vec::new(),
        }
    }

    /// Executes an epoch; commits those that are `lag` behind it.
    fn epoch(&mut self, lag: u64) {
        let end = Position::at(self.machine.position().retired + EPOCH);
        while self.machine.position() < end {
            match self.machine.run(end) {
                Stop::Limit => {}
                Stop::Idle { deadline: Some(_) } => self.machine.idle_to_deadline(),
                other => panic!("{other:?}:\n{}", self.console),
            }
        }
        self.epoch = self.epoch.next();
        self.disk.mark_epoch(self.epoch);
        let bytes = self.machine.take_outputs().into_iter().flat_map(|output| output.bytes);
        self.held.push_back((self.epoch, self.disk.flushes(), bytes.collect()));
        if let Some(epoch) = self.epoch.0.checked_sub(lag).filter(|epoch| *epoch > 0) {
            self.disk.commit(Epoch(epoch)).unwrap();
        }
        self.release();
    }

    fn release(&mut self) {
        let (committed, durable) = (self.disk.committed(), self.disk.durable_flush());
        while let Some((epoch, flushes, _)) = self.held.front() {
            if *epoch > committed || *flushes > durable {
                break;
            }
            let (_, _, bytes) = self.held.pop_front().unwrap();
            self.console.push_str(&String::from_utf8_lossy(&bytes));
        }
        let at = self.record.lock().unwrap().len();
        let Some(end) = self.console[self.looked_at..].rfind('\n') else { return };
        let whole = &self.console[self.looked_at..self.looked_at + end];
        self.seen.extend(whole.lines().filter_map(ledger_line).map(|number| (number, at)));
        self.looked_at += end + 1;
    }
}

fn ledger_line(line: &str) -> Option<u64> {
    line.trim_end().strip_prefix("ledger ")?.split(' ').next()?.parse().ok()
}

/// The file after a power cut: `record` is what was done to it, synced writes are there, others by lot.
fn cut(record: &[Io], image: &File, rng: &mut ChaCha8Rng) {
    let synced = record.iter().rposition(|io| matches!(io, Io::Sync)).unwrap_or(0);
    for (i, io) in record.iter().enumerate() {
        let Io::Write { offset, data } = io else { continue };
        if i < synced {
            image.write_all_at(data, *offset).unwrap();
            continue;
        }
        let mut sectors: Vec<usize> = (0..data.len().div_ceil(SECTOR)).collect();
        sectors.retain(|_| rng.random_bool(0.5));
        // The order in which a disk writes is its own matter.
        sectors.shuffle(rng);
        for sector in sectors {
            let bytes = &data[sector * SECTOR..data.len().min((sector + 1) * SECTOR)];
            image.write_all_at(bytes, offset + (sector * SECTOR) as u64).unwrap();
        }
    }
}

fn tool(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("e2fsprogs is installed (`make deps`)");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Recovers the file system as a boot would, and reads the ledger; an error is what went wrong.
fn recover(image: &Path) -> Result<Vec<u64>, String> {
    // Preening recovers the journal and repairs only what a crash may leave; anything else is an error.
    let (code, said) = tool(Command::new("/sbin/e2fsck").arg("-fp").arg(image));
    if !matches!(code, Some(0 | 1)) {
        return Err(format!("e2fsck -fp: {code:?}: {said}"));
    }
    let (code, said) = tool(Command::new("/sbin/e2fsck").arg("-fn").arg(image));
    if code != Some(0) {
        return Err(format!("e2fsck -fn: {code:?}: {said}"));
    }
    let cat = ["-R", "cat /var/ledger.txt"];
    let (_, text) = tool(Command::new("/sbin/debugfs").args(cat).arg(image));
    Ok(text.lines().filter_map(ledger_line).collect())
}

/// Cuts the power after `upto` operations and says what is wrong then.
fn check(
    begin: &Path,
    record: &[Io],
    upto: usize,
    seen: &[(u64, usize)],
    rng: &mut ChaCha8Rng,
) -> Result<(), String> {
    let image = begin.with_file_name("cut.img");
    ft_pair_machine::disk::make_copy(begin, &image, &mut |_, _| ()).unwrap();
    cut(&record[..upto], &OpenOptions::new().write(true).open(&image).unwrap(), rng);
    let ledger = recover(&image);
    std::fs::remove_file(&image).unwrap();
    let ledger = ledger?;
    if !ledger.iter().copied().eq(1..=ledger.len() as u64) {
        return Err(format!("the ledger is not whole: {ledger:?}"));
    }
    let promised = seen.iter().filter(|(_, at)| *at <= upto).map(|(line, _)| *line).max();
    if promised.is_some_and(|promised| promised > ledger.len() as u64) {
        return Err(format!("line {promised:?} was seen, {} are there", ledger.len()));
    }
    Ok(())
}

/// The sides' copies are written in two ways: as the guest goes while it is unprotected, and when an epoch
/// is committed while it is. A copy that does not sync shows that the test would see it.
#[test]
fn no_line_that_was_seen_is_lost_with_the_power() {
    let (begin, dir) = guest::image("power-begin");
    let work = dir.path().join("work.img");
    ft_pair_machine::disk::make_copy(&begin, &work, &mut |_, _| ()).unwrap();
    let append = format!("{} ft.ledger=10", guest::APPEND);
    let mut world = World::begin(&append, &work);
    world.disk.set_unprotected(true);
    let lines = |world: &World| world.seen.len();
    while lines(&world) < 40 {
        assert!(world.epoch < Epoch(4000), "no ledger:\n{}", world.console);
        world.epoch(0);
    }
    let protected = world.record.lock().unwrap().len();
    world.disk.set_unprotected(false);
    for lag in [1, 3, 8] {
        let wanted = lines(&world) + 25;
        while lines(&world) < wanted {
            assert!(world.epoch < Epoch(8000), "the ledger stands still:\n{}", world.console);
            world.epoch(lag);
        }
    }
    world.disk.commit(world.epoch).unwrap();
    assert_eq!(world.disk.drain(Duration::from_secs(60)), Ok(true));
    let record = world.record.lock().unwrap().clone();
    let first = world.seen[0].1;
    println!(
        "{} operations, {} lines, the first after {first}, protected from {protected}",
        record.len(),
        world.seen.len()
    );

    let mut rng = ChaCha8Rng::seed_from_u64(0xdead_10cc);
    let places = [(4, 0..first), (8, first..protected), (12, protected..record.len() + 1)];
    let mut cuts: Vec<usize> = Vec::new();
    for (count, place) in places {
        cuts.extend((0..count).map(|_| rng.random_range(place.clone())));
    }
    for upto in &cuts {
        let checked = check(&begin, &record, *upto, &world.seen, &mut rng);
        assert_eq!(checked, Ok(()), "cut after {upto} of {} operations", record.len());
    }

    // The same writes without one sync since the ledger began.
    let careless: Vec<Io> = record
        .iter()
        .enumerate()
        .map(|(i, io)| match io {
            Io::Sync if i > first => Io::Write { offset: 0, data: Arc::new([]) },
            other => other.clone(),
        })
        .collect();
    let caught = cuts
        .iter()
        .filter(|upto| **upto > protected)
        .any(|upto| check(&begin, &careless, *upto, &world.seen, &mut rng).is_err());
    assert!(caught, "a copy that does not sync loses something");
}
