//! Boots an image twice in one process, interpreted and translated, and stops at the first difference.
//!
//! `cargo run --release -p ft-pair-machine --example lockstep -- IMAGE [APPEND] [STEP] [FROM] [MILLIONS]`:
//! compares every STEP instructions (default 10000) from FROM on, until so many million have retired or the
//! guest powers off. A difference that a large step has found is looked at again with a small one, from
//! a little before it.

use ft_pair_cpu::Engine;
use ft_pair_machine::disk::OverlayDisk;
use ft_pair_machine::image::{Overrides, open_guest};
use ft_pair_machine::lockstep::Lockstep;
use ft_pair_machine::{Machine, MachineConfig, Stop, boot};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

fn machine(image: &Path, append: Option<String>, engine: Engine) -> Result<Machine, Failure> {
    let guest = open_guest(image, &Overrides { append, ..Overrides::default() })?;
    let copy = tempfile::NamedTempFile::new()?;
    ft_pair_machine::disk::make_copy(image, copy.path(), &mut |_, _| ())?;
    let disk = OverlayDisk::open(copy.path())?;
    disk.control().set_unprotected(true);
    let config = MachineConfig { memory: 256 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config, Box::new(disk))?;
    let loaded = boot::BootImage {
        kernel: &guest.kernel,
        initrd: guest.initrd.as_deref(),
        cmdline: &guest.cmdline,
        rsdp: machine.rsdp(),
    };
    let registers = boot::load(machine.ram(), &loaded)?;
    machine.change_cpu(|cpu| registers.apply(cpu));
    machine.set_engine(engine)?;
    Ok(machine)
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let image = args.next().ok_or("usage: lockstep IMAGE [APPEND] [STEP] [FROM] [MILLIONS]")?;
    let append = args.next().filter(|append| !append.is_empty());
    let mut number = |default| args.next().map_or(Ok(default), |n| n.parse::<u64>());
    let (step, from, end) =
        (number(10_000)?, number(0)?, number(u64::MAX / 1_000_000)? * 1_000_000);
    let image = Path::new(&image);
    let mut pair = Lockstep::new(
        machine(image, append.clone(), Engine::Interpreter)?,
        machine(image, append, Engine::Translator)?,
    );
    let begin = Instant::now();
    let mut out = std::io::stdout();
    while pair.position().retired < end {
        let left = from.saturating_sub(pair.position().retired);
        let stop = pair.step(if left > 0 { left.min(1_000_000) } else { step })?;
        for output in pair.take_outputs() {
            out.write_all(&output.bytes)?;
        }
        out.flush()?;
        match stop {
            Stop::Limit => {}
            Stop::Idle { deadline: Some(_) } => pair.idle_to_deadline(),
            other => {
                eprintln!("\n{other:?}");
                break;
            }
        }
    }
    eprintln!(
        "\nthe same up to {}, {:.1} s; {:?}",
        pair.position(),
        begin.elapsed().as_secs_f64(),
        pair.second().translator_statistics()
    );
    Ok(())
}
