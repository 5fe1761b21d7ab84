//! Making, comparing and replacing copies.

use super::file::DiskFile;
use super::metadata::{CopyMeta, CopyState, MetaError, sync_directory, with_suffix};
use super::sparse;
use crate::block_device::SECTOR;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Bytes copied or compared at a time.
const CHUNK: u64 = 1 << 20;

/// Sectors that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectorRange {
    /// First sector.
    pub first: u64,
    /// Number of sectors.
    pub count: u64,
}

/// Copies an image: by reflink where the host can, else holes stay holes. The copy appears under its name
/// when it is complete and durable. `progress` is told how many bytes of how many are done.
///
/// # Errors
/// When the host fails; nothing is left under either name then that was not there before.
pub fn make_copy(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let temporary = with_suffix(to, ".tmp");
    let result = copy_to(from, &temporary, progress)
        .and_then(|()| std::fs::rename(&temporary, to))
        .and_then(|()| sync_directory(to));
    if result.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_file(&temporary));
    }
    result
}

fn copy_to(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
    let source = File::open(from)?;
    let len = source.metadata()?.len();
    let copy = File::options().read(true).write(true).create(true).truncate(true).open(to)?;
    copy.set_permissions(source.metadata()?.permissions())?;
    if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
        copy.set_len(len)?;
        let mut buf = vec![0; CHUNK as usize];
        for piece in sparse::pieces(&source, len)?.into_iter().filter(|p| p.data) {
            let mut at = piece.start;
            while at < piece.end {
                let n = copy_some(&source, &copy, at, (piece.end - at).min(CHUNK), &mut buf)?;
                at += n;
                progress(at, len);
            }
        }
    }
    progress(len, len);
    copy.sync_all()
}

/// In the host's kernel where it can, else through memory.
fn copy_some(from: &File, to: &File, at: u64, len: u64, buf: &mut [u8]) -> io::Result<u64> {
    let (mut source_at, mut copy_at) = (at, at);
    let copied = rustix::fs::copy_file_range(
        from,
        Some(&mut source_at),
        to,
        Some(&mut copy_at),
        len as usize,
    );
    if let Ok(n @ 1..) = copied {
        return Ok(n as u64);
    }
    let buf = &mut buf[..len as usize];
    from.read_exact_at(buf, at)?;
    if !sparse::is_zero(buf) {
        to.write_all_at(buf, at)?;
    }
    Ok(len)
}

/// Compares all of a dead side's copy with the live one: ranges that differ, ascending.
///
/// # Errors
/// When either cannot be read.
pub fn resync_compare(
    live: &dyn DiskFile,
    stale: &dyn DiskFile,
    sectors: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Vec<SectorRange>> {
    let mut ranges: Vec<SectorRange> = Vec::new();
    let (mut a, mut b) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let step = CHUNK / SECTOR as u64;
    let mut at = 0;
    while at < sectors {
        let n = step.min(sectors - at);
        let bytes = n as usize * SECTOR;
        live.read_at(at * SECTOR as u64, &mut a[..bytes])?;
        stale.read_at(at * SECTOR as u64, &mut b[..bytes])?;
        if a[..bytes] != b[..bytes] {
            let pairs = a[..bytes].chunks_exact(SECTOR).zip(b[..bytes].chunks_exact(SECTOR));
            for (i, _) in pairs.enumerate().filter(|(_, (x, y))| x != y) {
                let first = at + i as u64;
                match ranges.last_mut() {
                    Some(r) if r.first + r.count == first => r.count += 1,
                    _ => ranges.push(SectorRange { first, count: 1 }),
                }
            }
        }
        at += n;
        progress(at, sectors);
    }
    Ok(ranges)
}

/// Makes a stale copy equal in these ranges, and durable. Its metadata must say
/// [`CopyState::Syncing`] meanwhile.
///
/// # Errors
/// When the host fails.
pub fn resync(live: &dyn DiskFile, stale: &dyn DiskFile, ranges: &[SectorRange]) -> io::Result<()> {
    let mut buf = vec![0; CHUNK as usize];
    for range in ranges {
        let mut at = range.first * SECTOR as u64;
        let end = at + range.count * SECTOR as u64;
        while at < end {
            let n = CHUNK.min(end - at) as usize;
            live.read_at(at, &mut buf[..n])?;
            stale.write_at(at, &buf[..n])?;
            at += n as u64;
        }
    }
    stale.sync()
}

/// After a clean end: makes the user's image the newest copy, `newest`, which is complete and synced, with
/// `meta` telling its pair, generation and epoch.
///
/// Another copy is renamed over the image, which is atomic: a crash leaves the image as it was, with the
/// newest copy beside it, or makes it the newest. (Writing the differences into it would leave a torn
/// image after a crash.) Mode is kept, owner as far as the host allows; further hard links to
/// the old image keep the old content.
///
/// # Errors
/// When the host fails; the newest copy is still there then, under one name or the other.
pub fn finalise(image: &Path, newest: &Path, meta: &CopyMeta) -> Result<(), MetaError> {
    let meta = CopyMeta { state: CopyState::Clean, ..*meta };
    let io = |source| MetaError::Io { path: image.to_owned(), source };
    // The image's own name, not that of a link to it.
    let image = std::fs::canonicalize(image).map_err(io)?;
    if newest == image {
        return meta.store(&image);
    }
    // From here on a crash finds the copy clean, the image older or gone over to it.
    meta.store(newest)?;
    replace(&image, newest).map_err(io)?;
    meta.store(&image)?;
    CopyMeta::remove(newest)
}

fn replace(image: &Path, newest: &Path) -> io::Result<()> {
    let old = std::fs::metadata(image)?;
    let adopt = |path: &Path| -> io::Result<()> {
        let file = File::open(path)?;
        // Only root may give files away; the mode still goes over.
        drop(std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid())));
        file.set_permissions(old.permissions())?;
        file.sync_all()
    };
    adopt(newest)?;
    match std::fs::rename(newest, image) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            let near = with_suffix(image, ".ft-new");
            make_copy(newest, &near, &mut |_, _| {})?;
            adopt(&near)?;
            std::fs::rename(&near, image)?;
            sync_directory(image)?;
            std::fs::remove_file(newest)
        }
        Err(e) => Err(e),
        Ok(()) => sync_directory(image),
    }
}
