//! Sides that do not fit turn each other away, and say why.

use ft_pair_shared::protocol::Incarnation;
use ft_pair_shared::transport::{ControlEnd, Counter, Greeting};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::LocalSet;

fn greeting(program: &str, agreement: &str) -> Greeting {
    Greeting {
        program: program.to_owned(),
        agreement: agreement.as_bytes().to_vec(),
        incarnation: Incarnation(1),
    }
}

/// What each of two connected sides makes of the other: the accepting one first.
fn meet(server: Greeting, client: Greeting) -> [Result<Greeting, String>; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (out, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        // Messages are not looked at, but their receivers have to be there.
        let (a, _a) = unbounded_channel();
        let (b, _b) = unbounded_channel();
        let counter = Counter::default();
        let (stream, _) = accepted.unwrap();
        let accepting = ControlEnd::new(stream, true, server.clone(), &counter, a).unwrap();
        let calling = ControlEnd::new(out.unwrap(), false, client.clone(), &counter, b).unwrap();
        let (there, here) = tokio::join!(accepting.greet(&server), calling.greet(&client));
        [there.map_err(|e| e.to_string()), here.map_err(|e| e.to_string())]
    })
}

#[test]
fn sides_that_fit_learn_who_the_other_is() {
    let (a, b) = (greeting("ft-pair 1", "memory 1"), greeting("ft-pair 1", "memory 1"));
    assert_eq!(meet(a.clone(), b.clone()), [Ok(b), Ok(a)]);
}

#[test]
fn another_build_is_turned_away() {
    let said = meet(greeting("ft-pair 1", "memory 1"), greeting("ft-pair 2", "memory 1"));
    for text in said.map(Result::unwrap_err) {
        assert!(text.contains("ft-pair 1") && text.contains("ft-pair 2"), "{text}");
        assert!(text.contains("run the same build"), "a way out: {text}");
    }
}

#[test]
fn another_guest_is_turned_away() {
    let said = meet(greeting("ft-pair 1", "memory 1"), greeting("ft-pair 1", "memory 2"));
    for text in said.map(Result::unwrap_err) {
        assert!(text.contains("memory 1") && text.contains("memory 2"), "{text}");
        assert!(text.contains("same image and settings"), "a way out: {text}");
    }
}
