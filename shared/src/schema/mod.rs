//! Code generated from `schema/pair.capnp`; `tests/schema.rs` keeps it current.
#![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]

#[rustfmt::skip]
pub mod pair_capnp;
