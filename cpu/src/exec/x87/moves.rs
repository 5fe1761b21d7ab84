//! Loads, stores, constants, exchanges and conditional moves.

use super::calc::{self, Control};
use super::ext::{Class, DE, Ext, IE};
use super::soft::Round;
use super::{Form, Format};
use crate::op::Op;
use crate::{Cpu, Trap};
use iced_x86::Code;

pub(super) fn form(code: Code) -> Option<Form> {
    use Format::{F32, F64, I16, I32, I64};
    let load = |format| Some(Form::new(load, 0).format(format));
    let store = |format, pops| Some(Form::new(store, 0).format(format).pops(pops));
    let truncate = |format| Some(Form::new(store_int, 1).format(format).pops(1));
    let int = |format, pops| Some(Form::new(store_int, 0).format(format).pops(pops));
    let constant = |n| Some(Form::new(load_constant, n));
    let conditional = |condition| Some(Form::new(conditional_move, condition));
    let simple = |exec| Some(Form::new(exec, 0));
    match code {
        Code::Fld_m32fp => load(F32),
        Code::Fld_m64fp => load(F64),
        Code::Fild_m16int => load(I16),
        Code::Fild_m32int => load(I32),
        Code::Fild_m64int => load(I64),
        Code::Fst_m32fp => store(F32, 0),
        Code::Fstp_m32fp => store(F32, 1),
        Code::Fst_m64fp => store(F64, 0),
        Code::Fstp_m64fp => store(F64, 1),
        Code::Fist_m16int => int(I16, 0),
        Code::Fistp_m16int => int(I16, 1),
        Code::Fist_m32int => int(I32, 0),
        Code::Fistp_m32int => int(I32, 1),
        Code::Fistp_m64int => int(I64, 1),
        Code::Fisttp_m16int => truncate(I16),
        Code::Fisttp_m32int => truncate(I32),
        Code::Fisttp_m64int => truncate(I64),
        Code::Fld_m80fp => simple(load_ext),
        Code::Fstp_m80fp => Some(Form::new(store_ext, 0).pops(1)),
        Code::Fbld_m80bcd => simple(load_bcd),
        Code::Fbstp_m80bcd => Some(Form::new(store_bcd, 0).pops(1)),
        Code::Fld_sti => simple(load_register),
        Code::Fst_sti => simple(store_register),
        Code::Fstp_sti | Code::Fstp_sti_DFD0 | Code::Fstp_sti_DFD8 => {
            Some(Form::new(store_register, 0).pops(1))
        }
        Code::Fstpnce_sti => Some(Form::new(store_register, 1).pops(1)),
        Code::Fxch_st0_sti | Code::Fxch_st0_sti_DDC8 | Code::Fxch_st0_sti_DFC8 => simple(exchange),
        Code::Fld1 => constant(0),
        Code::Fldl2t => constant(1),
        Code::Fldl2e => constant(2),
        Code::Fldpi => constant(3),
        Code::Fldlg2 => constant(4),
        Code::Fldln2 => constant(5),
        Code::Fldz => constant(6),
        // Conditions as `Flags::condition` numbers them.
        Code::Fcmovb_st0_sti => conditional(2),
        Code::Fcmovnb_st0_sti => conditional(3),
        Code::Fcmove_st0_sti => conditional(4),
        Code::Fcmovne_st0_sti => conditional(5),
        Code::Fcmovbe_st0_sti => conditional(6),
        Code::Fcmovnbe_st0_sti => conditional(7),
        Code::Fcmovu_st0_sti => conditional(10),
        Code::Fcmovnu_st0_sti => conditional(11),
        _ => None,
    }
}

impl Cpu {
    /// Reads a number from memory: its value, and DE if it is denormal in its format.
    #[inline(always)]
    pub(super) fn load_number(&mut self, op: &Op) -> Result<(Ext, u16), Trap> {
        let denormal = |(value, denormal): (Ext, bool)| (value, if denormal { DE } else { 0 });
        Ok(match Format::of(op) {
            Format::F32 => denormal(Ext::from_f32(self.load_op(op)?)),
            Format::F64 => denormal(Ext::from_f64(self.load_op(op)?)),
            Format::I16 => (Ext::from_int(i64::from(self.load_op::<u16>(op)? as i16)), 0),
            Format::I32 => (Ext::from_int(i64::from(self.load_op::<u32>(op)? as i32)), 0),
            Format::I64 | Format::Other => (Ext::from_int(self.load_op::<u64>(op)? as i64), 0),
        })
    }

