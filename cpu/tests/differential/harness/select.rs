//! Which instructions take part, and in which class they count.

use iced_x86::{Code, CpuidFeature as F, EncodingKind, FlowControl, Mnemonic as M};

/// Classes of instructions; coverage is asserted for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Integer,
    Branch,
    Stack,
    String,
    X87,
    Mmx,
    Sse,
    Sse2,
    Sse3,
    Sse4,
}

impl Class {
    /// Each class with its share of the cases, in percent.
    pub const SHARES: [(Self, u32); 10] = [
        (Self::Integer, 28),
        (Self::Branch, 5),
        (Self::Stack, 5),
        (Self::String, 7),
        (Self::X87, 17),
        (Self::Mmx, 7),
        (Self::Sse, 8),
        (Self::Sse2, 12),
        (Self::Sse3, 5),
        (Self::Sse4, 6),
    ];
}

/// What our CPUID offers and user mode can use.
const FEATURES: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::X64,
    F::FPU,
    F::FPU287,
    F::FPU387,
    F::CMOV,
    F::CX8,
    F::CMPXCHG16B,
    F::MMX,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::POPCNT,
    F::FXSR,
    F::MULTIBYTENOP,
    F::PAUSE,
    F::CLFSH,
];

/// Why an instruction that fits otherwise does not take part.
fn excluded(code: Code) -> Option<&'static str> {
    Some(match code.mnemonic() {
        M::Int | M::Int1 | M::Int3 | M::Into => "software interrupt: the kernel's handler differs",
        M::Syscall | M::Sysenter | M::Sysexit | M::Sysret => "enters the host's kernel",
        M::Lar | M::Lsl | M::Verr | M::Verw => "reads the host's descriptor tables",
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => "system state, hidden by UMIP",
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => "loads from the host's descriptor tables",
        M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpmc => "the model's identity and clocks",
        M::Iret | M::Iretd | M::Iretq | M::Retf => "far return through the host's descriptors",
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss => {
            "approximation; the model defines the bits"
        }
        M::F2xm1 | M::Fcos | M::Fpatan | M::Fptan | M::Fsin | M::Fsincos => {
            "transcendental; the model defines the last bits"
        }
        M::Fyl2x | M::Fyl2xp1 => "transcendental; the model defines the last bits",
        M::Ud0 | M::Ud1 => "whether a ModRM byte is fetched differs between vendors",
        M::Jmpe | M::Reservednop => "not of the 64-bit architecture, or left open by it",
        M::Feni | M::Fdisi | M::Fsetpm | M::Frstpm | M::Fnsetpm | M::Fneni | M::Fndisi => {
            "historical; a NOP or #UD by the model"
        }
        M::Fstpnce => "undocumented; what it does to empty registers is the model's",
        _ => match code {
            Code::Mov_Sreg_rm16
            | Code::Mov_Sreg_r32m16
            | Code::Mov_Sreg_r64m16
            | Code::Popw_FS
            | Code::Popq_FS
            | Code::Popw_GS
            | Code::Popq_GS => "loads from the host's descriptor tables",
            Code::Movsxd_r16_rm16 => "AMD reads 32 bits of memory, Intel 16",
            Code::Bswap_r16 => "the result is undefined (SDM volume 2, BSWAP)",
            _ => return None,
        },
    })
}

/// The class of an instruction that takes part.
pub fn class(code: Code) -> Option<Class> {
    let info = code.op_code();
    let offered = code.cpuid_features().iter().all(|f| FEATURES.contains(f));
    let plain = info.is_instruction()
        && info.encoding() == EncodingKind::Legacy
        && info.mode64()
        && info.intel_decoder64()
        && info.cpl3()
        && !info.fwait()
        && !info.is_privileged()
        && !info.is_input_output()
        && !info.may_require_cpl0()
        && !info.must_be_cpl0();
    let far = matches!(code.op_code().op0_kind(), iced_x86::OpCodeOperandKind::farbr2_2)
        || code.is_jmp_far()
        || code.is_jmp_far_indirect()
        || code.is_call_far()
        || code.is_call_far_indirect();
    if !plain || !offered || far || excluded(code).is_some() {
        return None;
    }
    let has = |list: &[F]| code.cpuid_features().iter().any(|f| list.contains(f));
    Some(if has(&[F::FPU, F::FPU287, F::FPU387]) {
        Class::X87
    } else if has(&[F::MMX]) {
        Class::Mmx
    } else if has(&[F::SSE4_1, F::SSE4_2]) {
        Class::Sse4
    } else if has(&[F::SSE3, F::SSSE3]) {
        Class::Sse3
    } else if has(&[F::SSE2]) {
        Class::Sse2
    } else if has(&[F::SSE, F::FXSR]) {
        Class::Sse
    } else if is_string(code) {
        Class::String
    } else if code.flow_control() != FlowControl::Next {
        Class::Branch
    } else if info.is_stack_instruction() || code.mnemonic() == M::Leave {
        Class::Stack
    } else {
        Class::Integer
    })
}

/// MOVS, STOS, LODS, CMPS, SCAS.
pub fn is_string(code: Code) -> bool {
    use Code as C;
    matches!(
        code,
        C::Movsb_m8_m8
            | C::Movsw_m16_m16
            | C::Movsd_m32_m32
            | C::Movsq_m64_m64
            | C::Stosb_m8_AL
            | C::Stosw_m16_AX
            | C::Stosd_m32_EAX
            | C::Stosq_m64_RAX
            | C::Lodsb_AL_m8
            | C::Lodsw_AX_m16
            | C::Lodsd_EAX_m32
            | C::Lodsq_RAX_m64
            | C::Cmpsb_m8_m8
            | C::Cmpsw_m16_m16
            | C::Cmpsd_m32_m32
            | C::Cmpsq_m64_m64
            | C::Scasb_AL_m8
            | C::Scasw_AX_m16
            | C::Scasd_EAX_m32
            | C::Scasq_RAX_m64
    )
}

/// Every instruction that takes part, by class.
pub fn instructions() -> Vec<(Class, Vec<Code>)> {
    let host = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    assert!(host, "the host has to offer x86-64-v2 itself to serve as the reference");
    let all = |class_wanted| {
        Code::values().filter(|code| class(*code) == Some(class_wanted)).collect::<Vec<_>>()
    };
    Class::SHARES.iter().map(|(class, _)| (*class, all(*class))).collect()
}
