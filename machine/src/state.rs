//! Saved state: canonical bytes of plain values, and the container that names and versions them.
//!
//! Every part of the machine is written field by field, little endian, without padding, so that equal
//! states have equal bytes and a digest over them means something. [`saved_fields!`] destructures the
//! type without `..`: a field that is forgotten does not compile.
//!
//! ```compile_fail
//! struct Timer { armed: bool, deadline: u64 }
//! ft_pair_machine::saved_fields!(Timer { armed });
//! ```

use serde::{Deserialize, Serialize};

/// A saved state cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Fewer bytes than the fields need.
    #[error("the saved state ends early")]
    Short,
    /// More bytes than the fields need.
    #[error("the saved state has {0} bytes too many")]
    Long(usize),
    /// A value that the field cannot have.
    #[error("the saved state holds an impossible value for {0}")]
    Value(&'static str),
    /// Another set of sections than this build writes.
    #[error("the saved state has section {found:?} where {expected:?} belongs")]
    Section {
        /// What this build writes there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Written by another version of a device.
    #[error(
        "section {id:?} has version {found}, this build reads {expected}; use the build that saved it"
    )]
    Version {
        /// The section.
        id: String,
        /// The version that this build reads.
        expected: u32,
        /// The version that was found.
        found: u32,
    },
}

/// A value with one canonical form in bytes.
pub trait Saved: Sized {
    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads them back.
    ///
    /// # Errors
    /// When the bytes are not what [`Saved::encode`] writes.
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError>;
}

/// Reads canonical bytes from front to back.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(StateError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub const fn finish(self) -> Result<(), StateError> {
        if self.0.is_empty() { Ok(()) } else { Err(StateError::Long(self.0.len())) }
    }
}

/// The canonical bytes of a value.
pub fn to_bytes<T: Saved>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// The value with these canonical bytes.
///
/// # Errors
/// When the bytes are not exactly one value.
pub fn from_bytes<T: Saved>(bytes: &[u8]) -> Result<T, StateError> {
    let mut reader = Reader::new(bytes);
    let value = T::decode(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

macro_rules! saved_integers {
    ($($t:ty),*) => {$(
        impl Saved for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
                let bytes = from.take(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().expect("took as many bytes as it has")))
            }
        }
    )*};
}
saved_integers!(u8, u16, u32, u64, u128, i64);

impl Saved for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        match u8::decode(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Value("bool")),
        }
    }
}

impl<T: Saved> Saved for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        bool::decode(from)?.then(|| T::decode(from)).transpose()
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let len = u64::decode(from)?;
        (0..len).map(|_| T::decode(from)).collect()
    }
}

impl<T: Saved> Saved for std::collections::VecDeque<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u64).encode(out);
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        Vec::decode(from).map(Self::from)
    }
}

impl<T: Saved, const N: usize> Saved for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let items = (0..N).map(|_| T::decode(from)).collect::<Result<Vec<_>, _>>()?;
        items.try_into().map_err(|_| StateError::Short)
    }
}

/// Makes a struct [`Saved`], naming each of its fields in the order in which they are written.
#[macro_export]
macro_rules! saved_fields {
    ($t:ty { $($field:ident),* $(,)? }) => {
        impl $crate::state::Saved for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($crate::state::Saved::encode($field, out);)*
            }
            fn decode(
                from: &mut $crate::state::Reader<'_>,
            ) -> Result<Self, $crate::state::StateError> {
                $(let $field = $crate::state::Saved::decode(from)?;)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// The saved state of one part: its name and version lie outside the bytes that they describe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Name of the part, unique in a machine.
    pub id: String,
    /// Version of the bytes.
    pub version: u32,
    /// Canonical bytes.
    pub bytes: Vec<u8>,
}

impl Section {
    /// The section of a part.
    pub fn of<T: Saved>(id: &str, version: u32, value: &T) -> Self {
        Self { id: id.to_owned(), version, bytes: to_bytes(value) }
    }

    /// The part that the section holds.
    ///
    /// # Errors
    /// When it is another section, another version, or damaged.
    pub fn read<T: Saved>(&self, id: &str, version: u32) -> Result<T, StateError> {
        if self.id != id {
            return Err(StateError::Section { expected: id.to_owned(), found: self.id.clone() });
        }
        if self.version != version {
            let id = id.to_owned();
            return Err(StateError::Version { id, expected: version, found: self.version });
        }
        from_bytes(&self.bytes)
    }
}

/// All sections of a machine, in its fixed order. RAM and disk are not in here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineState {
    /// CPU first, then the devices.
    pub sections: Vec<Section>,
}

impl MachineState {
    /// One run of bytes: for each section id, version, length and bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        (self.sections.len() as u64).encode(&mut out);
        for Section { id, version, bytes } in &self.sections {
            id.as_bytes().to_vec().encode(&mut out);
            version.encode(&mut out);
            bytes.encode(&mut out);
        }
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = Reader::new(bytes);
        let count = u64::decode(&mut reader)?;
        let sections = (0..count)
            .map(|_| {
                let id = String::from_utf8(Vec::decode(&mut reader)?)
                    .map_err(|_| StateError::Value("section id"))?;
                let version = u32::decode(&mut reader)?;
                let bytes = Vec::decode(&mut reader)?;
                Ok(Section { id, version, bytes })
            })
            .collect::<Result<_, StateError>>()?;
        reader.finish()?;
        Ok(Self { sections })
    }

    /// Adds the bytes of every section to a digest, each with its name, version and length.
    pub fn digest_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Part {
        a: u8,
        b: Option<u32>,
        c: Vec<u16>,
        d: [bool; 3],
    }
    saved_fields!(Part { a, b, c, d });

    fn part() -> Part {
        Part { a: 7, b: Some(9), c: vec![1, 2], d: [true, false, true] }
    }

    #[test]
    fn values_come_back() {
        let bytes = to_bytes(&part());
        assert_eq!(bytes, [7, 1, 9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0, 1]);
        assert_eq!(from_bytes::<Part>(&bytes), Ok(part()));
    }

    #[test]
    fn damage_is_refused() {
        let bytes = to_bytes(&part());
        assert_eq!(from_bytes::<Part>(&bytes[..bytes.len() - 1]), Err(StateError::Short));
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(from_bytes::<Part>(&long), Err(StateError::Long(1)));
        let mut odd = bytes;
        odd[1] = 2;
        assert_eq!(from_bytes::<Part>(&odd), Err(StateError::Value("bool")));
        let huge = [0xff; 8];
        assert_eq!(from_bytes::<Vec<u8>>(&huge), Err(StateError::Short));
    }

    #[test]
    fn a_section_knows_its_name_and_version() {
        let section = Section::of("part", 2, &part());
        assert_eq!(section.read::<Part>("part", 2), Ok(part()));
        assert!(matches!(section.read::<Part>("other", 2), Err(StateError::Section { .. })));
        assert!(matches!(section.read::<Part>("part", 3), Err(StateError::Version { .. })));
        let state = MachineState { sections: vec![section] };
        assert_eq!(MachineState::from_bytes(&state.to_bytes()), Ok(state));
    }
}
