//! Exact accounting of the bytes between the sides: each is counted once, in a class.

use serde::{Deserialize, Serialize};

/// What a byte between the sides was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The log of inputs.
    Log,
    /// Digests, root digests included.
    Digest,
    /// Pages sent at an epoch's end, in a repair, or in a synchronisation.
    PageAtEnd,
    /// Pages sent before their epoch's end.
    PageSpeculative,
    /// Disk sectors.
    Disk,
    /// CPU and device state.
    State,
    /// The guest's output, where a commit includes it.
    Output,
    /// Everything else: headers, heartbeats, acknowledgements.
    Control,
}

impl Class {
    /// All classes, in the order of [`Bytes`].
    pub const ALL: [Self; 8] = [
        Self::Log,
        Self::Digest,
        Self::PageAtEnd,
        Self::PageSpeculative,
        Self::Disk,
        Self::State,
        Self::Output,
        Self::Control,
    ];
}

/// Bytes per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bytes {
    /// See [`Class::Log`].
    pub log: u64,
    /// See [`Class::Digest`].
    pub digest: u64,
    /// See [`Class::PageAtEnd`].
    pub page_at_end: u64,
    /// See [`Class::PageSpeculative`].
    pub page_speculative: u64,
    /// See [`Class::Disk`].
    pub disk: u64,
    /// See [`Class::State`].
    pub state: u64,
    /// See [`Class::Output`].
    pub output: u64,
    /// See [`Class::Control`].
    pub control: u64,
}

impl Bytes {
    /// Counts `bytes` in `class`.
    pub const fn add(&mut self, class: Class, bytes: u64) {
        *self.of(class) += bytes;
    }

    const fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Log => &mut self.log,
            Class::Digest => &mut self.digest,
            Class::PageAtEnd => &mut self.page_at_end,
            Class::PageSpeculative => &mut self.page_speculative,
            Class::Disk => &mut self.disk,
            Class::State => &mut self.state,
            Class::Output => &mut self.output,
            Class::Control => &mut self.control,
        }
    }

    /// Adds all classes of `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut other = *other;
        for class in Class::ALL {
            self.add(class, *other.of(class));
        }
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        let mut copy = *self;
        Class::ALL.iter().map(|class| *copy.of(*class)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_counted_once() {
        let mut bytes = Bytes::default();
        for (i, class) in Class::ALL.into_iter().enumerate() {
            bytes.add(class, 1 << i);
        }
        assert_eq!(bytes.total(), 255);
        let mut twice = bytes;
        twice.merge(&bytes);
        assert_eq!(twice.total(), 510);
    }
}
