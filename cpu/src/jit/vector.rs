//! SSE to SSE4.2 by the host's own unit, in the registers of the same number.
//!
//! Floating-point arithmetic runs under the guest's MXCSR, and only while that masks every exception
//! ([`super::Mode`]). What is not the same on every host (RCP, RSQRT, dot products, rounding in other widths)
//! is left to the interpreter, like everything that touches MMX registers.

use super::emit::Emitter;
use super::rewrite::{memory_operand, rewrite};
use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind};

/// Emits an instruction of this class; false if it is none, or a form that the interpreter has to do.
pub fn translate(e: &mut Emitter, ins: &Instruction) -> bool {
    if !e.mode.vectors() || !is_plain_vector(ins) {
        return false;
    }
    if is_arithmetic(ins.mnemonic()) {
        if !e.mode.floats() {
            return false;
        }
        e.use_mxcsr();
    }
    rewrite(e, ins, needs_alignment(ins))
}

fn is_plain_vector(ins: &Instruction) -> bool {
    let known = ins.encoding() == EncodingKind::Legacy
        && ins.cpuid_features().iter().all(|feature| {
            matches!(
                feature,
                CpuidFeature::SSE
                    | CpuidFeature::SSE2
                    | CpuidFeature::SSE3
                    | CpuidFeature::SSSE3
                    | CpuidFeature::SSE4_1
                    | CpuidFeature::SSE4_2
            )
        });
    let mut vectors = false;
    let operands = (0..ins.op_count()).all(|n| match ins.op_kind(n) {
        OpKind::Register => {
            let register = ins.op_register(n);
            vectors |= register.is_xmm();
            register.is_xmm() || register.is_gpr32() || register.is_gpr64()
        }
        OpKind::Memory | OpKind::Immediate8 => true,
        _ => false,
    });
    known && operands && vectors && !is_left_out(ins.mnemonic())
}

/// Instructions with implied operands, results that differ between hosts, or rounding of their own.
const fn is_left_out(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Dpps
            | M::Dppd
            | M::Pblendvb
            | M::Blendvps
            | M::Blendvpd
            | M::Pcmpestri
            | M::Pcmpestrm
            | M::Pcmpistri
            | M::Pcmpistrm
            | M::Pcmpestri64
            | M::Pcmpestrm64
            | M::Maskmovdqu
            | M::Mpsadbw
            | M::Extractps
            | M::Roundps
            | M::Roundpd
            | M::Roundss
            | M::Roundsd
            | M::Ptest
            | M::Crc32
            | M::Popcnt
            | M::Cvtpi2ps
            | M::Cvtpi2pd
    )
}

/// Instructions that read MXCSR's rounding or set its flags.
const fn is_arithmetic(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Addps
            | M::Addpd
            | M::Addss
            | M::Addsd
            | M::Subps
            | M::Subpd
            | M::Subss
            | M::Subsd
            | M::Mulps
            | M::Mulpd
            | M::Mulss
            | M::Mulsd
            | M::Divps
            | M::Divpd
            | M::Divss
            | M::Divsd
            | M::Minps
            | M::Minpd
            | M::Minss
            | M::Minsd
            | M::Maxps
            | M::Maxpd
            | M::Maxss
            | M::Maxsd
            | M::Sqrtps
            | M::Sqrtpd
            | M::Sqrtss
            | M::Sqrtsd
            | M::Cmpps
            | M::Cmppd
            | M::Cmpss
            | M::Cmpsd
            | M::Comiss
            | M::Comisd
            | M::Ucomiss
            | M::Ucomisd
            | M::Cvtps2pd
            | M::Cvtpd2ps
            | M::Cvtss2sd
            | M::Cvtsd2ss
            | M::Cvtdq2ps
            | M::Cvtps2dq
            | M::Cvttps2dq
            | M::Cvtpd2dq
            | M::Cvttpd2dq
            | M::Cvtdq2pd
            | M::Cvtsi2ss
            | M::Cvtsi2sd
            | M::Cvtss2si
            | M::Cvtsd2si
            | M::Cvttss2si
            | M::Cvttsd2si
            | M::Haddps
            | M::Haddpd
            | M::Hsubps
            | M::Hsubpd
            | M::Addsubps
            | M::Addsubpd
    )
}

/// A memory operand of 16 bytes has to be aligned, but for the moves that say otherwise.
fn needs_alignment(ins: &Instruction) -> bool {
    memory_operand(ins).is_some()
        && ins.memory_size().size() == 16
        && !matches!(
            ins.mnemonic(),
            Mnemonic::Movdqu | Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Lddqu
        )
}
