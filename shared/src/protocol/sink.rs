//! Where output leaves the pair and console input enters it, in the supervising process.

use super::Mutations;
use crate::{Generation, Input, Output, Stream};
use std::collections::{BTreeMap, VecDeque};

/// Why the sink did not take output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Whoever offers it is fenced and has to stop.
    #[error("output of generation {offered:?} refused: generation {newest:?} was granted, stop")]
    OldGeneration {
        /// The generation of the offer.
        offered: Generation,
        /// The newest that the sink has seen.
        newest: Generation,
    },
    /// Something before it is missing: the pair broke its promise to release all output in order.
    #[error("{stream:?} output {offered} refused: {expected} comes next, the pair lost output")]
    Gap {
        /// Which stream.
        stream: Stream,
        /// The number of the first byte or event offered.
        offered: u64,
        /// The number that comes next.
        expected: u64,
    },
}

/// Drops output that it has had, refuses that of old generations, keeps input until it is committed.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    generation: Generation,
    next: BTreeMap<Stream, u64>,
    /// Console input that no commit covers yet: pieces, each with the number of its first byte.
    inputs: VecDeque<(u64, Vec<u8>)>,
    inputs_next: u64,
    mutations: Mutations,
}

impl Sink {
    /// A sink that has had nothing.
    pub fn new() -> Self {
        Self::default()
    }

    #[doc(hidden)]
    pub fn with_mutations(mutations: Mutations) -> Self {
        Self { mutations, ..Self::default() }
    }

    /// A generation was granted: output of older ones is refused from now on. The witness's process calls
    /// this on every grant; elsewhere the first output of a generation has the same effect.
    pub fn granted(&mut self, generation: Generation) {
        self.generation = self.generation.max(generation);
    }

    /// The newest generation seen.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Takes released output; what is returned is new and goes to the world, in this order.
    pub fn take(
        &mut self,
        generation: Generation,
        outputs: &[Output],
    ) -> Result<Vec<Output>, SinkError> {
        self.check(generation)?;
        outputs.iter().filter_map(|output| self.take_one(output).transpose()).collect()
    }

    fn check(&mut self, offered: Generation) -> Result<(), SinkError> {
        if offered < self.generation && !self.mutations.no_fencing {
            return Err(SinkError::OldGeneration { offered, newest: self.generation });
        }
        self.granted(offered);
        Ok(())
    }

    fn take_one(&mut self, output: &Output) -> Result<Option<Output>, SinkError> {
        let next = self.next.entry(output.stream).or_insert(0);
        if self.mutations.no_deduplication {
            return Ok(Some(output.clone()));
        }
        let expected = *next;
        let end = output.seq + output.bytes.len() as u64;
        if end <= expected {
            return Ok(None);
        }
        if output.seq > expected {
            let (stream, offered) = (output.stream, output.seq);
            return Err(SinkError::Gap { stream, offered, expected });
        }
        *next = end;
        let had = (expected - output.seq) as usize;
        Ok(Some(Output { seq: expected, bytes: output.bytes[had..].to_vec(), ..output.clone() }))
    }

    /// Numbers and keeps console input, and returns it for the live side.
    pub fn input(&mut self, bytes: Vec<u8>) -> Input {
        let first = self.inputs_next;
        self.inputs_next += bytes.len() as u64;
        self.inputs.push_back((first, bytes.clone()));
        Input::Console { first, bytes }
    }

    /// The first `count` bytes of input are covered by a commit: nobody will ask for them again.
    pub fn covered(&mut self, generation: Generation, count: u64) -> Result<(), SinkError> {
        self.check(generation)?;
        assert!(count <= self.inputs_next, "a commit covers only input that there was");
        while self.inputs.front().is_some_and(|(first, b)| first + b.len() as u64 <= count) {
            self.inputs.pop_front();
        }
        Ok(())
    }

    /// What a side that goes live after `taken` bytes of input has to be given, in order.
    pub fn input_after(&self, taken: u64) -> Vec<Input> {
        assert!(
            self.inputs.front().is_none_or(|(first, _)| *first <= taken)
                && (!self.inputs.is_empty() || taken == self.inputs_next),
            "input is kept until the state from which a side may go live covers it"
        );
        let again = self.inputs.iter().filter_map(|(first, bytes)| {
            let had = taken.saturating_sub(*first) as usize;
            (had < bytes.len())
                .then(|| Input::Console { first: first + had as u64, bytes: bytes[had..].to_vec() })
        });
        again.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Position;

    fn text(seq: u64, text: &str) -> Output {
        let (position, bytes) = (Position::ZERO, text.as_bytes().to_vec());
        Output { stream: Stream::Console, seq, position, bytes, after_flush: 0 }
    }

    #[test]
    fn bytes_leave_once_and_in_order() {
        let mut sink = Sink::new();
        assert_eq!(sink.take(Generation(1), &[text(0, "abc")]), Ok(vec![text(0, "abc")]));
        let again = sink.take(Generation(2), &[text(0, "ab"), text(2, "cde")]);
        assert_eq!(again, Ok(vec![text(3, "de")]));
        assert!(matches!(
            sink.take(Generation(1), &[text(5, "f")]),
            Err(SinkError::OldGeneration { .. })
        ));
        assert!(matches!(sink.take(Generation(2), &[text(6, "g")]), Err(SinkError::Gap { .. })));
    }

    #[test]
    fn uncovered_input_comes_again_from_the_right_byte() {
        let mut sink = Sink::new();
        sink.input(b"abc".to_vec());
        sink.input(b"de".to_vec());
        sink.covered(Generation(1), 1).unwrap();
        assert_eq!(
            sink.input_after(2),
            vec![
                Input::Console { first: 2, bytes: b"c".to_vec() },
                Input::Console { first: 3, bytes: b"de".to_vec() }
            ]
        );
        sink.covered(Generation(1), 5).unwrap();
        assert_eq!(sink.input_after(5), vec![]);
    }
}
