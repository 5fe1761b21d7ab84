//! CPUID: one fixed, documented model.
