//! The Master: runs the guest live, records inputs, ends epochs, repairs the Slave.
