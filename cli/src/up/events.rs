//! The event stream: a file of JSON lines, and totals for `stats`.

use ft_pair_shared::Epoch;
use ft_pair_shared::account::Bytes;
use ft_pair_shared::telemetry::Event;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{LineWriter, Write};
use std::time::Instant;

/// Mean and maximum of what is measured in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Measure {
    count: u64,
    mean: f64,
    max: u64,
}

impl Measure {
    fn add(&mut self, value: u64) {
        self.count += 1;
        self.mean += (value as f64 - self.mean) / self.count as f64;
        self.max = self.max.max(value);
    }
}

/// What the pair has done so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    epochs: u64,
    dirty_pages: u64,
    diverged_pages: u64,
    bytes: Bytes,
    bytes_total: u64,
    pause_us: Measure,
    commit_us: Measure,
    lag_us: Measure,
    held_us: Measure,
    output_bytes: u64,
    resyncs: u64,
    resync_bytes: u64,
    failovers: Vec<Value>,
}

/// Writes and counts events.
pub struct Events {
    file: Option<LineWriter<File>>,
    began: Instant,
    totals: Totals,
    epoch: Epoch,
}

impl Events {
    /// Events go to `file`, if there is one.
    pub fn new(file: Option<File>) -> Self {
        let file = file.map(LineWriter::new);
        Self { file, began: Instant::now(), totals: Totals::default(), epoch: Epoch(0) }
    }

    /// When the pair began.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// The last epoch that was heard of.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Totals so far.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// A new power cycle counts its epochs from the start.
    pub fn new_cycle(&mut self) {
        self.epoch = Epoch(0);
    }

    /// Notes an event; `more` adds fields that only the supervisor knows.
    pub fn note(&mut self, event: &Event, more: &[(&str, Value)]) {
        let mut value = serde_json::to_value(event).expect("events have string keys only");
        value["t_ms"] = json!(self.began.elapsed().as_micros() as f64 / 1000.0);
        for (key, field) in more {
            value[*key] = field.clone();
        }
        self.count(event, &value);
        if let Some(file) = &mut self.file
            && let Err(error) = writeln!(file, "{value}")
        {
            crate::terminal::line(&format!("ft-pair: the events end here: {error}"));
            self.file = None;
        }
    }

    fn count(&mut self, event: &Event, value: &Value) {
        let totals = &mut self.totals;
        match event {
            Event::Epoch {
                epoch,
                position: _,
                dirty_pages,
                diverged_pages,
                bytes,
                pause_us,
                commit_us,
                lag_us,
            } => {
                self.epoch = self.epoch.max(*epoch);
                totals.epochs += 1;
                totals.dirty_pages += dirty_pages;
                totals.diverged_pages += diverged_pages;
                totals.bytes.merge(bytes);
                totals.bytes_total = totals.bytes.total();
                totals.pause_us.add(*pause_us);
                if *commit_us > 0 {
                    totals.commit_us.add(*commit_us);
                    totals.lag_us.add(*lag_us);
                }
            }
            Event::Output { bytes, held_us, .. } => {
                totals.output_bytes += bytes;
                totals.held_us.add(*held_us);
            }
            Event::Failover { .. } => totals.failovers.push(value.clone()),
            Event::Resync { bytes, .. } => {
                totals.resyncs += 1;
                totals.resync_bytes += bytes;
            }
            Event::Boot { .. } | Event::Exit { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_line_names_its_event_and_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut events = Events::new(Some(file.reopen().unwrap()));
        events.note(&Event::Exit { reason: "off".into() }, &[("code", json!(0))]);
        let mut text = String::new();
        file.reopen().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains(r#""event":"exit""#), "{text}");
        let value: Value = serde_json::from_str(text.trim()).unwrap();
        assert!(value["t_ms"].is_f64());
        assert_eq!(value["code"], 0);
    }
}
