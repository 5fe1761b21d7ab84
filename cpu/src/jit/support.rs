//! What the host has to offer for translated code.
#![allow(unsafe_code)]
// Reason: CPUID and a few instructions are executed to see what this host does. Obligation: they touch
// nothing but the registers named.

use std::arch::asm;
use std::io;

/// Why this host cannot run translated code.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// An instruction that the translator uses is missing.
    #[error("this host's CPU has no {0}")]
    Feature(&'static str),
    /// The host leaves another AF than the model after AND, OR, XOR or TEST.
    #[error("this host's CPU does not clear AF after logic operations")]
    AuxiliaryCarry,
    /// No executable memory.
    #[error("the system refuses executable memory: {0}")]
    Memory(#[source] io::Error),
}

/// Checks the features that translated code uses without asking.
pub fn check() -> Result<(), Unsupported> {
    let features = [
        (is_x86_feature_detected!("bmi2"), "BMI2"),
        (is_x86_feature_detected!("sse4.2"), "SSE4.2"),
        (is_x86_feature_detected!("popcnt"), "POPCNT"),
        (std::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 != 0, "LAHF in 64-bit mode"),
    ];
    if let Some((_, name)) = features.iter().find(|(present, _)| !present) {
        return Err(Unsupported::Feature(name));
    }
    if logic_clears_auxiliary_carry() { Ok(()) } else { Err(Unsupported::AuxiliaryCarry) }
}

/// The manuals leave AF open after the logic operations, the model clears it. Every known host does; the
/// translator lets the host's flags stand, so it has to be sure.
fn logic_clears_auxiliary_carry() -> bool {
    const AF: u8 = 0x10;
    let mut kept = 0u8;
    for (a, b) in [(0u64, 0u64), (u64::MAX, u64::MAX), (0x0f, 0xf8), (0x1234_5678_9abc_def0, 0x11)]
    {
        let flags: u8;
        // SAFETY: arithmetic on registers; AF is set first so that keeping it would show.
        unsafe {
            asm!(
                "mov eax, 0x1000",
                "sahf",
                "mov {t}, {a}",
                "and {t}, {b}",
                "lahf",
                "mov cl, ah",
                "mov eax, 0x1000",
                "sahf",
                "mov {t}, {a}",
                "or {t}, {b}",
                "lahf",
                "or cl, ah",
                "mov eax, 0x1000",
                "sahf",
                "mov {t}, {a}",
                "xor {t}, {b}",
                "lahf",
                "or cl, ah",
                "mov eax, 0x1000",
                "sahf",
                "test {a}, {b}",
                "lahf",
                "or cl, ah",
                a = in(reg) a,
                b = in(reg) b,
                t = out(reg) _,
                out("cl") flags,
                out("eax") _,
            );
        }
        kept |= flags & AF;
    }
    kept == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_host_clears_auxiliary_carry() {
        assert!(super::logic_clears_auxiliary_carry());
    }
}
