//! What both sides of a pair must agree on: positions, inputs, ids, the pair's protocol as a state
//! machine without I/O, the wire schema, digests, page deltas, transport.

pub mod account;
pub mod bulk;
pub mod digest;
pub mod ids;
pub mod input;
pub mod output;
pub mod page_digests;
pub mod position;
pub mod protocol;
pub mod scrub;
pub mod supervision;
pub mod telemetry;

pub mod schema;
pub mod transport;

pub use schema::pair_capnp;

pub use ids::{Epoch, Generation, PairId, Side};
pub use input::Input;
pub use output::{Output, PowerEvent, Stream};
pub use position::Position;
