//! The command `ft-pair`.
fn main() {}
