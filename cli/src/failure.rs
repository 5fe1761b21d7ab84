//! Exit codes: 0 fine, 1 the guest or the pair failed, 2 wrong use.

use std::fmt::Display;
use std::process::ExitCode;

/// The guest or the pair failed.
pub const FAILED: u8 = 1;
/// Wrong use: the command line, or what it names.
pub const WRONG_USE: u8 = 2;

/// Marks an error as the user's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct WrongUse(anyhow::Error);

/// Turns a failed result into one that exits with [`WRONG_USE`].
pub trait OrWrongUse<T> {
    /// See the trait.
    fn or_wrong_use(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrWrongUse<T> for Result<T, E> {
    fn or_wrong_use(self) -> anyhow::Result<T> {
        self.map_err(|error| WrongUse(error.into()).into())
    }
}

/// An error that exits with [`WRONG_USE`].
pub fn wrong_use(text: impl Display) -> anyhow::Error {
    WrongUse(anyhow::anyhow!("{text}")).into()
}

/// The exit code that belongs to an error.
pub fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<WrongUse>()) { WRONG_USE } else { FAILED }
}

/// Prints an error and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    crate::terminal::line(&format!("ft-pair: {error:#}"));
    ExitCode::from(code(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn wrong_use_shows_through_contexts() {
        let error = Err::<(), _>(wrong_use("no such thing")).context("while trying").unwrap_err();
        assert_eq!(code(&error), WRONG_USE);
        assert_eq!(code(&anyhow::anyhow!("broke")), FAILED);
    }
}
