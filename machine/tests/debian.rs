//! The stock Debian kernel and userland on the machine: it boots, and how a host slices its execution
//! leaves no trace in it.

mod guest;

use ft_pair_machine::disk::OverlayDisk;
use ft_pair_machine::{Machine, MachineState, Stop};
use ft_pair_shared::{Input, Position, PowerEvent};
use guest::APPEND;

/// A machine with the kernel loaded, on a private copy of the image.
fn machine(name: &str, append: &str) -> (Machine, tempfile::TempDir) {
    let (image, dir) = guest::image(name);
    let disk = OverlayDisk::open(&image).unwrap();
    disk.control().set_unprotected(true);
    (guest::machine(&image, append, disk), dir)
}

/// Runs to a retired count in slices of varying length; gives the console's bytes.
fn run_to(machine: &mut Machine, end: u64, mut slice: impl FnMut() -> u64) -> Vec<u8> {
    let mut console = Vec::new();
    while machine.position().retired < end {
        let to = (machine.position().retired + slice()).min(end);
        match machine.run(Position::at(to)) {
            Stop::Limit => {}
            Stop::Idle { deadline: Some(_) } => machine.idle_to_deadline(),
            other => panic!("{other:?} at {}", machine.position()),
        }
        for output in machine.take_outputs() {
            console.extend(output.bytes);
        }
    }
    console
}

#[test]
fn slicing_leaves_no_trace() {
    let (mut a, _a) = machine("slices-a", APPEND);
    let (mut b, _b) = machine("slices-b", APPEND);
    let mut seed = 1u64;
    for part in 1..=8 {
        let end = part * 50_000_000;
        let out_a = run_to(&mut a, end, || 1_000_000);
        let out_b = run_to(&mut b, end, || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % 20_000 + 1
        });
        assert!(out_a == out_b, "the console differs before {end} instructions");
        let (dirty_a, dirty_b) = (a.take_dirty(), b.take_dirty());
        assert!(dirty_a == dirty_b, "other pages are dirty at {end} instructions");
        let (disk_a, disk_b) = (a.take_disk_writes(), b.take_disk_writes());
        let digests = (a.root_digest(&dirty_a, &disk_a), b.root_digest(&dirty_b, &disk_b));
        assert_eq!(digests.0, digests.1, "the machines differ at {end} instructions");
    }
}

#[test]
fn boots_to_a_shell_takes_input_survives_a_snapshot_and_powers_off() {
    let (mut machine, _dir) = machine("boot", APPEND);
    let mut console = String::new();
    let mut typed = 0u64;
    let mut snapshots = 0;
    let power = loop {
        assert!(machine.position().retired < 6_000_000_000, "no power-off:\n{console}");
        let to = Position::at(machine.position().retired + 5_000_000);
        match machine.run(to) {
            Stop::Limit => {}
            Stop::Idle { deadline: Some(_) } => machine.idle_to_deadline(),
            Stop::Power(event) => break event,
            other => panic!("{other:?} at {}:\n{console}", machine.position()),
        }
        for output in machine.take_outputs() {
            console.push_str(&String::from_utf8_lossy(&output.bytes));
        }
        if typed == 0 && console.contains("~# ") {
            let bytes = b"echo $((6*7)) is the answer; poweroff\n".to_vec();
            typed = bytes.len() as u64;
            machine.apply(&Input::Console { first: 0, bytes });
        }
        if snapshots < 20 {
            // Restoring what was just saved must change nothing.
            snapshots += 1;
            let state = MachineState::from_bytes(&machine.save().to_bytes()).unwrap();
            machine.restore(&state).unwrap();
            assert!(machine.state() == state);
        }
    };
    assert_eq!(power, PowerEvent::Off);
    assert!(console.contains("42 is the answer"), "{console}");
    assert!(
        machine.undefined_opcodes().keys().all(|name| name.starts_with("rdmsr")
            || name.starts_with("wrmsr")
            || name.starts_with("Ud")),
        "unsupported instructions: {:?}",
        machine.undefined_opcodes()
    );
}
