//! Tables of constants for the transcendental functions.
