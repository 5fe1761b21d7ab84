//! RDMSR and WRMSR (Intel SDM volume 4). What the CPU does not know it asks the machine; what neither
//! knows raises #GP and is counted.

use crate::mmu::{PHYSICAL_BITS, is_canonical};
use crate::state::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, FS, GS, Msrs};
use crate::{Cpu, Trap};

const TSC: u32 = 0x10;
const PLATFORM_ID: u32 = 0x17;
const FEATURE_CONTROL: u32 = 0x3a;
const TSC_ADJUST: u32 = 0x3b;
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const BIOS_SIGN_ID: u32 = 0x8b;
const PLATFORM_INFO: u32 = 0xce;
const MTRR_CAP: u32 = 0xfe;
const ARCH_CAPABILITIES: u32 = 0x10a;
const MISC_FEATURES_ENABLES: u32 = 0x140;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MISC_ENABLE: u32 = 0x1a0;
const DEBUG_CTL: u32 = 0x1d9;
const MTRR_VAR: u32 = 0x200;
const MTRR_VAR_LAST: u32 = 0x20f;
const PAT: u32 = 0x277;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const TSC_DEADLINE: u32 = 0x6e0;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// 8 variable ranges, fixed ranges, write-combining.
const MTRR_CAP_VALUE: u64 = 8 | 1 << 8 | 1 << 10;
/// RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO,
/// PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO: nothing here speculates.
const ARCH_CAPABILITIES_VALUE: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;
/// Revision of the microcode that is reported.
const MICROCODE: u64 = 0x1f;
/// Branch trace storage and PEBS are unavailable.
const MISC_ENABLE_FIXED: u64 = 1 << 11 | 1 << 12;
/// Fast strings: the one bit of IA32_MISC_ENABLE that can change.
const MISC_ENABLE_WRITABLE: u64 = 1;
/// Non-turbo ratio 10 (1 GHz).
const PLATFORM_INFO_VALUE: u64 = 10 << 8;

const MTRR_MASK_VALID: u64 = 1 << 11;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_FIXED_ENABLE: u64 = 1 << 10;
const WRITE_BACK: u64 = 6;
const ABOVE_PHYSICAL: u64 = !((1 << PHYSICAL_BITS) - 1);

/// Index of a fixed-range MTRR.
const fn fixed_mtrr(msr: u32) -> Option<usize> {
    match msr {
        0x250 => Some(0),
        0x258 | 0x259 => Some((msr - 0x258 + 1) as usize),
        0x268..=0x26f => Some((msr - 0x268 + 3) as usize),
        _ => None,
    }
}

const fn is_mtrr_type(kind: u64) -> bool {
    matches!(kind & 0xff, 0 | 1 | 4 | 5 | 6)
}

fn all_bytes(value: u64, good: impl Fn(u64) -> bool) -> bool {
    value.to_le_bytes().into_iter().all(|b| good(b.into()))
}

/// Sets the MTRRs as firmware leaves them: write-back but for the VGA window and the device hole.
pub fn firmware_mtrrs(msrs: &mut Msrs) {
    const WB: u64 = 0x0606_0606_0606_0606;
    msrs.mtrr_def_type = MTRR_ENABLE | MTRR_FIXED_ENABLE | WRITE_BACK;
    // 64K_00000, 16K_80000, 16K_A0000 (VGA, uncached), 4K_C0000 to 4K_F8000.
    msrs.mtrr_fixed = [WB, WB, 0, WB, WB, WB, WB, WB, WB, WB, WB];
    msrs.mtrr_var[0] = crate::ram::HOLE_START;
    let size = crate::ram::HOLE_END - crate::ram::HOLE_START;
    msrs.mtrr_var[1] = !(size - 1) & !ABOVE_PHYSICAL | MTRR_MASK_VALID;
}

impl Cpu {
    /// RDMSR; the privilege has been checked.
    pub(crate) fn read_msr(&mut self, msr: u32) -> Result<u64, Trap> {
        let m = &self.state.msrs;
        Ok(match msr {
            TSC => self.read_tsc(),
            PLATFORM_ID | MCG_CAP | MCG_STATUS | DEBUG_CTL | MISC_FEATURES_ENABLES => 0,
            // Locked, nothing enabled.
            FEATURE_CONTROL => 1,
            TSC_ADJUST => m.tsc_adjust,
            SPEC_CTRL => m.spec_ctrl,
            BIOS_SIGN_ID => MICROCODE << 32,
            PLATFORM_INFO => PLATFORM_INFO_VALUE,
            MTRR_CAP => MTRR_CAP_VALUE,
            ARCH_CAPABILITIES => ARCH_CAPABILITIES_VALUE,
            SYSENTER_CS => m.sysenter_cs,
            SYSENTER_ESP => m.sysenter_esp,
            SYSENTER_EIP => m.sysenter_eip,
            MISC_ENABLE => m.misc_enable | MISC_ENABLE_FIXED,
            MTRR_VAR..=MTRR_VAR_LAST => m.mtrr_var[(msr - MTRR_VAR) as usize],
            PAT => m.pat,
            MTRR_DEF_TYPE => m.mtrr_def_type,
            EFER => self.state.efer,
            STAR => m.star,
            LSTAR => m.lstar,
            CSTAR => m.cstar,
            FMASK => m.fmask,
            FS_BASE => self.state.seg[FS].base,
            GS_BASE => self.state.seg[GS].base,
            KERNEL_GS_BASE => m.kernel_gs_base,
            TSC_AUX => m.tsc_aux,
            TSC_DEADLINE => {
                let adjust = m.tsc_adjust;
                match self.bus_msr_read(msr) {
                    Some(0) => 0,
                    Some(deadline) => deadline.wrapping_add(adjust),
                    None => return Err(self.unknown_msr("rdmsr", msr)),
                }
            }
            _ if let Some(i) = fixed_mtrr(msr) => m.mtrr_fixed[i],
            _ => match self.bus_msr_read(msr) {
                Some(value) => value,
                None => return Err(self.unknown_msr("rdmsr", msr)),
            },
        })
    }

