//! CPUID: one fixed model.
//!
//! A GenuineIntel of family 6, model 0x2c, stepping 2 (the generation that x86-64-v2 describes, and one
//! that Linux and glibc know as fast with unaligned accesses and REP MOVSB), 40 physical and 48 virtual
//! address bits, TSC at 1 GHz from a 25 MHz crystal. What the interpreter lacks (XSAVE, AVX, AES,
//! RDRAND, MONITOR, PCID, BMI, ...) is hidden, and code that uses it anyway gets #UD. An interpreter does
//! not speculate: IA32_ARCH_CAPABILITIES says so, and the guest needs no mitigations.

use crate::mmu::PHYSICAL_BITS;

/// True if this host's processor is of the kind whose results the model takes where the manuals leave them
/// open (AMD): only there do the tests compare with the host in full.
pub fn model_follows_this_host() -> bool {
    // "Auth" of "AuthenticAMD".
    std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Auth")
}

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x16;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Family 6, model 0x2c, stepping 2.
const SIGNATURE: u32 = 0x0002_06c2;
const BRAND: &[u8; 48] =
    b"ft-pair software CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Ticks of the TSC in a second.
pub const TSC_HZ: u32 = 1_000_000_000;
const CRYSTAL_HZ: u32 = 25_000_000;

const fn bits(list: &[u32]) -> u32 {
    let mut word = 0;
    let mut i = 0;
    while i < list.len() {
        word |= 1 << list[i];
        i += 1;
    }
    word
}

/// SSE3, SSSE3, CX16, SSE4.1, SSE4.2, x2APIC, POPCNT, TSC-deadline, hypervisor.
const LEAF1_ECX: u32 = bits(&[0, 9, 13, 19, 20, 21, 23, 24, 31]);
/// FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH, MMX, FXSR,
/// SSE, SSE2, self-snoop.
const LEAF1_EDX: u32 =
    bits(&[0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27]);
/// FSGSBASE, TSC_ADJUST, SMEP, ERMS, SMAP.
const LEAF7_EBX: u32 = bits(&[0, 1, 7, 9, 20]);
/// FSRM, IBRS and IBPB, ARCH_CAPABILITIES.
const LEAF7_EDX: u32 = bits(&[4, 26, 29]);
/// SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
const EXTENDED_EDX: u32 = bits(&[11, 20, 26, 27, 29]);

fn word(text: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]])
}

/// Leaf 4: a cache of `ways` x `sets` lines of 64 bytes, used by one logical CPU.
const fn cache(kind: u32, level: u32, ways: u32, sets: u32) -> [u32; 4] {
    const SELF_INITIALISING: u32 = 1 << 8;
    [kind | level << 5 | SELF_INITIALISING, (ways - 1) << 22 | 63, sets - 1, 0]
}

/// EAX, EBX, ECX, EDX of a leaf and subleaf. Leaves that do not exist read as zero.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    const VENDOR: &[u8; 12] = b"GenuineIntel";
    const HYPERVISOR: &[u8; 12] = b"ftpairftpair";
    match (leaf, subleaf) {
        (0, _) => [MAX_BASIC, word(VENDOR, 0), word(VENDOR, 8), word(VENDOR, 4)],
        // EBX: CLFLUSH line of 8 quadwords, one logical CPU, APIC ID 0.
        (1, _) => [SIGNATURE, 1 << 16 | 8 << 8, LEAF1_ECX, LEAF1_EDX],
        // Caches are in leaf 4; prefetching by 64 bytes.
        (2, _) => [0x00fe_ff01, 0xf0, 0, 0],
        (4, 0) => cache(1, 1, 8, 64),
        (4, 1) => cache(2, 1, 8, 64),
        (4, 2) => cache(3, 2, 8, 512),
        (4, 3) => cache(3, 3, 16, 32768),
        // ARAT: the APIC timer never stops.
        (6, _) => [1 << 2, 0, 0, 0],
        (7, 0) => [0, LEAF7_EBX, 0, LEAF7_EDX],
        // One thread in one core, x2APIC ID 0.
        (0xb, 0) => [0, 1, 1 << 8, 0],
        (0xb, 1) => [0, 1, 2 << 8 | 1, 0],
        (0xb, n) => [0, 0, n & 0xff, 0],
        (0x15, _) => [1, TSC_HZ / CRYSTAL_HZ, CRYSTAL_HZ, 0],
        (0x16, _) => [TSC_HZ / 1_000_000, TSC_HZ / 1_000_000, 100, 0],
        (0x4000_0000, _) => {
            [0x4000_0000, word(HYPERVISOR, 0), word(HYPERVISOR, 4), word(HYPERVISOR, 8)]
        }
        (0x8000_0000, _) => [MAX_EXTENDED, 0, 0, 0],
        // ECX: LAHF and SAHF in 64-bit mode.
        (0x8000_0001, _) => [0, 0, 1, EXTENDED_EDX],
        (0x8000_0002..=0x8000_0004, _) => {
            let at = (leaf - 0x8000_0002) as usize * 16;
            [word(BRAND, at), word(BRAND, at + 4), word(BRAND, at + 8), word(BRAND, at + 12)]
        }
        // L2: 256 KiB, 8-way, lines of 64 bytes.
        (0x8000_0006, _) => [0, 0, 256 << 16 | 6 << 12 | 64, 0],
        // Invariant TSC.
        (0x8000_0007, _) => [0, 0, 0, 1 << 8],
        (0x8000_0008, _) => [PHYSICAL_BITS | 48 << 8, 0, 0, 0],
        _ => [0; 4],
    }
}
