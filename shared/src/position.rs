//! Where in a guest's execution something happens.

use serde::{Deserialize, Serialize};

/// An exact place in the execution of a guest, ordered as the execution is.
///
/// * `retired`: instructions retired since power-on. The delivery of an exception or an interrupt
///   counts as one, so that execution cannot loop without the position moving; HLT counts as one; a
///   REP string instruction counts as one, when its last iteration is done.
/// * `rep`: how many chunks of the REP string instruction at the current RIP are done. A chunk ends at
///   a boundary that follows from guest state alone (at most 4 KiB).
/// * `seq`: how many inputs and idle wake-ups have already happened at this `(retired, rep)`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// Instructions retired since power-on.
    pub retired: u64,
    /// Chunks done of the REP string instruction at RIP.
    pub rep: u64,
    /// Inputs and idle wake-ups already taken at this place.
    pub seq: u32,
}

impl Position {
    /// Power-on.
    pub const ZERO: Self = Self { retired: 0, rep: 0, seq: 0 };

    /// The place before anything else happens at the boundary after `retired` instructions.
    pub const fn at(retired: u64) -> Self {
        Self { retired, rep: 0, seq: 0 }
    }

    /// The same boundary, after one more input or idle wake-up.
    pub const fn after_input(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }

    /// True if both lie at the same instruction boundary, whatever happened there already.
    pub const fn same_boundary(self, other: Self) -> bool {
        self.retired == other.retired && self.rep == other.rep
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}.{}", self.retired, self.rep, self.seq)
    }
}
