//! Delivery of exceptions and interrupts through the IDT.

use crate::{Cpu, Trap};

impl Cpu {
    /// Delivers a fault of the instruction at RIP; double and triple faults follow from faults while
    /// delivering. A triple fault sets `shut_down`.
    pub(crate) fn deliver_exception(&mut self, trap: Trap) {
        let _ = trap;
        self.shut_down = true;
    }

    /// Delivers an external interrupt.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        let _ = vector;
        self.shut_down = true;
    }

    /// Raises #DB with DR6.BS behind a single-stepped instruction.
    pub(crate) fn single_step_trap(&mut self) {}
}
