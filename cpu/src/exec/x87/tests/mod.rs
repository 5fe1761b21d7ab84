//! Tests of the x87: against the host's, and tables of constants.

mod control;
mod differential;
mod native;
mod table;
