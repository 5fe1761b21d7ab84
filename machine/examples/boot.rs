//! Boots an image without a pair, as fast as it goes, and prints the console: for work on CPU and devices.
//!
//! `cargo run --release -p ft-pair-machine --example boot -- IMAGE [APPEND] [MILLION_INSTRUCTIONS] [interp]`

use ft_pair_cpu::Engine;
use ft_pair_machine::disk::OverlayDisk;
use ft_pair_machine::image::{Overrides, open_guest};
use ft_pair_machine::{BlockDevice, Machine, MachineConfig, MemoryDisk, Stop, boot};
use ft_pair_shared::Position;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let image = args.next().ok_or("usage: boot IMAGE [APPEND] [MILLION_INSTRUCTIONS]")?;
    let append = args.next().filter(|append| !append.is_empty());
    let limit = args.next().map_or(Ok(u64::MAX), |n| n.parse::<u64>().map(|n| n * 1_000_000))?;
    let interpret = args.next().is_some_and(|engine| engine == "interp");
    let guest = open_guest(Path::new(&image), &Overrides { append, ..Overrides::default() })?;
    eprintln!("{}: {}", guest.found_by, guest.cmdline);
    let disk: Box<dyn BlockDevice> = match &guest.disk {
        Some(disk) => Box::new(OverlayDisk::open(&disk.path)?),
        None => Box::new(MemoryDisk::new(vec![0; 512])),
    };
    let config = MachineConfig { memory: 512 << 20, ..MachineConfig::default() };
    let mut machine = Machine::new(&config, disk)?;
    let image = boot::BootImage {
        kernel: &guest.kernel,
        initrd: guest.initrd.as_deref(),
        cmdline: &guest.cmdline,
        rsdp: machine.rsdp(),
    };
    let registers = boot::load(machine.ram(), &image)?;
    machine.change_cpu(|cpu| registers.apply(cpu));
    machine.set_engine(if interpret { Engine::Interpreter } else { Engine::Translator })?;
    let begin = Instant::now();
    let mut out = std::io::stdout();
    loop {
        let retired = machine.position().retired;
        if retired >= limit {
            break;
        }
        let stop = machine.run(Position::at(retired + 1_000_000));
        for output in machine.take_outputs() {
            out.write_all(&output.bytes)?;
        }
        out.flush()?;
        match stop {
            Stop::Limit => {}
            Stop::Idle { deadline: Some(_) } => machine.idle_to_deadline(),
            other => {
                eprintln!("\n{other:?}");
                break;
            }
        }
    }
    let (seconds, retired) = (begin.elapsed().as_secs_f64(), machine.position().retired);
    eprintln!(
        "\n{retired} instructions in {seconds:.2} s, {:.1} million a second, guest time {:.2} s, RIP {:#x}",
        retired as f64 / seconds / 1e6,
        machine.time_ns() as f64 / 1e9,
        machine.cpu().rip(),
    );
    let (dirty, writes) = (machine.take_dirty(), machine.take_disk_writes());
    let digest = machine.root_digest(&dirty, &writes);
    eprintln!("digest {:02x?}, {:?}", &digest[..8], machine.translator_statistics());
    for (what, count) in machine.undefined_opcodes() {
        eprintln!("undefined: {what} {count} times");
    }
    Ok(())
}