    /// Pushes a value, or does what a full stack asks for. A denormal is pushed even if DE is not masked.
    #[inline(always)]
    fn push_checked(&mut self, value: Ext, flags: u16) {
        if !self.st_empty(7) {
            if self.stack_fault(true) {
                self.push(Ext::INDEFINITE);
            }
        } else if self.x87_raise(flags) || flags & IE == 0 {
            self.push(value);
        }
    }

    /// Reads 10 bytes.
    fn load_ten(&mut self, op: &Op) -> Result<u128, Trap> {
        let va = self.ea(op)?;
        self.probe_read(va, 10).map_err(|t| on_stack(op, t))?;
        let low = self.load::<u64>(va)?;
        let high = self.load::<u16>(va.wrapping_add(8))?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 10 bytes.
    fn store_ten(&mut self, op: &Op, value: u128) -> Result<(), Trap> {
        let va = self.ea(op)?;
        self.probe_write(va, 10).map_err(|t| on_stack(op, t))?;
        self.store(va, value as u64)?;
        self.store(va.wrapping_add(8), (value >> 64) as u16)
    }
}

/// Non-canonical stack addresses raise #SS.
fn on_stack(op: &Op, trap: Trap) -> Trap {
    if op.stack && trap == Trap::GP0 { Trap::SS0 } else { trap }
}

/// FLD m32, m64; FILD.
fn load(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let offset = cpu.ea_offset(op);
    let (value, mut flags) = cpu.load_number(op)?;
    cpu.x87_begin_memory(op, offset);
    let value = if value.class() == Class::Signaling {
        flags = IE;
        value.quiet()
    } else {
        value
    };
    cpu.push_checked(value, flags);
    Ok(())
}

/// FLD m80: any encoding as it is.
fn load_ext(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let offset = cpu.ea_offset(op);
    let bits = cpu.load_ten(op)?;
    cpu.x87_begin_memory(op, offset);
    cpu.push_checked(Ext { sig: bits as u64, se: (bits >> 64) as u16 }, 0);
    Ok(())
}

/// FBLD.
fn load_bcd(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    let offset = cpu.ea_offset(op);
    let bits = cpu.load_ten(op)?;
    cpu.x87_begin_memory(op, offset);
    cpu.push_checked(calc::from_bcd(bits), 0);
    Ok(())
}

/// FLD ST(i).
fn load_register(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    if cpu.st_empty(op.dst) {
        if cpu.stack_fault(false) {
            cpu.push(Ext::INDEFINITE);
        }
    } else {
        let value = cpu.st(op.dst);
        cpu.push_checked(value, 0);
    }
    Ok(())
}

/// The constants, rounded by RC: significand towards zero, exponent, whether that is the nearest.
const CONSTANTS: [(u64, u16, bool); 5] = [
    (0xd49a_784b_cd1b_8afe, 0x4000, true),
    (0xb8aa_3b29_5c17_f0bb, 0x3fff, false),
    (0xc90f_daa2_2168_c234, 0x4000, false),
    (0x9a20_9a84_fbcf_f798, 0x3ffd, false),
    (0xb172_17f7_d1cf_79ab, 0x3ffe, false),
];

const fn constant(number: u16, control: Control) -> Ext {
    match number {
        0 => Ext::ONE,
        6 => Ext::ZERO,
        n => {
            let (sig, se, nearest) = CONSTANTS[n as usize - 1];
            let up = match control.round() {
                Round::Nearest => !nearest,
                Round::Up => true,
                Round::Down | Round::Zero => false,
            };
            Ext { sig: sig + up as u64, se }
        }
    }
}

fn load_constant(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let value = constant(op.aux, cpu.x87_control());
    cpu.push_checked(value, 0);
    Ok(())
}

/// What a store writes, with its exceptions.
struct Stored<T> {
    value: T,
    flags: u16,
    up: bool,
}

impl<T> From<(T, u16, bool)> for Stored<T> {
    fn from((value, flags, up): (T, u16, bool)) -> Self {
        Self { value, flags, up }
    }
}

impl Cpu {
    /// Stores a converted ST(0), or `indefinite` if it is empty; then flags and pops. An unmasked exception but
    /// PE leaves memory and stack alone.
    fn store_converted<T>(
        &mut self,
        op: &Op,
        indefinite: T,
        convert: impl FnOnce(Ext, Control) -> Stored<T>,
        write: impl FnOnce(&mut Self, T) -> Result<(), Trap>,
    ) -> Result<(), Trap> {
        self.x87_wait()?;
        let offset = self.ea_offset(op);
        let control = self.x87_control();
        let empty = self.st_empty(0);
        let stored = if empty {
            Stored { value: indefinite, flags: IE, up: false }
        } else {
            convert(self.st(0), control)
        };
        let stop = control.unmasked(stored.flags & !super::ext::PE) != 0;
        if stop {
            // The operand's own faults come before the exception is recorded.
            let va = self.ea(op)?;
            self.probe_write(va, u64::from(op.size))
                .map_err(|trap| if op.stack && trap == Trap::GP0 { Trap::SS0 } else { trap })?;
        } else {
            write(self, stored.value)?;
        }
        self.x87_begin_memory(op, offset);
        if empty {
            self.stack_fault(false);
        } else {
            let flags = if stop { stored.flags & !super::ext::PE } else { stored.flags };
            self.x87_raise(flags);
            self.set_c1(stored.up && !stop);
        }
        if !stop {
            self.pop(op.src2);
        }
        Ok(())
    }
}

/// FST(P) m32, m64.
fn store(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    if Format::of(op) == Format::F32 {
        cpu.store_converted(
            op,
            0xffc0_0000u32,
            |a, control| calc::to_f32(a, control).into(),
            |cpu, value| cpu.store_op(op, value),
        )
    } else {
        cpu.store_converted(
            op,
            0xfff8_0000_0000_0000u64,
            |a, control| calc::to_f64(a, control).into(),
            |cpu, value| cpu.store_op(op, value),
        )
    }
}

/// FIST(P); FISTTP with `aux`.
fn store_int(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let bits = u32::from(op.size) * 8;
    let truncate = op.aux != 0;
    cpu.store_converted(
        op,
        1u64 << (bits - 1),
        |a, control| {
            let round = if truncate { Round::Zero } else { control.round() };
            calc::to_int(a, bits, round).into()
        },
        |cpu, value| match bits {
            16 => cpu.store_op(op, value as u16),
            32 => cpu.store_op(op, value as u32),
            _ => cpu.store_op(op, value),
        },
    )
}

/// FBSTP.
fn store_bcd(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.store_converted(
        op,
        calc::BCD_INDEFINITE,
        |a, control| calc::to_bcd(a, control.round()).into(),
        |cpu, value| cpu.store_ten(op, value),
    )
}

/// FSTP m80: any encoding as it is.
fn store_ext(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    let bits = |a: Ext| u128::from(a.se) << 64 | u128::from(a.sig);
    cpu.store_converted(
        op,
        bits(Ext::INDEFINITE),
        |a, _| (bits(a), 0, false).into(),
        |cpu, value| cpu.store_ten(op, value),
    )
}

/// FST(P) ST(i). With `aux` (FSTPNCE) an empty ST(0) raises nothing.
fn store_register(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    if !cpu.st_empty(0) {
        let value = cpu.st(0);
        cpu.set_st(op.dst, value);
    } else if op.aux == 0 && !cpu.stack_fault(false) {
        return Ok(());
    } else {
        cpu.set_st(op.dst, Ext::INDEFINITE);
    }
    cpu.pop(op.src2);
    Ok(())
}

/// FXCH.
fn exchange(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_begin(op);
    let mut values = [(0, cpu.st(0)), (op.src, cpu.st(op.src))];
    if cpu.st_empty(0) || cpu.st_empty(op.src) {
        for (i, value) in &mut values {
            if cpu.st_empty(*i) {
                *value = Ext::INDEFINITE;
            }
        }
        if !cpu.stack_fault(false) {
            return Ok(());
        }
    }
    cpu.set_st(0, values[1].1);
    cpu.set_st(op.src, values[0].1);
    Ok(())
}

/// FCMOVcc. C1 stays but for a stack fault.
fn conditional_move(cpu: &mut Cpu, op: &Op) -> Result<(), Trap> {
    cpu.x87_wait()?;
    cpu.x87_record(op);
    if cpu.st_empty(0) || cpu.st_empty(op.src) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, Ext::INDEFINITE);
        }
    } else if cpu.state.flags.condition(op.aux as u8) {
        let value = cpu.st(op.src);
        cpu.set_st(0, value);
    }
    Ok(())
}
