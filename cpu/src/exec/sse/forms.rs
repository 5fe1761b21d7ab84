//! Macros that make a pair of handlers ([`Forms`](super::Forms)) from a function of two values. Handlers
//! are ordinary functions without captured state, so each pair is monomorphic code.

/// XMM destination; the source is given by `$load` or a register. `$f` gets (destination, source, imm).
macro_rules! xmm_forms {
    ($load:expr, $f:expr) => {{
        fn rr(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128, u8) -> u128 = $f;
            let value = f(cpu.xmm(op.dst), cpu.xmm(op.src), op.imm as u8);
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        fn rm(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128, u8) -> u128 = $f;
            let load: fn(&mut $crate::Cpu, &$crate::op::Op) -> Result<u128, $crate::Trap> = $load;
            let source = load(cpu, op)?;
            let value = f(cpu.xmm(op.dst), source, op.imm as u8);
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        $crate::exec::sse::Forms { rr, rm }
    }};
}

/// `f(destination, source)` with an aligned 16-byte memory operand.
macro_rules! packed {
    ($f:expr) => {
        xmm_forms!(|cpu, op| cpu.load_aligned(op), |a, b, _| ($f)(a, b))
    };
}

/// `f(destination, source, imm8)` with an aligned 16-byte memory operand.
macro_rules! packed_imm {
    ($f:expr) => {
        xmm_forms!(|cpu, op| cpu.load_aligned(op), $f)
    };
}

/// `f(destination, source)` with a memory operand of type `$t`, of any alignment, zero-extended.
macro_rules! narrow {
    ($t:ty, $f:expr) => {
        xmm_forms!(|cpu, op| cpu.load_wide::<$t>(op), |a, b, _| ($f)(a, b))
    };
}

/// `f(destination, source, imm8)` with a memory operand of type `$t`, of any alignment.
macro_rules! narrow_imm {
    ($t:ty, $f:expr) => {
        xmm_forms!(|cpu, op| cpu.load_wide::<$t>(op), $f)
    };
}

/// As [`xmm_forms`], for functions that also take the MXCSR to compute under and give flags back.
macro_rules! float_forms {
    ($load:expr, $f:expr) => {{
        fn rr(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128, u8, u32) -> (u128, u32) = $f;
            let (a, b) = (cpu.xmm(op.dst), cpu.xmm(op.src));
            let value = cpu.float(|mxcsr| f(a, b, op.imm as u8, mxcsr))?;
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        fn rm(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.sse_ready()?;
            let f: fn(u128, u128, u8, u32) -> (u128, u32) = $f;
            let load: fn(&mut $crate::Cpu, &$crate::op::Op) -> Result<u128, $crate::Trap> = $load;
            let (a, b) = (cpu.xmm(op.dst), load(cpu, op)?);
            let value = cpu.float(|mxcsr| f(a, b, op.imm as u8, mxcsr))?;
            cpu.set_xmm(op.dst, value);
            Ok(())
        }
        $crate::exec::sse::Forms { rr, rm }
    }};
}

/// Floating point on 16 bytes, aligned.
macro_rules! float {
    ($f:expr) => {
        float_forms!(|cpu, op| cpu.load_aligned(op), |a, b, _, m| ($f)(a, b, m))
    };
}

/// Floating point on 16 bytes, aligned, with an immediate.
macro_rules! float_imm {
    ($f:expr) => {
        float_forms!(|cpu, op| cpu.load_aligned(op), $f)
    };
}

/// Floating point with a memory operand of type `$t`, of any alignment.
macro_rules! scalar {
    ($t:ty, $f:expr) => {
        float_forms!(|cpu, op| cpu.load_wide::<$t>(op), |a, b, _, m| ($f)(a, b, m))
    };
}

/// Scalar floating point with an immediate.
macro_rules! scalar_imm {
    ($t:ty, $f:expr) => {
        float_forms!(|cpu, op| cpu.load_wide::<$t>(op), $f)
    };
}

/// MMX destination and source; `$f` gets (destination, source, imm8) zero-extended to 128 bits, the low
/// 64 bits of its result count. Memory operands have type `$t`.
macro_rules! mmx_forms {
    ($t:ty, $f:expr) => {{
        fn rr(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.mmx_ready()?;
            let f: fn(u128, u128, u8) -> u128 = $f;
            let value = f(cpu.mm(op.dst).into(), cpu.mm(op.src).into(), op.imm as u8);
            cpu.enter_mmx();
            cpu.set_mm(op.dst, value as u64);
            Ok(())
        }
        fn rm(cpu: &mut $crate::Cpu, op: &$crate::op::Op) -> Result<(), $crate::Trap> {
            cpu.mmx_ready()?;
            let f: fn(u128, u128, u8) -> u128 = $f;
            let source = cpu.load_wide::<$t>(op)?;
            let value = f(cpu.mm(op.dst).into(), source, op.imm as u8);
            cpu.enter_mmx();
            cpu.set_mm(op.dst, value as u64);
            Ok(())
        }
        $crate::exec::sse::Forms { rr, rm }
    }};
}

/// MMX: `f(destination, source)`.
macro_rules! mmx {
    ($f:expr) => {
        mmx_forms!(u64, |a, b, _| ($f)(a, b))
    };
}

/// One handler for both forms: the body is a function of the CPU and the op.
macro_rules! handler {
    ($f:expr) => {{
        const F: $crate::op::Exec = $f;
        $crate::exec::sse::Forms { rr: F, rm: F }
    }};
}
