//! Filesystems in an image, read without mounting.

use super::volume::{Volume, VolumeStream};
use super::{ImageError, MAX_BOOT_FILE};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// No directory that is looked into has more entries.
const MAX_ENTRIES: usize = 10_000;

/// What the first bytes of a volume say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext,
    Fat,
    /// Known by name, but not readable here.
    Other(&'static str),
}

/// Recognises a filesystem.
pub(super) fn detect(volume: &Volume) -> Option<Kind> {
    const OTHERS: [(u64, &[u8], &str); 9] = [
        (0, b"XFSB", "XFS"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (0, b"hsqs", "squashfs"),
        (0x8001, b"CD001", "ISO 9660"),
        (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
        (0x200, b"LABELONE", "an LVM physical volume"),
        (3, b"NTFS    ", "NTFS"),
        (0x400, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        (0xff6, b"SWAPSPACE2", "swap"),
    ];
    let has = |at: u64, magic: &[u8]| {
        let mut bytes = vec![0; magic.len()];
        volume.read_at(at, &mut bytes).is_ok() && bytes == magic
    };
    if has(0x438, &[0x53, 0xef]) {
        return Some(Kind::Ext);
    }
    if has(510, &[0x55, 0xaa]) && (has(54, b"FAT") || has(82, b"FAT")) {
        return Some(Kind::Fat);
    }
    OTHERS.iter().find(|(at, magic, _)| has(*at, magic)).map(|(_, _, name)| Kind::Other(name))
}

/// An opened filesystem.
pub(super) struct GuestFs {
    inner: Inner,
    /// As `search --fs-uuid` and `root=UUID=` write it, in lower case.
    pub uuid: String,
    pub label: String,
}

enum Inner {
    Ext(ext4_view::Ext4),
    Fat(Box<fatfs::FileSystem<VolumeStream>>),
}

impl std::fmt::Debug for GuestFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestFs").field("uuid", &self.uuid).field("label", &self.label).finish()
    }
}

struct ExtReader(Volume);

impl ext4_view::Ext4Read for ExtReader {
    fn read(
        &mut self,
        start: u64,
        out: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_at(start, out)?)
    }
}

/// The crates answer damaged filesystems with errors, but arithmetic in them can overflow, which
/// panics in builds that check it. An image must not end the process.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err("its structures contradict each other".to_owned()))
}

impl GuestFs {
    /// Opens the filesystem in a volume; none if there is none that can be read.
    pub fn open(path: &Path, volume: &Volume) -> Result<Option<Self>, ImageError> {
        let damaged = |detail: String| ImageError::Damaged {
            path: path.to_owned(),
            what: format!("the filesystem on {}", volume.name()),
            detail,
        };
        match detect(volume) {
            Some(Kind::Ext) => {
                check_ext_length(path, volume)?;
                guarded(|| Self::open_ext(volume)).map(Some).map_err(damaged)
            }
            Some(Kind::Fat) => {
                check_fat_length(path, volume)?;
                guarded(|| Self::open_fat(volume)).map(Some).map_err(damaged)
            }
            _ => Ok(None),
        }
    }

    fn open_ext(volume: &Volume) -> Result<Self, String> {
        let fs = ext4_view::Ext4::load(Box::new(ExtReader(volume.clone())))
            .map_err(|e| e.to_string())?;
        let uuid = fs.uuid().to_string().to_lowercase();
        let label = fs.label().to_str().unwrap_or_default().to_owned();
        Ok(Self { inner: Inner::Ext(fs), uuid, label })
    }

    fn open_fat(volume: &Volume) -> Result<Self, String> {
        let stream = VolumeStream::new(volume.clone());
        let fs =
            fatfs::FileSystem::new(stream, fatfs::FsOptions::new()).map_err(|e| e.to_string())?;
        let id = fs.volume_id();
        let uuid = format!("{:04x}-{:04x}", id >> 16, id & 0xffff);
        let label = fs.volume_label();
        Ok(Self { inner: Inner::Fat(Box::new(fs)), uuid, label })
    }

