//! The whole machine with small guests of a few instructions.

use super::*;
use crate::block_device::MemoryDisk;
use crate::devices::lapic::LAPIC_BASE;

/// Page tables: the first GiB and the last below 4 GiB, identity mapped with 2 MiB and 1 GiB pages.
fn boot(machine: &mut Machine, code: &[u8]) {
    let (pml4, pdpt) = (0x1000u64, 0x2000u64);
    let ram = Arc::clone(machine.ram());
    assert!(ram.write(pml4, &(pdpt | 3).to_le_bytes()));
    assert!(ram.write(pdpt, &0x83u64.to_le_bytes()));
    assert!(ram.write(pdpt + 24, &(0xc000_0000u64 | 0x93).to_le_bytes()));
    // IDT at 3000h: vector 40h at 6000h. GDT at 4000h.
    let gate = 0x6000u64 | 8 << 16 | 0x8e00 << 32;
    assert!(ram.write(0x3000 + 0x40 * 16, &gate.to_le_bytes()));
    assert!(ram.write(0x4008, &0x00af_9b00_0000_ffffu64.to_le_bytes()));
    assert!(ram.write(0x4010, &0x00cf_9300_0000_ffffu64.to_le_bytes()));
    assert!(ram.write(0x5000, code));
    machine.change_cpu(|cpu| {
        cpu.enter_long_mode(pml4, 0x5000, 8, 16);
        cpu.idtr = ft_pair_cpu::state::Table { base: 0x3000, limit: 0xfff };
        cpu.gdtr = ft_pair_cpu::state::Table { base: 0x4000, limit: 0x17 };
        cpu.regs[ft_pair_cpu::state::RSP] = 0x9000;
    });
}

fn machine(code: &[u8]) -> Machine {
    let config = MachineConfig { memory: MEMORY_MIN, ..Default::default() };
    let mut machine = Machine::new(&config, Box::new(MemoryDisk::new(vec![0; 4096]))).unwrap();
    boot(&mut machine, code);
    machine
}

fn apic(machine: &mut Machine, register: u64, value: u64) {
    machine.devices.mmio_write(0, LAPIC_BASE + register, 4, value);
}

/// Vector 40h writes an X to the console and ends the interrupt: mov dx,3f8h; mov al,'X'; out dx,al;
/// mov edi,fee000b0h; mov dword [rdi],0; iretq.
const HANDLER: &[u8] =
    b"\x66\xba\xf8\x03\xb0X\xee\xbf\xb0\x00\xe0\xfe\xc7\x07\x00\x00\x00\x00\x48\xcf";
const HANDLER_LEN: u64 = 6;

fn with_timer(code: &[u8], deadline: u64) -> Machine {
    let mut machine = machine(code);
    assert!(machine.ram().write(0x6000, HANDLER));
    apic(&mut machine, 0xf0, 0x1ff);
    apic(&mut machine, 0x320, 2 << 17 | 0x40);
    assert!(machine.devices.msr_write(0, 0x6e0, deadline));
    machine
}

#[test]
fn a_limit_is_exact() {
    let mut machine = machine(b"\xeb\xfe");
    assert!(matches!(machine.run(Position::at(1234)), Stop::Limit));
    assert_eq!((machine.position(), machine.time_ns()), (Position::at(1234), 12_340));
}

#[test]
fn a_timer_fires_at_its_exact_place() {
    // sti; jmp $. 5001 ns lie between instructions 500 and 501.
    for slices in [1, 7, 100_000] {
        let mut machine = with_timer(b"\xfb\xeb\xfe", 5001);
        let mut at = 0;
        while at < 501 {
            at = (at + slices).min(501);
            assert!(matches!(machine.run(Position::at(at)), Stop::Limit));
            assert!(machine.take_outputs().is_empty());
        }
        assert!(machine.devices.interrupt_pending() && machine.cpu().rip() == 0x5001);
        assert!(matches!(machine.run(Position::at(502)), Stop::Limit));
        assert_eq!(machine.cpu().rip(), 0x6000, "the delivery counts as one");
        assert!(matches!(machine.run(Position::at(502 + HANDLER_LEN)), Stop::Limit));
        let outputs = machine.take_outputs();
        assert_eq!((outputs[0].position, &outputs[0].bytes), (Position::at(504), &b"X".to_vec()));
        assert_eq!(machine.cpu().rip(), 0x5001);
    }
}

#[test]
fn the_place_of_a_timer_armed_on_the_way_is_exact() {
    // mov ecx,6e0h; xor edx,edx; mov eax,2000; wrmsr; sti; jmp $
    let code = b"\xb9\xe0\x06\x00\x00\x31\xd2\xb8\xd0\x07\x00\x00\x0f\x30\xfb\xeb\xfe";
    let mut machine = with_timer(code, 0);
    assert!(matches!(machine.run(Position::at(1000)), Stop::Limit));
    let outputs = machine.take_outputs();
    assert_eq!(outputs.len(), 1);
    assert_eq!(outputs[0].position, Position::at(203), "due at 200, delivered, two instructions");
}

