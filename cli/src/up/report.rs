//! What the supervisor says to people: status lines, also to whoever started it in the background.

use crate::terminal;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;

/// Says things. A supervisor in the background says them to its starter, until that is content.
#[derive(Clone)]
pub struct Reporter {
    quiet: bool,
    starter: Option<Rc<RefCell<Option<UnixStream>>>>,
    said: Rc<RefCell<VecDeque<(Instant, String)>>>,
}

/// Lines that `status` can show afterwards.
const REMEMBERED: usize = 20;

impl Reporter {
    /// Speaks on standard error.
    pub fn foreground(quiet: bool) -> Self {
        Self { quiet, starter: None, said: Rc::default() }
    }

    /// Speaks to the starter.
    pub fn background(quiet: bool, starter: UnixStream) -> Self {
        let starter = Some(Rc::new(RefCell::new(Some(starter))));
        Self { quiet, starter, said: Rc::default() }
    }

    /// A status line; not with `-q`.
    pub fn status(&self, text: &str) {
        self.remember(text);
        if !self.quiet {
            self.say(text);
        }
    }

    /// A line that is never left out.
    pub fn warn(&self, text: &str) {
        self.remember(text);
        self.say(text);
    }

    /// The last lines, also those that nobody saw, with the seconds since.
    pub fn said(&self) -> Vec<Value> {
        let said = self.said.borrow();
        let line = |(at, text): &(Instant, String)| json!({ "ago_s": at.elapsed().as_secs_f64(), "text": text });
        said.iter().map(line).collect()
    }

    fn remember(&self, text: &str) {
        let mut said = self.said.borrow_mut();
        if said.len() == REMEMBERED {
            said.pop_front();
        }
        said.push_back((Instant::now(), text.to_owned()));
    }

    fn say(&self, text: &str) {
        match &self.starter {
            None => terminal::line(&format!("ft-pair: {text}")),
            Some(_) => self.tell(&json!({ "say": text })),
        }
    }

    /// The pair is up: the starter may go.
    pub fn ready(&self) {
        self.tell(&json!({ "ready": true }));
        if let Some(starter) = &self.starter {
            starter.borrow_mut().take();
        }
    }

    /// The pair has failed.
    pub fn failed(&self, text: &str, code: u8) {
        self.tell(&json!({ "failed": text, "code": code }));
    }

    fn tell(&self, value: &Value) {
        if let Some(starter) = &self.starter
            && let Some(stream) = starter.borrow_mut().as_mut()
        {
            // A starter that was killed need not hear it.
            drop(writeln!(stream, "{value}"));
        }
    }
}
