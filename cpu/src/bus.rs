//! What the CPU needs from the machine around it.

/// The machine as the CPU sees it: ports, device memory, the local APIC, the clock.
///
/// Every call carries `now`, the number of instructions retired before the one that makes the access:
/// all that a device derives from time it derives from `now`, so that a replay sees the same.
pub trait Bus {
    /// IN: reads `size` (1, 2 or 4) bytes from a port. Ports nobody answers read as all ones.
    fn io_read(&mut self, now: u64, port: u16, size: u8) -> u32;
    /// OUT: writes the low `size` (1, 2 or 4) bytes of `value` to a port.
    fn io_write(&mut self, now: u64, port: u16, size: u8, value: u32);
    /// Reads `size` (1, 2, 4 or 8) bytes of guest physical memory that is not RAM.
    fn mmio_read(&mut self, now: u64, gpa: u64, size: u8) -> u64;
    /// Writes `size` (1, 2, 4 or 8) bytes of guest physical memory that is not RAM.
    fn mmio_write(&mut self, now: u64, gpa: u64, size: u8, value: u64);
    /// The time stamp counter before any guest adjustment.
    fn tsc(&mut self, now: u64) -> u64;
    /// True if the local APIC holds an interrupt whose priority is above TPR and the one in service.
    fn interrupt_pending(&self) -> bool;
    /// Takes the highest-priority deliverable interrupt into service and names its vector.
    fn acknowledge_interrupt(&mut self) -> Option<u8>;
    /// Asked behind every access: true if the machine has to act before the place that the CPU was let
    /// run to (a timer was set to an earlier time, say). [`crate::Cpu::run`] then comes back behind the
    /// current instruction.
    fn take_exit_request(&mut self) -> bool {
        false
    }
    /// RDMSR of a register that lives in the machine (APIC base, x2APIC, TSC deadline); `None`: unknown.
    fn msr_read(&mut self, now: u64, msr: u32) -> Option<u64>;
    /// WRMSR likewise; false: unknown register or illegal value, the guest gets #GP.
    fn msr_write(&mut self, now: u64, msr: u32, value: u64) -> bool;
    /// CR8: bits 7:4 of the task priority register.
    fn cr8(&self) -> u8;
    /// Writes CR8 (0 to 15).
    fn set_cr8(&mut self, value: u8);
}
