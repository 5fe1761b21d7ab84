//! The Slave: replays, digests, applies repairs, goes live.