    /// The bytes of a file; none if there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        guarded(|| match &self.inner {
            Inner::Ext(fs) => read_ext(fs, path),
            Inner::Fat(fs) => read_fat(fs, path),
        })
        .map_err(|e| format!("{path}: {e}"))
    }

    /// A file as text; none if there is no such file or it cannot be read.
    pub fn read_text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path).ok()??;
        // Configurations are small; what is not is not one.
        (bytes.len() <= 1 << 20).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names in a directory, sorted; none of them if there is no such directory.
    pub fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = guarded(|| {
            Ok(match &self.inner {
                Inner::Ext(fs) => fs
                    .read_dir(path)
                    .into_iter()
                    .flatten()
                    .take(MAX_ENTRIES)
                    .map_while(Result::ok)
                    .filter_map(|e| e.file_name().as_str().ok().map(str::to_owned))
                    .collect(),
                Inner::Fat(fs) => {
                    let root = fs.root_dir();
                    let path = path.trim_matches('/');
                    let dir = if path.is_empty() { Ok(root) } else { root.open_dir(path) };
                    let entries = dir.map(|d| d.iter()).into_iter().flatten();
                    entries.take(MAX_ENTRIES).map_while(Result::ok).map(|e| e.file_name()).collect()
                }
            })
        })
        .unwrap_or_default();
        names.retain(|n| n != "." && n != "..");
        names.sort();
        names
    }

    /// True if there is a file or directory of that name.
    pub fn exists(&self, path: &str) -> bool {
        guarded(|| match &self.inner {
            Inner::Ext(fs) => fs.exists(path).map_err(|e| e.to_string()),
            Inner::Fat(fs) => {
                let path = path.trim_matches('/');
                let root = fs.root_dir();
                Ok(root.open_file(path).is_ok() || root.open_dir(path).is_ok())
            }
        })
        .unwrap_or(false)
    }

    /// Where a symbolic link points; none if it is none.
    pub fn link(&self, path: &str) -> Option<String> {
        guarded(|| match &self.inner {
            Inner::Ext(fs) => fs.read_link(path).map_err(|e| e.to_string()),
            Inner::Fat(_) => Err("FAT has no links".to_owned()),
        })
        .ok()
        .and_then(|target| target.to_str().ok().map(str::to_owned))
    }
}

fn read_ext(fs: &ext4_view::Ext4, path: &str) -> Result<Option<Vec<u8>>, String> {
    match fs.metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(None),
        Ok(meta) if meta.len() > MAX_BOOT_FILE => Err(format!("{} bytes", meta.len())),
        Ok(_) => fs.read(path).map(Some).map_err(|e| e.to_string()),
        Err(ext4_view::Ext4Error::NotFound | ext4_view::Ext4Error::NotADirectory) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn read_fat(fs: &fatfs::FileSystem<VolumeStream>, path: &str) -> Result<Option<Vec<u8>>, String> {
    let file = match fs.root_dir().open_file(path.trim_matches('/')) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // The crate calls a directory in the file's place something else.
        Err(e) if e.kind() == std::io::ErrorKind::Other => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BOOT_FILE).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(Some(bytes))
}

fn truncated(path: &Path, volume: &Volume, needed: u64) -> Result<(), ImageError> {
    if needed <= volume.len {
        return Ok(());
    }
    Err(ImageError::Truncated {
        path: path.to_owned(),
        what: format!("the filesystem on {}", volume.name()),
        needed: volume.start.saturating_add(needed),
        actual: volume.start + volume.len,
    })
}

/// ext2/3/4 superblock: block count at 0x04 (high half at 0x150 with the 64-bit feature), block size as a
/// power of two from 1024 at 0x18.
fn check_ext_length(path: &Path, volume: &Volume) -> Result<(), ImageError> {
    let mut sb = [0; 1024];
    if volume.read_at(1024, &mut sb).is_err() {
        return truncated(path, volume, 2048);
    }
    let word = |at: usize| u32::from_le_bytes(sb[at..at + 4].try_into().expect("four bytes"));
    let high = if word(0x60) & 0x80 != 0 { word(0x150) } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(word(4));
    if word(0x18) > 6 {
        // Not a block size; the crate will say so.
        return Ok(());
    }
    truncated(path, volume, blocks.saturating_mul(1024 << word(0x18)))
}

/// FAT boot sector: bytes per sector at 11, sectors at 19 (16 bits) or 32.
fn check_fat_length(path: &Path, volume: &Volume) -> Result<(), ImageError> {
    let mut boot = [0; 512];
    if volume.read_at(0, &mut boot).is_err() {
        return truncated(path, volume, 512);
    }
    let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let sectors = match half(19) {
        0 => half(32) | half(34) << 16,
        n => n,
    };
    truncated(path, volume, sectors * half(11))
}
