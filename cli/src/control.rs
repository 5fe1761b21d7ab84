//! The control socket of a running pair: one JSON object a line each way, then, for a console, raw bytes.

use crate::console::Hub;
use crate::up::Request;
use ft_pair_shared::supervision::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::sync::oneshot;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Who is who.
    Status,
    /// Totals.
    Stats,
    /// Make the Slave live.
    Failover,
    /// Power off; the answer comes when the pair has ended.
    Down,
    /// Press the power button and answer at once.
    PowerOff,
    /// Flip something on the Slave.
    Inject {
        /// What.
        fault: Fault,
    },
    /// Raw bytes of the console from here on.
    Console,
}

/// An answer that says that it did not work.
pub fn refusal(text: &str) -> Value {
    json!({ "error": text })
}

/// Takes connections until the runtime ends.
pub fn serve(
    socket: &Path,
    hub: Rc<RefCell<Hub>>,
    requests: UnboundedSender<Request>,
) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)
        .map_err(|e| anyhow::anyhow!("cannot make the control socket {}: {e}", socket.display()))?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(connection(stream, Rc::clone(&hub), requests.clone()));
        }
    });
    Ok(())
}

async fn connection(stream: UnixStream, hub: Rc<RefCell<Hub>>, requests: UnboundedSender<Request>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let answer = match serde_json::from_str::<Ask>(&line) {
            Ok(Ask::Console) => {
                let output = hub.borrow_mut().attach();
                if writer.write_all(b"{\"ok\":true}\n").await.is_ok() {
                    console(reader, writer, output, requests).await;
                }
                return;
            }
            Ok(ask) => {
                let (reply, answer) = oneshot::channel();
                if requests.send(Request::Ask(ask, reply)).is_err() {
                    return;
                }
                answer.await.unwrap_or_else(|_| refusal("the pair is ending"))
            }
            Err(error) => {
                refusal(&format!("not understood: {error}; use the same ft-pair version"))
            }
        };
        if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn console(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: tokio::net::unix::OwnedWriteHalf,
    mut output: Receiver<Vec<u8>>,
    requests: UnboundedSender<Request>,
) {
    let mut buf = [0; 4096];
    loop {
        tokio::select! {
            piece = output.recv() => match piece {
                Some(bytes) if writer.write_all(&bytes).await.is_ok() => {}
                _ => return,
            },
            read = reader.read(&mut buf) => match read {
                Ok(n @ 1..) if requests.send(Request::Typed(buf[..n].to_vec())).is_ok() => {}
                _ => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_are_short_json() {
        assert_eq!(serde_json::to_string(&Ask::Status).unwrap(), r#"{"ask":"status"}"#);
        let inject = Ask::Inject { fault: Fault::Memory { gpa: 4096 } };
        let text = serde_json::to_string(&inject).unwrap();
        assert_eq!(serde_json::from_str::<Ask>(&text).unwrap(), inject);
    }
}
