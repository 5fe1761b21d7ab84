//! Which parts of a disk image can hold a filesystem: the whole of it, or its partitions.

use super::{ImageError, SECTOR};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// No table of ours to read has more partitions.
const MAX_PARTITIONS: usize = 128;

/// A range of the image.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    /// Number of the partition, none if it is the whole disk.
    pub number: Option<u32>,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// The image.
    pub file: Arc<File>,
}

impl Volume {
    /// For people.
    pub fn name(&self) -> String {
        self.number.map_or_else(|| "the whole disk".to_owned(), |n| format!("partition {n}"))
    }

    /// What the guest's kernel calls it.
    pub fn device(&self) -> String {
        self.number.map_or_else(|| "/dev/vda".to_owned(), |n| format!("/dev/vda{n}"))
    }

    /// Reads bytes at an offset into the volume.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        if end.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes at {offset} lie beyond the end of {}", out.len(), self.name()),
            ));
        }
        self.file.read_exact_at(out, self.start + offset)
    }
}

/// A read-only stream over a volume, for the crates that want one.
#[derive(Debug)]
pub(super) struct VolumeStream {
    volume: Volume,
    at: u64,
}

impl VolumeStream {
    pub const fn new(volume: Volume) -> Self {
        Self { volume, at: 0 }
    }
}

