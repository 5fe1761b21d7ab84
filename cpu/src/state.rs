//! The architectural state of one x86-64 CPU: all that a snapshot holds and a digest covers.

use crate::flags::Flags;

/// Index of RIP in [`CpuState::regs`].
pub const RIP: usize = 16;
/// Index of a register that always reads zero: "no base", "no index".
pub const ZERO: usize = 17;
/// Index of RAX.
pub const RAX: usize = 0;
/// Index of RCX.
pub const RCX: usize = 1;
/// Index of RDX.
pub const RDX: usize = 2;
/// Index of RBX.
pub const RBX: usize = 3;
/// Index of RSP.
pub const RSP: usize = 4;
/// Index of RBP.
pub const RBP: usize = 5;
/// Index of RSI.
pub const RSI: usize = 6;
/// Index of RDI.
pub const RDI: usize = 7;

/// Index of ES in [`CpuState::seg`].
pub const ES: usize = 0;
/// Index of CS.
pub const CS: usize = 1;
/// Index of SS.
pub const SS: usize = 2;
/// Index of DS.
pub const DS: usize = 3;
/// Index of FS.
pub const FS: usize = 4;
/// Index of GS.
pub const GS: usize = 5;
/// Index of a segment with base 0 and no limit: what DS, ES, CS, SS are in 64-bit mode.
pub const FLAT: usize = 6;

/// CR0.PE.
pub const CR0_PE: u64 = 1;
/// CR0.MP.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM.
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM.
pub const CR0_AM: u64 = 1 << 18;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.TSD.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.OSFXSR.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXMMEXCPT.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4.FSGSBASE.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// EFER.SCE.
pub const EFER_SCE: u64 = 1;
/// EFER.LME.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Segment {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, already scaled by the granularity.
    pub limit: u32,
    /// Visible selector.
    pub selector: u16,
    /// Descriptor bits 40..56 as they stand in bytes 5 and 6 of the descriptor, limit bits (8..12)
    /// cleared: type 0..4, S 4, DPL 5..7, P 7, AVL 12, L 13, D/B 14, G 15. Zero: unusable (null).
    pub attr: u16,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u16,
}

/// The x87 FPU and with it the MMX registers (mantissas of the physical registers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct X87 {
    /// Mantissas of physical registers R0 to R7; MMn is the mantissa of Rn.
    pub mantissa: [u64; 8],
    /// Sign and exponent of R0 to R7.
    pub sign_exponent: [u16; 8],
    /// Control word.
    pub control: u16,
    /// Status word, TOP included (bits 11 to 13).
    pub status: u16,
    /// Tags, one bit a physical register: 1 = not empty (the FXSAVE form).
    pub tags: u8,
    /// Last opcode (11 bits).
    pub opcode: u16,
    /// Last instruction pointer.
    pub ip: u64,
    /// Last data pointer.
    pub dp: u64,
    /// Selectors that go with them in 32-bit saves.
    pub cs: u16,
    /// See `cs`.
    pub ds: u16,
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            mantissa: [0; 8],
            sign_exponent: [0; 8],
            control: 0x37f,
            status: 0,
            tags: 0,
            opcode: 0,
            ip: 0,
            dp: 0,
            cs: 0,
            ds: 0,
        }
    }
}

/// Model-specific registers that live in the CPU itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What WRMSR to the TSC has added to the machine's counter; also IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_MTRR_DEF_TYPE.
    pub mtrr_def_type: u64,
    /// Variable MTRR base and mask pairs.
    pub mtrr_var: [u64; 16],
    /// Fixed-range MTRRs.
    pub mtrr_fixed: [u64; 11],
}

/// All architectural state of the CPU. `retired` and `rep` are its half of the position.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct CpuState {
    /// General registers 0 to 15, RIP, and from 17 on constant zeros (32 in all, so that masked indices
    /// need no bounds check).
    pub regs: [u64; 32],
    /// RFLAGS, arithmetic flags in lazy form.
    pub flags: Flags,
    /// ES, CS, SS, DS, FS, GS, and the flat dummy.
    pub seg: [Segment; 7],
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: Table,
    /// Interrupt descriptor table.
    pub idtr: Table,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Debug registers.
    pub dr: [u64; 8],
    /// Other MSRs.
    pub msrs: Msrs,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 and MMX.
    pub x87: X87,
    /// Current privilege level.
    pub cpl: u8,
    /// HLT is waiting for an interrupt.
    pub halted: bool,
    /// Interrupts are held off for one instruction, after STI or a load of SS.
    pub shadow: bool,
    /// NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// Instructions retired since power-on; see `ft_pair_shared::Position`.
    pub retired: u64,
    /// Chunks done of the REP instruction at RIP.
    pub rep: u64,
}

impl Default for CpuState {
    /// A CPU after reset, before the boot code sets it up for 64-bit entry.
    fn default() -> Self {
        let mut state = Self {
            regs: [0; 32],
            flags: Flags::default(),
            seg: [Segment::default(); 7],
            ldtr: Segment { limit: 0xffff, attr: 0x82, ..Segment::default() },
            tr: Segment { limit: 0xffff, attr: 0x8b, ..Segment::default() },
            gdtr: Table { base: 0, limit: 0xffff },
            idtr: Table { base: 0, limit: 0xffff },
            cr0: CR0_ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            msrs: Msrs { pat: 0x0007_0406_0007_0406, misc_enable: 1, ..Msrs::default() },
            xmm: [0; 16],
            mxcsr: 0x1f80,
            x87: X87::default(),
            cpl: 0,
            halted: false,
            shadow: false,
            nmi_blocked: false,
            retired: 0,
            rep: 0,
        };
        state.seg[FLAT] = Segment { base: 0, limit: u32::MAX, selector: 0, attr: 0xc093 };
        state
    }
}

impl CpuState {
    /// Sets the CPU up for entry into 64-bit code at CPL 0: long mode with paging from `cr3`, flat
    /// segments with the given selectors, interrupts off.
    pub fn enter_long_mode(&mut self, cr3: u64, rip: u64, code_selector: u16, data_selector: u16) {
        self.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
        self.cr3 = cr3;
        self.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
        self.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
        self.cpl = 0;
        self.regs[RIP] = rip;
        let data = Segment { base: 0, limit: u32::MAX, selector: data_selector, attr: 0xc093 };
        for i in [ES, SS, DS, FS, GS] {
            self.seg[i] = data;
        }
        self.seg[CS] = Segment { base: 0, limit: u32::MAX, selector: code_selector, attr: 0xa09b };
        self.flags = Flags::from_rflags(2);
        crate::msr::firmware_mtrrs(&mut self.msrs);
    }

    /// True in 64-bit mode (not compatibility mode).
    #[inline]
    pub const fn is_64bit(&self) -> bool {
        self.efer & EFER_LMA != 0 && self.seg[CS].attr & (1 << 13) != 0
    }

    /// True once long mode is active.
    #[inline]
    pub const fn is_long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    /// RIP.
    #[inline]
    pub const fn rip(&self) -> u64 {
        self.regs[RIP]
    }
}
