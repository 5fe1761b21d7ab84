//! Paging, exceptions and privilege, tested with small guests.

mod exceptions;
mod guest;
mod paging;
mod privilege;
mod segments;
