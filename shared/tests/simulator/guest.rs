//! The guest: a deterministic function of its inputs and of where it took them.

use crate::rng::mix;
use ft_pair_shared::protocol::RootDigest;
use ft_pair_shared::{Output, Position, Stream};

/// All of the guest's state. `node` names its history in [`History`]; the guest does not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    pub hash: u64,
    pub steps: u64,
    pub inputs: u64,
    pub outputs: u64,
    pub flushes: u64,
    pub node: usize,
    pub power: Power,
}

/// Whether the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    /// The button was pressed: the next step is the last.
    Pressed,
    /// It has said its last word.
    Off,
}

/// The input that is the power button. Nobody types it.
pub const BUTTON: u8 = 0;
/// The guest's last word. It may say this before, too.
pub const LAST_WORD: u8 = 0xff;

impl Guest {
    pub fn power_on() -> Self {
        Self { hash: 1, steps: 0, inputs: 0, outputs: 0, flushes: 0, node: 0, power: Power::On }
    }

    pub fn step(&mut self) -> Option<Output> {
        if self.power == Power::Off {
            return None;
        }
        self.hash = mix(self.hash, self.steps);
        self.steps += 1;
        if self.power == Power::Pressed {
            self.power = Power::Off;
            return Some(self.say(LAST_WORD));
        }
        if self.hash.is_multiple_of(11) {
            self.flushes += 1;
        }
        self.hash.is_multiple_of(4).then(|| self.say((self.hash >> 8) as u8))
    }

    fn say(&mut self, byte: u8) -> Output {
        let seq = self.outputs;
        self.outputs += 1;
        Output {
            stream: Stream::Console,
            seq,
            position: self.position(),
            bytes: vec![byte],
            after_flush: self.flushes,
        }
    }

    /// What an input does to the state that the guest sees.
    pub fn feel(&mut self, value: u8) {
        self.hash = mix(self.hash, 0x1000 + u64::from(value));
        self.inputs += 1;
        if value == BUTTON {
            self.power = Power::Pressed;
        }
    }

    pub fn position(&self) -> Position {
        Position::at(self.steps)
    }

    pub fn take(&mut self, value: u8, history: &mut History) {
        let input = Happened::Input { step: self.steps, number: self.inputs, value };
        self.node = history.add(self.node, input);
        self.feel(value);
    }

    pub fn corrupt(&mut self, history: &mut History) {
        self.node = history.add(self.node, Happened::Corruption { step: self.steps });
        self.hash = mix(self.hash, 0xbad);
    }

    pub fn digest(&self) -> RootDigest {
        let mut digest = [0; 32];
        let all = mix(self.hash, mix(self.steps, mix(self.inputs, self.outputs)));
        digest[..8].copy_from_slice(&all.to_le_bytes());
        RootDigest(digest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    PowerOn,
    Input { step: u64, number: u64, value: u8 },
    Corruption { step: u64 },
}

/// What happened to each state of the guest, as a tree: states share the history before they part.
pub struct History {
    nodes: Vec<(usize, Happened)>,
}

impl History {
    pub fn new() -> Self {
        Self { nodes: vec![(0, Happened::PowerOn)] }
    }

    fn add(&mut self, parent: usize, what: Happened) -> usize {
        self.nodes.push((parent, what));
        self.nodes.len() - 1
    }

    /// From power-on to `node`.
    pub fn path(&self, mut node: usize) -> Vec<(usize, Happened)> {
        let mut path = Vec::new();
        while node != 0 {
            let (parent, what) = self.nodes[node];
            path.push((node, what));
            node = parent;
        }
        path.reverse();
        path
    }
}
