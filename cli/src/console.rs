//! Where a guest's console output goes: standard output, attached consoles, and a ring for those that
//! attach later.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What somebody who attaches sees of the past.
const RING: usize = 64 << 10;
/// Standard output may be this far behind before the guest has to wait.
const BACKLOG: u64 = 4 << 20;
/// An attached console that is so many pieces behind is dropped.
const PIECES: usize = 4096;

/// Standard output, written by a thread of its own so that a stopped terminal stops nothing else.
struct Stdout {
    pieces: std::sync::mpsc::Sender<Vec<u8>>,
    behind: Arc<AtomicU64>,
    moved: Arc<Notify>,
}

impl Stdout {
    fn start() -> Self {
        let (pieces, queue) = std::sync::mpsc::channel::<Vec<u8>>();
        let behind = Arc::new(AtomicU64::new(0));
        let moved = Arc::new(Notify::new());
        let (count, notify) = (Arc::clone(&behind), Arc::clone(&moved));
        std::thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            while let Ok(piece) = queue.recv() {
                // With the terminal gone the guest goes on; others may attach.
                drop(out.write_all(&piece).and_then(|()| out.flush()));
                count.fetch_sub(piece.len() as u64, Relaxed);
                notify.notify_one();
            }
        });
        Self { pieces, behind, moved }
    }

    fn write(&self, bytes: &[u8]) {
        self.behind.fetch_add(bytes.len() as u64, Relaxed);
        // The thread lives as long as this.
        drop(self.pieces.send(bytes.to_vec()));
    }
}

/// The hub of a guest's console.
pub struct Hub {
    ring: VecDeque<u8>,
    attached: Vec<Sender<Vec<u8>>>,
    stdout: Option<Stdout>,
}

impl Hub {
    /// A hub, with standard output or without.
    pub fn new(stdout: bool) -> Self {
        Self { ring: VecDeque::new(), attached: Vec::new(), stdout: stdout.then(Stdout::start) }
    }

    /// Output of the guest.
    pub fn write(&mut self, bytes: &[u8]) {
        self.ring.extend(bytes);
        let surplus = self.ring.len().saturating_sub(RING);
        self.ring.drain(..surplus);
        if let Some(stdout) = &self.stdout {
            stdout.write(bytes);
        }
        self.attached.retain(|console| console.try_send(bytes.to_vec()).is_ok());
    }

    /// Attaches a console: it gets what the ring holds, then what comes.
    pub fn attach(&mut self) -> Receiver<Vec<u8>> {
        let (sender, receiver) = channel(PIECES);
        let past: Vec<u8> = self.ring.iter().copied().collect();
        if !past.is_empty() {
            // A new channel has room.
            drop(sender.try_send(past));
        }
        self.attached.push(sender);
        receiver
    }

    /// True if the guest has to wait for standard output.
    pub fn behind(&self) -> bool {
        self.stdout.as_ref().is_some_and(|out| out.behind.load(Relaxed) > BACKLOG)
    }

    /// Signalled whenever standard output got on.
    pub fn moved(&self) -> Arc<Notify> {
        self.stdout.as_ref().map_or_else(|| Arc::new(Notify::new()), |out| Arc::clone(&out.moved))
    }

    /// Waits until standard output has everything, for a while.
    pub fn finish(&mut self) {
        self.attached.clear();
        let Some(stdout) = &self.stdout else { return };
        let until = Instant::now() + Duration::from_secs(5);
        while stdout.behind.load(Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_attaches_late_sees_the_end_of_the_past_and_all_that_comes() {
        let mut hub = Hub::new(false);
        hub.write(&vec![b'a'; RING]);
        hub.write(b"bc");
        let mut console = hub.attach();
        hub.write(b"d");
        let past = console.try_recv().unwrap();
        assert_eq!(past.len(), RING);
        assert!(past.ends_with(b"abc"));
        assert_eq!(console.try_recv().unwrap(), b"d");
    }
}
