//! Segment loads and far transfers.