    /// WRMSR; the privilege has been checked.
    pub(crate) fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), Trap> {
        let m = &mut self.state.msrs;
        let legal = match msr {
            SPEC_CTRL => value & !3 == 0,
            PRED_CMD => value & !1 == 0,
            SYSENTER_ESP | SYSENTER_EIP | LSTAR | CSTAR | FS_BASE | GS_BASE | KERNEL_GS_BASE => {
                is_canonical(value)
            }
            FMASK | TSC_AUX => value >> 32 == 0,
            PAT => all_bytes(value, |kind| matches!(kind, 0 | 1 | 4..=7)),
            MTRR_DEF_TYPE => value & !0xcff == 0 && is_mtrr_type(value),
            MTRR_VAR..=MTRR_VAR_LAST if msr & 1 == 0 => {
                value & (ABOVE_PHYSICAL | 0xf00) == 0 && is_mtrr_type(value)
            }
            MTRR_VAR..=MTRR_VAR_LAST => value & (ABOVE_PHYSICAL | 0x7ff) == 0,
            MISC_FEATURES_ENABLES | MCG_STATUS => value == 0,
            PLATFORM_ID | FEATURE_CONTROL | PLATFORM_INFO | MTRR_CAP | ARCH_CAPABILITIES
            | MCG_CAP => false,
            _ if fixed_mtrr(msr).is_some() => all_bytes(value, is_mtrr_type),
            _ => true,
        };
        if !legal {
            return Err(Trap::GP0);
        }
        match msr {
            TSC => {
                let now = self.read_tsc();
                let m = &mut self.state.msrs;
                m.tsc_adjust = m.tsc_adjust.wrapping_add(value.wrapping_sub(now));
            }
            TSC_ADJUST => m.tsc_adjust = value,
            SPEC_CTRL => m.spec_ctrl = value,
            // No predictors, no loadable microcode, no branch records, no machine checks.
            PRED_CMD | BIOS_SIGN_ID | DEBUG_CTL | MISC_FEATURES_ENABLES | MCG_STATUS => {}
            SYSENTER_CS => m.sysenter_cs = value & 0xffff_ffff,
            SYSENTER_ESP => m.sysenter_esp = value,
            SYSENTER_EIP => m.sysenter_eip = value,
            MISC_ENABLE => m.misc_enable = value & MISC_ENABLE_WRITABLE,
            MTRR_VAR..=MTRR_VAR_LAST => m.mtrr_var[(msr - MTRR_VAR) as usize] = value,
            PAT => m.pat = value,
            MTRR_DEF_TYPE => m.mtrr_def_type = value,
            EFER => return self.write_efer(value),
            STAR => m.star = value,
            LSTAR => m.lstar = value,
            CSTAR => m.cstar = value,
            FMASK => m.fmask = value,
            FS_BASE => self.state.seg[FS].base = value,
            GS_BASE => self.state.seg[GS].base = value,
            KERNEL_GS_BASE => m.kernel_gs_base = value,
            TSC_AUX => m.tsc_aux = value,
            TSC_DEADLINE => {
                // The machine counts without the guest's adjustment; 0 disarms.
                let deadline = if value == 0 { 0 } else { value.wrapping_sub(m.tsc_adjust).max(1) };
                if !self.bus_msr_write(msr, deadline) {
                    return Err(self.unknown_msr("wrmsr", msr));
                }
            }
            _ if let Some(i) = fixed_mtrr(msr) => m.mtrr_fixed[i] = value,
            _ => {
                if !self.bus_msr_write(msr, value) {
                    return Err(self.unknown_msr("wrmsr", msr));
                }
            }
        }
        Ok(())
    }

    /// EFER: LMA is read-only, LME cannot go while paging is on.
    fn write_efer(&mut self, value: u64) -> Result<(), Trap> {
        let old = self.state.efer;
        if value & !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE) != 0 {
            return Err(Trap::GP0);
        }
        if (value ^ old) & EFER_LME != 0 {
            return Err(self.refused("wrmsr EFER: LME changed"));
        }
        self.state.efer = value & !EFER_LMA | old & EFER_LMA;
        if (value ^ old) & EFER_NXE != 0 {
            self.flush_tlb();
        }
        Ok(())
    }

    fn unknown_msr(&mut self, what: &str, msr: u32) -> Trap {
        self.refused(&format!("{what} {msr:#x}"))
    }

    /// Counts something that this CPU does not do, and makes the #GP(0) for it.
    #[cold]
    pub(crate) fn refused(&mut self, what: &str) -> Trap {
        *self.undefined.entry(what.to_owned()).or_default() += 1;
        Trap::GP0
    }
}
