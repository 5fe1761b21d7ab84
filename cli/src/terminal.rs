//! The user's terminal: raw while a guest's console is on it, restored however this process ends.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use std::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The terminal's settings before it was made raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Ctrl-A, which begins an escape.
const ESCAPE: u8 = 1;

/// What came from the keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// For the guest.
    Bytes(Vec<u8>),
    /// Ctrl-A x.
    PowerOff,
    /// Ctrl-A d.
    Detach,
    /// Nothing more will come.
    End,
}

/// Makes the terminal on standard input raw, if there is one; true if it is.
pub fn make_raw() -> std::io::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    let old = tcgetattr(&stdin)?;
    let mut raw = old.clone();
    raw.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    *lock() = Some(old);
    Ok(true)
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Gives the terminal back as it was. Harmless if it is not raw.
pub fn restore() {
    if let Some(old) = lock().take() {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &old);
    }
}

/// Restores the terminal before a panic is printed.
pub fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
}

/// Prints a line to standard error, also while the terminal is raw.
pub fn line(text: &str) {
    let end = if lock().is_some() { "\r\n" } else { "\n" };
    let text = text.replace('\n', end);
    // Standard error may be gone with its terminal.
    drop(std::io::stderr().write_all(format!("{text}{end}").as_bytes()));
}

/// Finds escapes in what is typed.
#[derive(Debug, Default)]
pub struct Escapes {
    begun: bool,
}

impl Escapes {
    /// Divides typed bytes into those for the guest and those for us.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut typed = Vec::new();
        let mut plain = Vec::new();
        for byte in bytes {
            let ours = match (std::mem::take(&mut self.begun), byte) {
                (false, &ESCAPE) => {
                    self.begun = true;
                    continue;
                }
                (true, b'x' | b'X') => Typed::PowerOff,
                (true, b'd' | b'D') => Typed::Detach,
                // Anything else is no escape: it goes on as it was typed.
                (true, &ESCAPE) | (false, _) => {
                    plain.push(*byte);
                    continue;
                }
                (true, _) => {
                    plain.extend([ESCAPE, *byte]);
                    continue;
                }
            };
            if !plain.is_empty() {
                typed.push(Typed::Bytes(std::mem::take(&mut plain)));
            }
            typed.push(ours);
        }
        if !plain.is_empty() {
            typed.push(Typed::Bytes(plain));
        }
        typed
    }
}

/// Reads standard input on a thread of its own; escapes count where a person types.
pub fn read_input(escapes: bool) -> UnboundedReceiver<Typed> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || read_loop(escapes, &sender));
    receiver
}

fn read_loop(escapes: bool, sender: &UnboundedSender<Typed>) {
    let mut finder = Escapes::default();
    let mut buf = [0; 4096];
    loop {
        let typed = match std::io::stdin().lock().read(&mut buf) {
            Ok(0) => vec![Typed::End],
            Ok(n) if escapes => finder.feed(&buf[..n]),
            Ok(n) => vec![Typed::Bytes(buf[..n].to_vec())],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => vec![Typed::End],
        };
        for one in typed {
            let end = one == Typed::End;
            if sender.send(one).is_err() || end {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Typed {
        Typed::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn escapes_are_found_across_reads() {
        let mut escapes = Escapes::default();
        assert_eq!(escapes.feed(b"ab\x03\x01"), vec![bytes("ab\x03")]);
        assert_eq!(escapes.feed(b"xcd"), vec![Typed::PowerOff, bytes("cd")]);
        assert_eq!(escapes.feed(b"\x01\x01\x01d"), vec![bytes("\x01"), Typed::Detach]);
        assert_eq!(escapes.feed(b"\x01q"), vec![bytes("\x01q")]);
    }
}
