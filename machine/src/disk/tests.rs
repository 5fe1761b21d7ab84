//! Journal, overlay and copies.

use super::copies::{Candidate, CopyError, CopyPaths, choose, survey};
use super::file::{DiskFile, RealFile};
use super::journal::{DiskOp, Journal};
use super::metadata::{CopyMeta, CopyState, MetaError, sidecar};
use super::overlay::{DiskEvent, OverlayDisk};
use super::transfer::{SectorRange, finalise, make_copy, resync, resync_compare};
use crate::block_device::{BlockDevice, SECTOR};
use ft_pair_shared::{Epoch, Generation, PairId};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn filled(byte: u8) -> Vec<u8> {
    vec![byte; SECTOR]
}

fn image(dir: &Path, sectors: usize) -> std::path::PathBuf {
    let path = dir.join("guest.img");
    std::fs::write(&path, vec![0; sectors * SECTOR]).unwrap();
    path
}

fn read(disk: &mut OverlayDisk, sector: u64) -> u8 {
    let mut buf = filled(0xee);
    disk.read(sector, &mut buf).unwrap();
    assert!(buf.iter().all(|b| *b == buf[0]));
    buf[0]
}

#[test]
fn uncommitted_writes_stay_off_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8);
    let mut disk = OverlayDisk::open(&path).unwrap();
    let control = disk.control();
    disk.write(1, &filled(1));
    assert_eq!(disk.flush(), 1);
    control.mark_epoch(Epoch(1));
    disk.write(1, &filled(2));
    assert_eq!(disk.flush(), 2);
    control.commit(Epoch(1)).unwrap();
    assert_eq!(control.wait_durable(1, SOON), Ok(true));
    assert_eq!(control.drain(SOON), Ok(true));
    assert_eq!(std::fs::read(&path).unwrap()[SECTOR], 1);
    assert_eq!(read(&mut disk, 1), 2);
    assert_eq!(control.durable_flush(), 1);
    control.discard_after(Epoch(1)).unwrap();
    assert_eq!(read(&mut disk, 1), 1);
    assert_eq!(disk.flush(), 2, "flushes are counted from where the epoch ended");
    assert!(control.commit(Epoch(7)).is_err());
}

#[test]
fn an_unprotected_disk_commits_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 8);
    let mut disk = OverlayDisk::open(&path).unwrap();
    disk.control().set_unprotected(true);
    disk.resume_flushes(41);
    assert_eq!(disk.control().wait_durable(41, SOON), Ok(true));
    disk.write(7, &filled(9));
    let n = disk.flush();
    assert_eq!(n, 42);
    assert_eq!(disk.control().wait_durable(n, SOON), Ok(true));
    assert_eq!(*std::fs::read(&path).unwrap().last().unwrap(), 9);
}

#[test]
fn both_sides_agree_on_what_an_epoch_wrote() {
    let (mut a, mut b) = (Journal::new(), Journal::new());
    for journal in [&mut a, &mut b] {
        journal.write(3, &filled(1));
        journal.flush();
    }
    let of_a = a.mark_epoch(Epoch(1));
    assert_eq!(of_a, b.mark_epoch(Epoch(1)));
    assert_eq!((of_a.writes, of_a.bytes), (1, 512));
    a.write(3, &filled(1));
    b.write(3, &filled(2));
    assert_ne!(a.mark_epoch(Epoch(2)).digest, b.mark_epoch(Epoch(2)).digest);
    assert_ne!(a.mark_epoch(Epoch(3)).digest, of_a.digest);
}

#[test]
fn what_the_guest_does_is_kept_in_order_for_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = OverlayDisk::open(&image(dir.path(), 8)).unwrap();
    let control = disk.control();
    disk.write(1, &filled(1));
    assert_eq!(control.take_ops(), [], "nobody wants it yet");
    control.keep_ops(true);
    disk.write(2, &filled(2));
    disk.flush();
    control.repair(3, &filled(9));
    disk.write(2, &filled(3));
    let written = |sector, byte| DiskOp::Write { sector, data: filled(byte).into() };
    let ops = control.take_ops();
    assert_eq!(
        ops,
        [written(2, 2), DiskOp::Flush(1), written(2, 3)],
        "a repair is not the guest's"
    );
    assert_eq!(control.take_ops(), []);

    let other = tempfile::tempdir().unwrap();
    let path = image(other.path(), 8);
    let mut peer = OverlayDisk::open(&path).unwrap();
    for op in ops {
        match op {
            DiskOp::Write { sector, data } => peer.control().apply_op(sector, &data),
            DiskOp::Flush(number) => assert_eq!(peer.control().apply_flush(), number),
        }
    }
    peer.control().mark_epoch(Epoch(1));
    assert_eq!(read(&mut peer, 2), 3);
    peer.control().commit(Epoch(1)).unwrap();
    assert_eq!(peer.control().wait_durable(1, SOON), Ok(true));
    control.keep_ops(false);
    disk.write(1, &filled(1));
    assert_eq!(control.take_ops(), []);
}

