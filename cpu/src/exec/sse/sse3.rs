//! SSE3: horizontal and alternating arithmetic, duplicating moves.

use super::lanes::{from_u32, from_u64, to_u32, to_u64};
use super::{Forms, host};
use iced_x86::Code;

/// Computes on values under an MXCSR; gives the flags too.
type Binary = fn(u128, u128, u32) -> (u128, u32);

pub(super) fn forms(code: Code) -> Option<Forms> {
    Some(match code {
        Code::Haddps_xmm_xmmm128 => float!(|a, b, m| horizontal_ps(a, b, host::addps, m)),
        Code::Hsubps_xmm_xmmm128 => float!(|a, b, m| horizontal_ps(a, b, host::subps, m)),
        Code::Haddpd_xmm_xmmm128 => float!(|a, b, m| horizontal_pd(a, b, host::addpd, m)),
        Code::Hsubpd_xmm_xmmm128 => float!(|a, b, m| horizontal_pd(a, b, host::subpd, m)),
        Code::Addsubps_xmm_xmmm128 => float!(|a, b, m| {
            alternate(a, b, from_u32([!0, 0, !0, 0]), host::subps, host::addps, m)
        }),
        Code::Addsubpd_xmm_xmmm128 => {
            float!(|a, b, m| { alternate(a, b, from_u64([!0, 0]), host::subpd, host::addpd, m) })
        }
        Code::Movsldup_xmm_xmmm128 => packed!(|_, b| {
            let b = to_u32(b);
            from_u32([b[0], b[0], b[2], b[2]])
        }),
        Code::Movshdup_xmm_xmmm128 => packed!(|_, b| {
            let b = to_u32(b);
            from_u32([b[1], b[1], b[3], b[3]])
        }),
        Code::Movddup_xmm_xmmm64 => {
            narrow!(u64, |_, b: u128| b & u128::from(u64::MAX) | b << 64)
        }
        _ => return None,
    })
}

/// Neighbouring lanes of `a`, then of `b`.
fn horizontal_ps(a: u128, b: u128, f: Binary, m: u32) -> (u128, u32) {
    let (a, b) = (to_u32(a), to_u32(b));
    f(from_u32([a[0], a[2], b[0], b[2]]), from_u32([a[1], a[3], b[1], b[3]]), m)
}

fn horizontal_pd(a: u128, b: u128, f: Binary, m: u32) -> (u128, u32) {
    let (a, b) = (to_u64(a), to_u64(b));
    f(from_u64([a[0], b[0]]), from_u64([a[1], b[1]]), m)
}

/// `f` in the lanes of `mask`, `g` in the others. Zeros stand in the lanes that do not count: they raise
/// nothing.
fn alternate(a: u128, b: u128, mask: u128, f: Binary, g: Binary, m: u32) -> (u128, u32) {
    let (x, x_flags) = f(a & mask, b & mask, m);
    let (y, y_flags) = g(a & !mask, b & !mask, m);
    (x & mask | y & !mask, x_flags | y_flags)
}
