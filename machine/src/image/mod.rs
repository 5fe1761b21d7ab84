//! The image that a user names: what it is, what boots in it, who uses it, and which image it is.
//!
//! [`open_guest`] never mounts anything: partition tables and filesystems are read by crates.

mod bls;
mod extlinux;
mod find;
mod fs;
mod grub;
mod identity;
mod lock;
mod volume;

#[cfg(test)]
mod tests;

pub use identity::{ImageIdentity, identify};
pub use lock::{ImageLock, LockError, Owner};

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a disk sector.
pub const SECTOR: u64 = 512;
/// No kernel or initrd is larger than this; a length beyond it is a damaged filesystem.
pub(crate) const MAX_BOOT_FILE: u64 = 1 << 30;

/// Why an image cannot be used. Each message names the file and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no file of that name.
    #[error("{path}: no such file")]
    NotFound {
        /// The file that was named.
        path: PathBuf,
    },
    /// A directory was named.
    #[error("{path} is a directory; name a disk image or a kernel in it")]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Neither a file nor a block device.
    #[error("{path} is neither a file nor a block device")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{path} is empty; a disk image or a kernel was expected")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The host refused to open or read it.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A disk image in a format other than raw.
    #[error(
        "{path} is a {format} image, only raw images can be used; convert it with\n  {convert}"
    )]
    NotRaw {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// Command that makes a raw image of it.
        convert: String,
    },
    /// Something in the image reaches past the image's end.
    #[error(
        "{path} is truncated: {what} ends at byte {needed}, the file at {actual}; copy it again \
         from its source"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Which part reaches past the end.
        what: String,
        /// Where that part ends.
        needed: u64,
        /// Where the file ends.
        actual: u64,
    },
    /// A partition table or filesystem that contradicts itself.
    #[error("{path}: {what} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing in the file is known.
    #[error(
        "{path} holds no kernel, partition table or filesystem that is known (found: {found}); \
         ext4 and FAT can be read, a kernel can be named with --kernel"
    )]
    UnknownFilesystem {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },
    /// Filesystems were read, but none has a kernel.
    #[error("no kernel in {path}; looked for\n{}\nname one with --kernel FILE", .looked_for.join("\n"))]
    NoKernel {
        /// The file.
        path: PathBuf,
        /// What was looked for and what was there, one line each.
        looked_for: Vec<String>,
    },
    /// A file that was to be the kernel is none.
    #[error("{path} is no x86-64 Linux kernel (bzImage or ELF vmlinux)")]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
}

/// What the user sets instead of what the image says.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// A kernel file on the host.
    pub kernel: Option<PathBuf>,
    /// An initrd file on the host.
    pub initrd: Option<PathBuf>,
    /// The whole kernel command line.
    pub append: Option<String>,
}

/// The disk of a guest, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    /// The image file, with symbolic links resolved.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// True if the file's permissions allow no writing.
    pub read_only: bool,
}

/// All that is needed to boot a guest.
#[derive(Clone)]
pub struct GuestSource {
    /// The kernel's bytes: bzImage or ELF.
    pub kernel: Vec<u8>,
    /// The initrd's bytes; several are concatenated as the kernel takes them.
    pub initrd: Option<Vec<u8>>,
    /// The kernel command line.
    pub cmdline: String,
    /// For people: where the kernel was found, as in "GRUB entry 'Debian' on partition 1".
    pub found_by: String,
    /// The disk; none if the named file is a kernel itself.
    pub disk: Option<GuestDisk>,
}

impl std::fmt::Debug for GuestSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestSource")
            .field("kernel_bytes", &self.kernel.len())
            .field("initrd_bytes", &self.initrd.as_ref().map(Vec::len))
            .field("cmdline", &self.cmdline)
            .field("found_by", &self.found_by)
            .field("disk", &self.disk)
            .finish()
    }
}

/// Opens what the user named and finds what boots in it.
///
/// A command line that names no console gets `console=ttyS0`, the machine's only console; one from
/// `overrides.append` is taken as it is.
///
/// # Errors
/// See [`ImageError`]; nothing is changed in any case.
pub fn open_guest(path: &Path, overrides: &Overrides) -> Result<GuestSource, ImageError> {
    let (file, len) = open_plain(path)?;
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let mut head = vec![0; len.min(4096) as usize];
    file.read_exact_at(&mut head, 0).map_err(io)?;

    let mut source = if is_kernel(&head) {
        let kernel = read_host_file(path)?;
        GuestSource {
            kernel,
            initrd: None,
            cmdline: "console=ttyS0".to_owned(),
            found_by: "the file is a kernel itself".to_owned(),
            disk: None,
        }
    } else {
        volume::refuse_other_formats(path, &head)?;
        let found = find::find(path, &file, len, overrides.kernel.is_none())?;
        let real = std::fs::canonicalize(path).map_err(io)?;
        let read_only = std::fs::OpenOptions::new().write(true).open(&real).is_err();
        GuestSource { disk: Some(GuestDisk { path: real, len, read_only }), ..found }
    };
    apply_overrides(&mut source, overrides)?;
    Ok(source)
}

fn apply_overrides(source: &mut GuestSource, overrides: &Overrides) -> Result<(), ImageError> {
    if let Some(path) = &overrides.kernel {
        source.kernel = read_host_file(path)?;
        if !is_kernel(&source.kernel) {
            return Err(ImageError::NotAKernel { path: path.clone() });
        }
        // An initrd holds the modules of one kernel: the image's own is of no use to another.
        source.initrd = None;
        source.found_by = format!("--kernel {}", path.display());
    }
    if let Some(path) = &overrides.initrd {
        source.initrd = Some(read_host_file(path)?);
        source.found_by.push_str(", --initrd");
    }
    if let Some(append) = &overrides.append {
        source.cmdline.clone_from(append);
    }
    Ok(())
}

/// Opens a file for reading that has to be a plain file or block device with at least one byte.
fn open_plain(path: &Path) -> Result<(File, u64), ImageError> {
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::FileTypeExt;
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImageError::NotFound { path: path.to_owned() },
        _ => ImageError::Io { path: path.to_owned(), source },
    };
    let meta = std::fs::metadata(path).map_err(io)?;
    if meta.is_dir() {
        return Err(ImageError::IsDirectory { path: path.to_owned() });
    }
    if !meta.is_file() && !meta.file_type().is_block_device() {
        return Err(ImageError::NotAFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(io)?;
    let len = file.seek(SeekFrom::End(0)).map_err(io)?;
    if len == 0 {
        return Err(ImageError::Empty { path: path.to_owned() });
    }
    Ok((file, len))
}

fn read_host_file(path: &Path) -> Result<Vec<u8>, ImageError> {
    let (file, len) = open_plain(path)?;
    if len > MAX_BOOT_FILE {
        return Err(ImageError::NotAKernel { path: path.to_owned() });
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// True for the first bytes of a bzImage or of a 64-bit x86 ELF executable.
pub(crate) fn is_kernel(head: &[u8]) -> bool {
    let bzimage =
        head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && head.get(0x202..0x206) == Some(b"HdrS");
    // e_ident: magic, 64-bit; e_machine 62 is x86-64.
    let elf = head.get(..5) == Some(b"\x7fELF\x02") && head.get(18..20) == Some(&[62, 0]);
    bzimage || elf
}
