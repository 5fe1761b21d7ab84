//! SSE4.2 string comparison: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM.

use super::Forms;
use super::lanes::{to_u8, to_u16};
use crate::flags::{CF, OF, SF, ZF};
use crate::op::Op;
use crate::state::{RAX, RCX, RDX};
use crate::{Cpu, Trap};
use iced_x86::Code;

/// Where lengths come from (`EXPLICIT`: rAX and rDX, of 64 bits if `WIDE`), and where the result goes
/// (`MASK`: XMM0, else ECX).
struct Kind<const EXPLICIT: bool, const WIDE: bool, const MASK: bool>;

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Pcmpistri_xmm_xmmm128_imm8 => Kind::<false, false, false>::forms(),
        Code::Pcmpistrm_xmm_xmmm128_imm8 => Kind::<false, false, true>::forms(),
        Code::Pcmpestri_xmm_xmmm128_imm8 => Kind::<true, false, false>::forms(),
        Code::Pcmpestrm_xmm_xmmm128_imm8 => Kind::<true, false, true>::forms(),
        Code::Pcmpestri64_xmm_xmmm128_imm8 => Kind::<true, true, false>::forms(),
        Code::Pcmpestrm64_xmm_xmmm128_imm8 => Kind::<true, true, true>::forms(),
        _ => return None,
    })
}

impl<const EXPLICIT: bool, const WIDE: bool, const MASK: bool> Kind<EXPLICIT, WIDE, MASK> {
    const fn forms() -> Forms {
        Forms { rr: Self::rr, rm: Self::rm }
    }

    fn rr(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let b = cpu.xmm(op.src);
        Self::compare(cpu, op, b);
        Ok(())
    }

    fn rm(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
        cpu.sse_ready()?;
        let b = cpu.load_op(op)?;
        Self::compare(cpu, op, b);
        Ok(())
    }

    fn compare(cpu: &mut Cpu, op: &Op, b: u128) {
        let imm = op.imm as u8;
        let (a, b) = (elements(cpu.xmm(op.dst), imm), elements(b, imm));
        let count = if imm & 1 != 0 { 8 } else { 16 };
        let (a_len, b_len) = if EXPLICIT {
            let r = &cpu.state.regs;
            (Self::explicit(r[RAX], count), Self::explicit(r[RDX], count))
        } else {
            (implicit(&a, count), implicit(&b, count))
        };
        let bits = aggregate(&a[..a_len], &b[..b_len], count, imm);
        if MASK {
            cpu.set_xmm(0, mask(bits, count, imm));
        } else {
            let index = if bits == 0 {
                count as u32
            } else if imm & 0x40 != 0 {
                bits.ilog2()
            } else {
                bits.trailing_zeros()
            };
            cpu.state.regs[RCX] = index.into();
        }
        let mut flags = 0;
        for (flag, set) in
            [(CF, bits != 0), (ZF, b_len < count), (SF, a_len < count), (OF, bits & 1 != 0)]
        {
            flags |= if set { flag } else { 0 };
        }
        cpu.state.flags.set_arith(flags);
    }

    /// The absolute value of a length register, at most `count`.
    fn explicit(register: u64, count: usize) -> usize {
        let length = if WIDE { register as i64 } else { i64::from(register as i32) };
        length.unsigned_abs().min(count as u64) as usize
    }
}

/// The elements, sign-extended if the immediate says that they are signed; 8 words leave half unused.
fn elements(value: u128, imm: u8) -> [i32; 16] {
    let (bytes, words) = (to_u8(value), to_u16(value));
    std::array::from_fn(|i| match imm & 3 {
        0 => bytes[i].into(),
        1 => words[i % 8].into(),
        2 => (bytes[i] as i8).into(),
        _ => (words[i % 8] as i16).into(),
    })
}

/// Length of a string that ends before the first zero.
fn implicit(elements: &[i32; 16], count: usize) -> usize {
    elements[..count].iter().position(|e| *e == 0).unwrap_or(count)
}

/// One bit for each element of the second string (IntRes2 of the manual). The slices hold the valid
/// elements only.
fn aggregate(a: &[i32], b: &[i32], count: usize, imm: u8) -> u32 {
    let hit = |j: usize| match imm >> 2 & 3 {
        // Equal any: the element is one of the set.
        0 => j < b.len() && a.contains(&b[j]),
        // Ranges: the element lies in one of the pairs.
        1 => j < b.len() && a.chunks_exact(2).any(|p| p[0] <= b[j] && b[j] <= p[1]),
        // Equal each: behind both ends counts as equal.
        2 => match (a.get(j), b.get(j)) {
            (Some(x), Some(y)) => x == y,
            (None, None) => true,
            _ => false,
        },
        // Equal ordered: the first string begins here, as far as this register shows.
        _ => (0..a.len().min(count - j)).all(|i| b.get(i + j) == Some(&a[i])),
    };
    let bits = (0..count).filter(|j| hit(*j)).fold(0u32, |bits, j| bits | 1 << j);
    let all = (1u32 << count) - 1;
    match imm >> 4 & 3 {
        1 => bits ^ all,
        // Masked: only valid elements are negated.
        3 => bits ^ ((1u32 << b.len()) - 1),
        _ => bits,
    }
}

/// The result as a mask: bits, or whole elements.
fn mask(bits: u32, count: usize, imm: u8) -> u128 {
    if imm & 0x40 == 0 {
        return bits.into();
    }
    let width = 128 / count;
    let ones = u128::MAX >> (128 - width);
    (0..count).filter(|i| bits >> i & 1 != 0).fold(0, |mask, i| mask | ones << (width * i))
}