#[test]
fn an_idle_guest_skips_to_its_deadline() {
    // sti; hlt; jmp back
    let mut machine = with_timer(b"\xfb\xf4\xeb\xfd", 1_000_000);
    let stop = machine.run(Position::at(1_000_000));
    assert!(matches!(stop, Stop::Idle { deadline: Some(1_000_000) }), "{stop:?}");
    assert_eq!(machine.position(), Position::at(2));
    machine.idle_to_deadline();
    assert_eq!((machine.position(), machine.time_ns()), (Position::at(2).after_input(), 1_000_000));
    let stop = machine.run(Position::at(1_000_000));
    assert!(matches!(stop, Stop::Idle { deadline: None }), "{stop:?}");
    assert_eq!(machine.take_outputs()[0].bytes, b"X");
    assert_eq!(machine.position().seq, 0);
}

#[test]
fn a_halt_with_interrupts_off_waits_for_nothing() {
    let mut machine = with_timer(b"\xfa\xf4", 1_000_000);
    assert!(matches!(machine.run(Position::at(50)), Stop::Idle { deadline: None }));
}

#[test]
fn inputs_happen_in_order_at_a_position() {
    let mut machine = with_timer(b"\xfb\xeb\xfe", 100_000);
    assert!(matches!(machine.run(Position::at(10)), Stop::Limit));
    machine.apply(&Input::Clock { time_ns: 200_000, rate: 5 << 32 });
    assert_eq!((machine.position().seq, machine.time_ns()), (1, 200_000));
    assert!(machine.devices.interrupt_pending(), "what an anchor makes due is done with it");
    machine.apply(&Input::Console { first: 0, bytes: b"ls\n".to_vec() });
    machine.apply(&Input::PowerButton);
    assert_eq!((machine.position().seq, machine.console_input_next()), (3, 3));
    assert!(matches!(machine.run(Position::at(20)), Stop::Limit));
    assert_eq!((machine.position(), machine.time_ns()), (Position::at(20), 200_050));
}

#[test]
fn a_triple_fault_and_a_reset_end_the_power_cycle() {
    let mut crashed = machine(b"\x0f\x0b");
    crashed.change_cpu(|cpu| cpu.idtr.limit = 0);
    assert!(matches!(crashed.run(Position::at(50)), Stop::Power(PowerEvent::Crash)));
    assert!(matches!(crashed.run(Position::at(50)), Stop::Power(PowerEvent::Crash)));
    assert_eq!(crashed.take_outputs().len(), 1);
    // mov dx,0cf9h; mov al,6; out dx,al; jmp $
    let mut reset = machine(b"\x66\xba\xf9\x0c\xb0\x06\xee\xeb\xfe");
    assert!(matches!(reset.run(Position::at(50)), Stop::Power(PowerEvent::Reboot)));
    assert_eq!(reset.position(), Position::at(3), "behind the OUT");
}

#[test]
fn a_restored_machine_goes_on_alike() {
    let code = b"\xfb\xf4\xeb\xfd";
    let mut a = with_timer(code, 1_000_000);
    assert!(matches!(a.run(Position::at(1_000)), Stop::Idle { .. }));
    let saved = MachineState::from_bytes(&a.save().to_bytes()).unwrap();
    let mut b = machine(code);
    for page in 0..a.ram().pages() {
        let gpa = a.ram().page_gpa(page);
        assert!(b.ram().write(gpa, a.ram().page(page)));
    }
    b.restore(&saved).unwrap();
    assert_eq!(b.save(), saved);
    let end = |machine: &mut Machine| {
        machine.take_dirty();
        machine.idle_to_deadline();
        assert!(matches!(machine.run(Position::at(1_000)), Stop::Idle { .. }));
        let (pages, writes) = (machine.take_dirty(), machine.take_disk_writes());
        assert!(!pages.is_empty());
        (machine.take_outputs(), machine.root_digest(&pages, &writes), pages)
    };
    assert_eq!(end(&mut a), end(&mut b));
}

#[test]
fn a_state_of_another_kind_is_refused() {
    let mut machine = machine(b"\xeb\xfe");
    let good = machine.save();
    for section in 0..good.sections.len() {
        let mut bad = good.clone();
        bad.sections[section].version += 1;
        assert!(matches!(machine.restore(&bad), Err(StateError::Version { .. })), "{section}");
        let mut bad = good.clone();
        bad.sections[section].bytes.push(0);
        assert!(matches!(machine.restore(&bad), Err(StateError::Long(1))), "{section}");
    }
    let mut bad = good.clone();
    bad.sections.pop();
    assert!(machine.restore(&bad).is_err());
    machine.restore(&good).unwrap();
}

#[test]
fn impossible_configurations_are_refused() {
    let make = |config: MachineConfig| {
        Machine::new(&config, Box::new(MemoryDisk::new(vec![0; 512]))).map(|_| ())
    };
    assert!(make(MachineConfig { memory: 4092 << 10, ..Default::default() }).is_ok());
    assert!(make(MachineConfig { memory: 4096, ..Default::default() }).is_err());
    assert!(make(MachineConfig { memory: (4 << 20) + 1, ..Default::default() }).is_err());
    assert!(make(MachineConfig { rate: 0, ..Default::default() }).is_err());
}
