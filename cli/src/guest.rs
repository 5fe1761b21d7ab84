//! From what the user named to a machine that is ready to run.

use crate::args::GuestArgs;
use crate::failure::{OrWrongUse, wrong_use};
use anyhow::Context as _;
use ft_pair_machine::boot::{self, BootImage};
use ft_pair_machine::image::{self, GuestSource, Overrides};
use ft_pair_machine::{BlockDevice, Machine, MachineConfig, MemoryDisk};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Which guest, as the user said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Choice {
    /// The image, or a kernel.
    pub image: PathBuf,
    /// A kernel on the host.
    pub kernel: Option<PathBuf>,
    /// An initrd on the host.
    pub initrd: Option<PathBuf>,
    /// The kernel command line.
    pub append: Option<String>,
}

impl Choice {
    /// From the command line.
    pub fn new(args: &GuestArgs) -> Self {
        Self {
            image: args.image.clone(),
            kernel: args.kernel.clone(),
            initrd: args.initrd.clone(),
            append: args.append.clone(),
        }
    }

    /// Finds what boots.
    pub fn open(&self) -> Result<GuestSource, image::ImageError> {
        let overrides = Overrides {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            append: self.append.clone(),
        };
        image::open_guest(&self.image, &overrides)
    }

    /// Finds what boots and checks that it can be run with so much memory; errors are wrong use.
    pub fn check(&self, memory: u64) -> anyhow::Result<GuestSource> {
        let source = self.open().or_wrong_use()?;
        let initrd = source.initrd.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let needed = boot::memory_needed(&source.kernel, initrd);
        let needed = needed
            .with_context(|| format!("cannot boot {}", self.image.display()))
            .or_wrong_use()?;
        if needed > memory {
            return Err(wrong_use(format!(
                "--mem {} is too little: kernel and initrd alone need {}; use at least --mem {}M",
                crate::size::show(memory),
                crate::size::show(needed),
                (needed.div_ceil(1 << 20) + 32).next_power_of_two(),
            )));
        }
        if let Some(disk) = &source.disk {
            check_disk(&disk.path, disk.read_only)?;
        }
        Ok(source)
    }
}

fn check_disk(path: &Path, read_only: bool) -> anyhow::Result<()> {
    let shown = path.display();
    if read_only {
        return Err(wrong_use(format!(
            "{shown} is read-only, and the guest writes to its disk: make it writable, or use a copy"
        )));
    }
    let file = std::fs::metadata(path).with_context(|| format!("{shown}")).or_wrong_use()?;
    if !file.is_file() {
        return Err(wrong_use(format!(
            "{shown} is a block device; only image files can be used: copy it into one"
        )));
    }
    Ok(())
}

/// A configuration with the host's time and fresh entropy.
pub fn new_config(memory: u64) -> anyhow::Result<MachineConfig> {
    use std::io::Read;
    let mut entropy_seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut entropy_seed))
        .context("cannot read /dev/urandom")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64);
    Ok(MachineConfig { memory, wall_clock: now, entropy_seed, ..MachineConfig::default() })
}

/// The disk of a guest that has none.
pub fn no_disk() -> Box<dyn BlockDevice> {
    Box::new(MemoryDisk::new(Vec::new()))
}

/// A machine with its kernel loaded, ready for its first instruction.
pub fn boot(
    config: &MachineConfig,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
    disk: Box<dyn BlockDevice>,
) -> anyhow::Result<Machine> {
    let mut machine = Machine::new(config, disk)?;
    let image = BootImage { kernel, initrd, cmdline, rsdp: machine.rsdp() };
    let registers = boot::load(machine.ram(), &image)?;
    machine.change_cpu(|state| registers.apply(state));
    Ok(machine)
}
