//! Which host register stands for which guest register.
//!
//! RAX, RCX and RDX are free for each instruction's own needs (RCX because JRCXZ tests it, RAX and RDX because
//! LAHF, MUL and CMPXCHG use them); RBP is the frame, RSP the host's stack, R15 the fuel. The ten guest
//! registers that compiled code uses most have a host register of their own; the other six live in the frame.

use iced_x86::Register;

/// Host number of a guest register's own register.
const HOME: [Option<u8>; 16] = [
    Some(3),  // RAX in RBX, whose second byte has a name too
    Some(6),  // RCX in RSI
    Some(7),  // RDX in RDI
    Some(8),  // RBX
    Some(9),  // RSP
    Some(10), // RBP
    Some(11), // RSI
    Some(12), // RDI
    Some(13), // R8
    None,     // R9
    None,     // R10
    None,     // R11
    Some(14), // R12
    None,     // R13
    None,     // R14
    None,     // R15
];

/// Host number of RAX.
pub const RAX: u8 = 0;
/// Host number of RCX.
pub const RCX: u8 = 1;
/// Host number of RDX.
pub const RDX: u8 = 2;

/// The host register that holds a guest register, if it has one of its own.
pub const fn home(guest: u8) -> Option<u8> {
    HOME[guest as usize]
}

/// Guest registers with their homes: (guest, host).
pub fn homes() -> impl Iterator<Item = (u8, u8)> {
    HOME.iter().enumerate().filter_map(|(guest, host)| host.map(|host| (guest as u8, host)))
}

/// A general register by its host number and width in bytes.
///
/// # Panics
/// For widths that no general register has.
pub fn gpr(host: u8, size: usize) -> Register {
    use Register as R;
    const B: [Register; 16] = [
        R::AL,
        R::CL,
        R::DL,
        R::BL,
        R::SPL,
        R::BPL,
        R::SIL,
        R::DIL,
        R::R8L,
        R::R9L,
        R::R10L,
        R::R11L,
        R::R12L,
        R::R13L,
        R::R14L,
        R::R15L,
    ];
    match size {
        1 => B[usize::from(host)],
        2 => R::AX + u32::from(host),
        4 => R::EAX + u32::from(host),
        8 => R::RAX + u32::from(host),
        _ => unreachable!("general registers have 1, 2, 4 or 8 bytes"),
    }
}

/// True for AH, CH, DH and BH, which cannot stand beside registers that need a REX prefix.
pub fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Guest number of a general register of any width but the high bytes.
pub fn guest_number(register: Register) -> u8 {
    register.full_register().number() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_named_by_number_and_width() {
        assert_eq!(gpr(9, 8), Register::R9);
        assert_eq!(gpr(4, 1), Register::SPL);
        assert_eq!(gpr(3, 4), Register::EBX);
        assert_eq!(guest_number(Register::R12D), 12);
        assert_eq!(guest_number(Register::SIL), 6);
    }

    #[test]
    fn homes_are_distinct_and_leave_the_reserved_registers() {
        let mut taken = vec![0, 1, 2, 4, 5, 15];
        for (_, host) in homes() {
            assert!(!taken.contains(&host));
            taken.push(host);
        }
        assert_eq!(taken.len(), 16);
    }
}
