//! virtio-rng (virtio 1.2 section 5.4): bytes of a seeded generator, so that a replay gets the same.

use super::VirtioDevice;
use crate::guest_view::GuestView;
use crate::saved_fields;
use crate::state::StateError;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::Bytes;

/// The most that one request is given.
const REQUEST_MAX: u32 = 64 << 10;

/// The entropy device.
#[derive(Debug)]
pub struct Entropy {
    rng: ChaCha20Rng,
}

/// Where in its stream the generator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntropyState {
    seed: [u8; 32],
    word: u128,
}
saved_fields!(EntropyState { seed, word });

impl Entropy {
    /// A device that draws from the ChaCha20 stream of `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { rng: ChaCha20Rng::from_seed(seed) }
    }
}

impl VirtioDevice for Entropy {
    type State = EntropyState;
    const VERSION: u32 = 1;
    const TYPE: u16 = 4;
    const CLASS: u32 = 0xff_0000;
    const QUEUES: &'static [u16] = &[64];

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn kick(
        &mut self,
        _index: usize,
        queue: &mut Queue,
        memory: &GuestView,
        _now_ns: u64,
    ) -> Result<bool, Error> {
        let mut used = false;
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let mut given = 0;
            for descriptor in chain.writable() {
                let len = descriptor.len().min(REQUEST_MAX - given);
                let mut bytes = vec![0; len as usize];
                self.rng.fill_bytes(&mut bytes);
                memory.write_slice(&bytes, descriptor.addr()).map_err(Error::GuestMemory)?;
                given += len;
            }
            queue.add_used(memory, head, given)?;
            used = true;
        }
        Ok(used)
    }

    fn reset(&mut self) {}

    fn save(&self) -> EntropyState {
        let Self { rng } = self;
        EntropyState { seed: rng.get_seed(), word: rng.get_word_pos() }
    }

    fn restore(&mut self, state: EntropyState) -> Result<(), StateError> {
        let EntropyState { seed, word } = state;
        self.rng = ChaCha20Rng::from_seed(seed);
        self.rng.set_word_pos(word);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_goes_on_after_a_restore() {
        let mut a = Entropy::new([7; 32]);
        a.rng.fill_bytes(&mut [0; 13]);
        let mut b = Entropy::new([0; 32]);
        b.restore(a.save()).unwrap();
        let draw = |e: &mut Entropy| {
            let mut bytes = [0; 100];
            e.rng.fill_bytes(&mut bytes);
            bytes
        };
        assert_eq!(draw(&mut a), draw(&mut b));
        assert_eq!(a.save(), b.save());
    }
}