impl Read for VolumeStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.volume.len.saturating_sub(self.at);
        let n = left.min(out.len() as u64) as usize;
        self.volume.read_at(self.at, &mut out[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for VolumeStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.volume.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Write for VolumeStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "images are only read"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses what is known to be no raw disk, with the command that makes one of it.
pub(super) fn refuse_other_formats(path: &Path, head: &[u8]) -> Result<(), ImageError> {
    const FORMATS: [(usize, &[u8], &str, &str); 9] = [
        (0, b"QFI\xfb", "qcow2", "qemu-img convert -O raw"),
        (0, b"KDMV", "VMDK", "qemu-img convert -O raw"),
        (0, b"vhdxfile", "VHDX", "qemu-img convert -O raw"),
        (0, b"conectix", "VHD", "qemu-img convert -O raw"),
        (0x40, &[0x7f, 0x10, 0xda, 0xbe], "VDI", "qemu-img convert -O raw"),
        (0, &[0x1f, 0x8b, 8], "gzip-compressed", "gzip -dc"),
        (0, b"\xfd7zXZ\0", "xz-compressed", "xz -dc"),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "zstd-compressed", "zstd -dc"),
        (0, b"BZh", "bzip2-compressed", "bzip2 -dc"),
    ];
    for (at, magic, format, tool) in FORMATS {
        if head.get(at..at + magic.len()) == Some(magic) {
            let from = path.display();
            let to = path.with_extension("raw");
            let to = to.display();
            let convert = if tool.ends_with("-dc") {
                format!("{tool} {from} > {to}")
            } else {
                format!("{tool} {from} {to}")
            };
            return Err(ImageError::NotRaw { path: path.to_owned(), format, convert });
        }
    }
    Ok(())
}

/// Finds the partitions of an image, or the whole of it if it has no partition table.
pub(super) fn volumes(path: &Path, file: &File, len: u64) -> Result<Vec<Volume>, ImageError> {
    let file = Arc::new(
        file.try_clone().map_err(|source| ImageError::Io { path: path.to_owned(), source })?,
    );
    let whole = Volume { number: None, start: 0, len, file };
    // Filesystems leave the first sector to boot code, which may end like a partition table does.
    if super::fs::detect(&whole).is_some() {
        return Ok(vec![whole]);
    }
    let mut head = vec![0; (len.min(2 * SECTOR)) as usize];
    whole
        .read_at(0, &mut head)
        .map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
    let signed = head.get(510..512) == Some(&[0x55, 0xaa]);
    // Type 0xee in the first sector guards a GPT.
    let protective = signed && (0..4).any(|i| head[446 + 16 * i + 4] == 0xee);
    let ranges = if protective || head.get(512..520) == Some(b"EFI PART") {
        gpt_ranges(path, &whole)?
    } else if signed {
        mbr_ranges(path, &whole)?
    } else {
        return Ok(vec![whole]);
    };
    ranges
        .into_iter()
        .map(|(number, start, sectors)| {
            let needed = start.saturating_add(sectors).saturating_mul(SECTOR);
            if needed > len {
                let what = format!("partition {number}");
                return Err(ImageError::Truncated {
                    path: path.to_owned(),
                    what,
                    needed,
                    actual: len,
                });
            }
            let (start, len) = (start * SECTOR, sectors * SECTOR);
            Ok(Volume { number: Some(number), start, len, ..whole.clone() })
        })
        .collect()
}

/// `(number, first sector, sectors)`.
type Range = (u32, u64, u64);

fn gpt_ranges(path: &Path, whole: &Volume) -> Result<Vec<Range>, ImageError> {
    let damaged = |detail: String| ImageError::Damaged {
        path: path.to_owned(),
        what: "the GPT partition table".to_owned(),
        detail,
    };
    let mut header = [0; 92];
    whole.read_at(SECTOR, &mut header).map_err(|e| damaged(e.to_string()))?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (entries, entry_size) = (word(80) as usize, word(84));
    if &header[..8] == b"EFI PART" {
        // The crate trusts these two.
        if entries > MAX_PARTITIONS || entry_size != 128 {
            return Err(damaged(format!("{entries} entries of {entry_size} bytes")));
        }
        // The backup header is the disk's last sector.
        let backup = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
        let needed = backup.saturating_add(1).saturating_mul(SECTOR);
        if needed > whole.len {
            let what = "the disk that its GPT partition table describes".to_owned();
            let path = path.to_owned();
            return Err(ImageError::Truncated { path, what, needed, actual: whole.len });
        }
    }
    let disk = gpt::GptConfig::new()
        .writable(false)
        .open_from_device(VolumeStream::new(whole.clone()))
        .map_err(|e| damaged(e.to_string()))?;
    let mut ranges = Vec::new();
    for (number, p) in disk.partitions() {
        if !p.is_used() {
            continue;
        }
        let sectors = p
            .last_lba
            .checked_sub(p.first_lba)
            .and_then(|n| n.checked_add(1))
            .ok_or_else(|| damaged(format!("partition {number} ends before it begins")))?;
        ranges.push((*number, p.first_lba, sectors));
    }
    Ok(ranges)
}

fn mbr_ranges(path: &Path, whole: &Volume) -> Result<Vec<Range>, ImageError> {
    let damaged = |detail: String| ImageError::Damaged {
        path: path.to_owned(),
        what: "the MBR partition table".to_owned(),
        detail,
    };
    let read = |sector: u64| {
        let mut bytes = [0; SECTOR as usize];
        whole.read_at(sector * SECTOR, &mut bytes).map_err(|_| ImageError::Truncated {
            path: path.to_owned(),
            what: "the chain of partition tables".to_owned(),
            needed: (sector + 1) * SECTOR,
            actual: whole.len,
        })?;
        mbrman::MBRHeader::read_from(&mut io::Cursor::new(bytes))
            .map_err(|e| damaged(e.to_string()))
    };
    let mut ranges = Vec::new();
    for (number, p) in read(0)?.iter().filter(|(_, p)| p.is_used()) {
        let start = u64::from(p.starting_lba);
        if !p.is_extended() {
            ranges.push((number as u32, start, u64::from(p.sectors)));
            continue;
        }
        // Logical partitions are a chain of tables, each relative to the extended partition's start;
        // read here because the crate's reader adds without checks.
        let mut table = start;
        for logical in 5.. {
            let header = read(table)?;
            let [p, next] = [1, 2].map(|i| header.get(i).cloned());
            if let Some(p) = p.filter(|p| p.is_used()) {
                ranges.push((logical, table + u64::from(p.starting_lba), u64::from(p.sectors)));
            }
            match next.filter(|p| p.is_used()) {
                Some(_) if ranges.len() >= MAX_PARTITIONS || logical > 200 => {
                    return Err(damaged("its chain of logical partitions has no end".to_owned()));
                }
                Some(next) => table = start + u64::from(next.starting_lba),
                None => break,
            }
        }
    }
    Ok(ranges)
}
