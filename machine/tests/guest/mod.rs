//! The stock Debian guest on a machine of a test's own. Needs the image that `make image` makes.

use ft_pair_machine::disk::OverlayDisk;
use ft_pair_machine::image::{Overrides, open_guest};
use ft_pair_machine::{Machine, MachineConfig, boot};
use std::path::{Path, PathBuf};

/// The image's command line, without a workload.
pub const APPEND: &str = "root=/dev/vda rootfstype=ext4 rw console=ttyS0";

/// A private copy of the image.
pub fn image(name: &str) -> (PathBuf, tempfile::TempDir) {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../var/images/base.img");
    assert!(image.exists(), "{} is missing: run `make image`", image.display());
    let dir = tempfile::Builder::new().prefix(name).tempdir().unwrap();
    let copy = dir.path().join("disk.img");
    ft_pair_machine::disk::make_copy(&image, &copy, &mut |_, _| ()).unwrap();
    (copy, dir)
}

/// A machine with the image's kernel loaded.
pub fn machine(image: &Path, append: &str, disk: OverlayDisk) -> Machine {
    let overrides = Overrides { append: Some(append.to_owned()), ..Overrides::default() };
    let guest = open_guest(image, &overrides).unwrap();
    let config = MachineConfig { memory: 256 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config, Box::new(disk)).unwrap();
    let loaded = boot::BootImage {
        kernel: &guest.kernel,
        initrd: guest.initrd.as_deref(),
        cmdline: &guest.cmdline,
        rsdp: machine.rsdp(),
    };
    let registers = boot::load(machine.ram(), &loaded).unwrap();
    machine.change_cpu(|cpu| registers.apply(cpu));
    machine
}
