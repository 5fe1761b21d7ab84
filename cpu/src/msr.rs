//! RDMSR and WRMSR.
