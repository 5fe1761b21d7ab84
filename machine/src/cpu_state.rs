//! Canonical bytes of the CPU's architectural state.

use crate::saved_fields;
use crate::state::{Reader, Saved, StateError};
use ft_pair_cpu::CpuState;
use ft_pair_cpu::flags::Flags;
use ft_pair_cpu::state::{Msrs, Segment, Table, X87};

/// Name of the CPU's section.
pub(crate) const SECTION: &str = "cpu0";
/// Version of its bytes.
pub(crate) const VERSION: u32 = 1;

/// The lazy form has many shapes for equal flags; RFLAGS has one.
impl Saved for Flags {
    fn encode(&self, out: &mut Vec<u8>) {
        self.rflags().encode(out);
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Ok(Self::from_rflags(u64::decode(from)?))
    }
}

saved_fields!(Segment { base, limit, selector, attr });
saved_fields!(Table { base, limit });
saved_fields!(X87 { mantissa, sign_exponent, control, status, tags, opcode, ip, dp, cs, ds });
saved_fields!(Msrs {
    star,
    lstar,
    cstar,
    fmask,
    kernel_gs_base,
    sysenter_cs,
    sysenter_esp,
    sysenter_eip,
    pat,
    tsc_aux,
    tsc_adjust,
    misc_enable,
    spec_ctrl,
    mtrr_def_type,
    mtrr_var,
    mtrr_fixed,
});
saved_fields!(CpuState {
    regs,
    flags,
    seg,
    ldtr,
    tr,
    gdtr,
    idtr,
    cr0,
    cr2,
    cr3,
    cr4,
    efer,
    dr,
    msrs,
    xmm,
    mxcsr,
    x87,
    cpl,
    halted,
    shadow,
    nmi_blocked,
    retired,
    rep,
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{from_bytes, to_bytes};

    #[test]
    fn state_comes_back() {
        let mut cpu = CpuState::default();
        cpu.enter_long_mode(0x1000, 0x2000, 8, 16);
        cpu.flags = Flags::from_rflags(0x246);
        cpu.xmm[3] = 5 << 100;
        cpu.retired = 77;
        let bytes = to_bytes(&cpu);
        let back: CpuState = from_bytes(&bytes).unwrap();
        assert_eq!(to_bytes(&back), bytes);
        assert_eq!(back.rip(), 0x2000);
    }

    #[test]
    fn equal_flags_have_equal_bytes() {
        let mut a = Flags::from_rflags(0x202);
        let b = Flags::from_rflags(0x246);
        a.set_arith(0x44);
        assert_eq!(to_bytes(&a), to_bytes(&b));
    }
}