struct Broken {
    broken: Arc<AtomicBool>,
    bytes: Mutex<Vec<u8>>,
}

impl DiskFile for Broken {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.broken.load(SeqCst) {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_host_disk_loses_nothing_and_is_told() {
    let broken = Arc::new(AtomicBool::new(true));
    let file = Broken { broken: Arc::clone(&broken), bytes: Mutex::new(vec![0; 8 * SECTOR]) };
    let mut disk = OverlayDisk::with_file(Box::new(file), "full".into(), 8, 2048).unwrap();
    let control = disk.control();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    control.subscribe(Box::new(move |e| seen.lock().unwrap().push(e.clone())));
    control.set_unprotected(true);
    disk.write(0, &filled(1));
    let n = disk.flush();
    let fault = control.wait_durable(n, SOON).unwrap_err();
    assert_eq!(fault.action, "write");
    assert!(fault.to_string().contains("No space left"), "{fault}");
    // The guest goes on, beyond the limit for memory too: its owner has been told.
    for i in 0..20 {
        disk.write(i % 8, &filled(i as u8));
    }
    assert_eq!(read(&mut disk, 3), 19);
    broken.store(false, SeqCst);
    let start = Instant::now();
    while control.durable_flush() < n {
        assert!(start.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(control.drain(SOON), Ok(true));
    assert_eq!(read(&mut disk, 3), 19);
    let events = events.lock().unwrap();
    assert!(matches!(events[0], DiskEvent::Failed(_)), "{events:?}");
    assert!(events.contains(&DiskEvent::Recovered), "{events:?}");
}

#[test]
fn changes_digests_repairs_and_faults() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = OverlayDisk::open(&image(dir.path(), 1000)).unwrap();
    let control = disk.control();
    let before = control.digest_range(0, 1000).unwrap();
    control.track_changes(true);
    disk.write(130, &filled(1));
    disk.write(999, &filled(1));
    assert_eq!(control.take_changes(), [(128, 128), (896, 104)]);
    assert_eq!(control.take_changes(), []);
    let good = control.digest_range(0, 1000).unwrap();
    assert_ne!(good, before);
    for sector in [130, 131] {
        let was = read(&mut disk, sector);
        control.inject_fault(sector, &[7; SECTOR]).unwrap();
        assert_ne!(control.digest_range(0, 1000).unwrap(), good);
        control.repair(sector, &filled(was));
        assert_eq!(control.digest_range(0, 1000).unwrap(), good);
    }
}

fn meta(generation: u64, epoch: u64, state: CopyState) -> CopyMeta {
    let (generation, epoch) = (Generation(generation), Epoch(epoch));
    CopyMeta { pair: PairId([7; 16]), generation, epoch, state, len: 512 }
}

fn candidate(name: &str, meta: Option<CopyMeta>) -> Candidate {
    Candidate { path: name.into(), len: 512, meta }
}

#[test]
fn the_newest_copy_is_chosen() {
    use CopyState::{Clean, InUse, Syncing};
    let image = |m| candidate("g", m);
    let slave = |m| candidate("g.ft-slave", Some(m));
    let chosen = |i: Option<CopyMeta>, s: CopyMeta| {
        choose(&image(i), &[slave(s)]).map(|c| c.newest.path.display().to_string())
    };
    // (image, slave, newest)
    let table = [
        (meta(1, 9, InUse), meta(1, 8, InUse), "g"),
        (meta(1, 9, InUse), meta(1, 9, InUse), "g"),
        (meta(1, 8, InUse), meta(1, 9, InUse), "g.ft-slave"),
        (meta(1, 90, InUse), meta(2, 9, InUse), "g.ft-slave"),
        (meta(2, 9, InUse), meta(1, 99, InUse), "g"),
        (meta(1, 9, InUse), meta(2, 9, Syncing), "g"),
        (meta(3, 9, Clean), meta(2, 99, InUse), "g"),
        (meta(1, 9, InUse), meta(2, 9, Clean), "g.ft-slave"),
        (meta(1, 9, Syncing), meta(2, 9, InUse), "g.ft-slave"),
    ];
    for (i, s, newest) in table {
        assert_eq!(chosen(Some(i), s).unwrap(), newest, "{i:?} {s:?}");
    }
    assert_eq!(choose(&image(None), &[]).unwrap().newest.path, Path::new("g"));
    assert!(matches!(chosen(None, meta(1, 1, InUse)), Err(CopyError::Foreign { .. })));
    assert_eq!(chosen(None, meta(1, 1, Clean)).unwrap(), "g");
    let alone = choose(&image(Some(meta(1, 1, Syncing))), &[]);
    assert!(matches!(alone, Err(CopyError::Incomplete { .. })));
    let longer = Candidate { len: 1024, ..image(Some(meta(1, 1, InUse))) };
    assert!(matches!(choose(&longer, &[]), Err(CopyError::Length { .. })));
    let foreign = CopyMeta { pair: PairId([8; 16]), ..meta(9, 9, InUse) };
    let err = chosen(Some(meta(1, 1, Clean)), foreign).unwrap_err();
    assert!(err.to_string().contains("g.ft-slave.ftpair"), "{err}");
}

#[test]
fn a_new_slave_never_gets_the_image_or_the_live_copy() {
    let paths = CopyPaths::new(Path::new("/x/guest.img"), None);
    let first = paths.for_new_slave(Path::new("/x/guest.img"));
    assert_eq!(first, Path::new("/x/guest.img.ft-slave"));
    let second = paths.for_new_slave(first);
    assert_eq!(second, Path::new("/x/guest.img.ft-slave2"));
    assert_eq!(paths.for_new_slave(second), first);
}

#[test]
fn metadata_survive_and_damage_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("c");
    assert_eq!(CopyMeta::load(&copy).unwrap(), None);
    let written = meta(3, 4, CopyState::InUse);
    written.store(&copy).unwrap();
    assert_eq!(CopyMeta::load(&copy).unwrap(), Some(written));
    let bytes = std::fs::read(sidecar(&copy)).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(sidecar(&copy), &bad).unwrap();
        let loaded = CopyMeta::load(&copy);
        // The last newline may change without harm.
        assert!(loaded.is_err() || at + 1 == bytes.len(), "byte {at}");
        std::fs::write(sidecar(&copy), &bytes[..at]).unwrap();
        assert!(CopyMeta::load(&copy).is_err() || at + 1 == bytes.len(), "cut at {at}");
    }
    std::fs::write(sidecar(&copy), "ft-pair-copy 2\n").unwrap();
    assert!(matches!(CopyMeta::load(&copy), Err(MetaError::Version { .. })));
}

#[test]
fn copies_are_sparse_and_compare_equal() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let file = std::fs::File::create_new(&from).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&[5; 100_000], 3_000_000).unwrap();
    let to = dir.path().join("to");
    let mut last = (0, 0);
    make_copy(&from, &to, &mut |done, all| last = (done, all)).unwrap();
    assert_eq!(last, (64 << 20, 64 << 20));
    assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 4 << 20, "holes stay holes");
    let (live, stale) = (RealFile::open(&from).unwrap(), RealFile::open(&to).unwrap());
    let sectors = live.len() / 512;
    assert_eq!(resync_compare(&live, &stale, sectors, &mut |_, _| {}).unwrap(), []);
    stale.write_at(10 * 512, &[1; 1024]).unwrap();
    stale.write_at(live.len() - 512, &[1; 512]).unwrap();
    let ranges = resync_compare(&live, &stale, sectors, &mut |_, _| {}).unwrap();
    let last = SectorRange { first: sectors - 1, count: 1 };
    assert_eq!(ranges, [SectorRange { first: 10, count: 2 }, last]);
    resync(&live, &stale, &ranges).unwrap();
    assert_eq!(resync_compare(&live, &stale, sectors, &mut |_, _| {}).unwrap(), []);
    assert!(make_copy(&dir.path().join("none"), &to, &mut |_, _| {}).is_err());
    assert!(to.exists());
}

#[test]
fn a_clean_end_makes_the_image_the_newest() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let paths = CopyPaths::new(&path, None);
    let slave = paths.for_new_slave(&path).to_owned();
    std::fs::write(&slave, filled(9)).unwrap();
    meta(1, 5, CopyState::InUse).store(&path).unwrap();
    meta(2, 9, CopyState::InUse).store(&slave).unwrap();
    let (found, others) = survey(&paths).unwrap();
    let choice = choose(&found.unwrap(), &others).unwrap();
    assert!(!choice.is_image);
    finalise(&path, &choice.newest.path, &choice.newest.meta.unwrap()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), filled(9));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(CopyMeta::load(&path).unwrap(), Some(meta(2, 9, CopyState::Clean)));
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let (found, others) = survey(&paths).unwrap();
    assert!(choose(&found.unwrap(), &others).unwrap().is_image);
}
