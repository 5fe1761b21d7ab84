//! What the supervisor says to people: status lines, also to whoever started it in the background.

use crate::terminal;
use serde_json::json;
use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// Says things. A supervisor in the background says them to its starter, until that is content.
#[derive(Clone)]
pub struct Reporter {
    quiet: bool,
    starter: Option<Rc<RefCell<Option<UnixStream>>>>,
}

impl Reporter {
    /// Speaks on standard error.
    pub const fn foreground(quiet: bool) -> Self {
        Self { quiet, starter: None }
    }

    /// Speaks to the starter.
    pub fn background(quiet: bool, starter: UnixStream) -> Self {
        Self { quiet, starter: Some(Rc::new(RefCell::new(Some(starter)))) }
    }

    /// A status line; not with `-q`.
    pub fn status(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// A line that is never left out.
    pub fn warn(&self, text: &str) {
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

    fn tell(&self, value: &serde_json::Value) {
        if let Some(starter) = &self.starter
            && let Some(stream) = starter.borrow_mut().as_mut()
        {
            // A starter that was killed need not hear it.
            drop(writeln!(stream, "{value}"));
        }
    }
}
