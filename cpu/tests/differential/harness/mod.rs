//! The differential test's parts, and the session that runs them.

mod case;
mod emulated;
pub mod engines;
mod generate;
mod masks;
mod native;
mod report;
mod select;
mod values;
mod vendor;

use case::{DATA_LEN, Outcome};
use emulated::Emulated;
use generate::{Generated, Generator};
use native::Native;
use select::Class;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

/// Mismatches that are described in full; more are only counted.
const DESCRIBED: usize = 40;
/// Mismatches of one mnemonic that are described in full.
const DESCRIBED_EACH: u64 = 2;

/// A number in the environment.
pub fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A run with one seed: generates, executes both ways, compares, counts.
pub struct Session {
    seed: u64,
    generator: Generator,
    native: Native,
    emulated: Emulated,
    background: Box<[u8; DATA_LEN]>,
    classes: BTreeMap<Class, u64>,
    vectors: BTreeMap<u64, u64>,
    traits: BTreeMap<&'static str, u64>,
    codes: BTreeMap<String, u64>,
    mismatches: Vec<String>,
    mismatched: BTreeMap<String, u64>,
    cases: u64,
    started: Instant,
}

impl Session {
    pub fn new(seed: u64) -> Self {
        let background = case::background();
        Self {
            seed,
            generator: Generator::new(seed),
            native: Native::new(&background),
            emulated: Emulated::new(&background),
            background,
            classes: BTreeMap::new(),
            vectors: BTreeMap::new(),
            traits: BTreeMap::new(),
            codes: BTreeMap::new(),
            mismatches: Vec::new(),
            mismatched: BTreeMap::new(),
            cases: 0,
            started: Instant::now(),
        }
    }

    /// Runs `count` cases from number `first` on.
    pub fn run(&mut self, first: u64, count: u64) {
        let followed = ft_pair_cpu::model_follows_this_host();
        let mut at = first;
        while at < first + count {
            let len = (first + count - at).min(native::BATCH as u64);
            let batch: Vec<Generated> =
                (at..at + len).map(|n| self.generator.generate(n, &self.background)).collect();
            let cases: Vec<_> = batch.iter().map(|g| g.case).collect();
            let native = self.native.run(&cases);
            for (i, (generated, host)) in batch.iter().zip(native).enumerate() {
                let ours = self.emulated.run(&generated.case, &self.background);
                let found = match &ours {
                    Ok(ours) if followed => {
                        report::compare(generated, host, ours, &self.background)
                    }
                    Ok(ours) => {
                        let host = vendor::as_modelled(generated, host, ours);
                        report::compare(generated, &host, ours, &self.background)
                    }
                    Err(error) => Some(error.clone()),
                };
                if let Some(difference) = found {
                    let name = format!("{:?}", generated.instruction.code());
                    let seen = self.mismatched.entry(name).or_default();
                    *seen += 1;
                    if self.mismatches.len() < DESCRIBED && *seen <= DESCRIBED_EACH {
                        let place = format!("seed {} case {}", self.seed, at + i as u64);
                        self.mismatches.push(report::describe(&place, generated, &difference));
                    }
                }
                *self.classes.entry(generated.class).or_default() += 1;
                *self.vectors.entry(host.vector).or_default() += 1;
                *self.codes.entry(format!("{:?}", generated.instruction.code())).or_default() += 1;
                for name in generated.traits() {
                    *self.traits.entry(name).or_default() += 1;
                }
                if moved(host, generated) {
                    *self.traits.entry("memory changed").or_default() += 1;
                }
            }
            at += len;
            self.cases += len;
        }
    }

    pub fn mismatches(&self) -> &[String] {
        &self.mismatches
    }

    pub fn mismatch_count(&self) -> u64 {
        self.mismatched.values().sum()
    }

    /// What was run, and how fast.
    pub fn summary(&self) -> String {
        let rate = self.cases as f64 / self.started.elapsed().as_secs_f64();
        let mut text = format!(
            "{} cases of {} instructions, {rate:.0} a second, {} mismatches\n",
            self.cases,
            self.codes.len(),
            self.mismatch_count()
        );
        let _ = writeln!(text, "classes: {:?}", self.classes);
        let _ = writeln!(text, "vectors: {:?}", self.vectors);
        let _ = writeln!(text, "forms: {:?}", self.traits);
        if !self.mismatched.is_empty() {
            let _ = writeln!(text, "mismatches by instruction: {:?}", self.mismatched);
        }
        text
    }

    /// A full run has reached every class, form and exception often enough.
    ///
    /// # Panics
    /// If it has not.
    pub fn assert_coverage(&self) {
        for (class, share) in Class::SHARES {
            let least = self.cases * u64::from(share) / 100 * 8 / 10;
            let count = self.classes.get(&class).copied().unwrap_or(0);
            assert!(count >= least, "{class:?}: {count} cases, expected at least {least}");
        }
        for vector in [0, 1, 6, 13, 14, 16, 19] {
            let count = self.vectors.get(&vector).copied().unwrap_or(0);
            let least = if vector == 6 { 10 } else { self.cases / 1000 };
            assert!(count >= least, "vector {vector}: {count} cases, expected at least {least}");
        }
        for form in generate::FORMS {
            let count = self.traits.get(form).copied().unwrap_or(0);
            let least = self.cases / 2000;
            assert!(count >= least, "{form}: {count} cases, expected at least {least}");
        }
        let all: usize = self.generator.instructions();
        assert!(self.codes.len() * 100 >= all * 99, "{} of {all} codes met", self.codes.len());
    }
}

fn moved(host: &Outcome, generated: &Generated) -> bool {
    let at = generated.case.window_at as usize;
    host.memory[at..at + case::WINDOW] != generated.case.window
}
