//! Why nothing is planned for something.

use std::io;

use super::Refusal;

/// Why there is no step.
#[derive(Debug)]
pub(super) enum NoStep {
    /// Files cannot be read: nothing is planned at all.
    Unreadable(io::Error),
    /// It stays as it is.
    Refused(Refusal),
}

impl NoStep {
    /// Why it stays as it is; an error of the disk is passed on.
    pub(super) fn refusal(self) -> io::Result<Refusal> {
        match self {
            Self::Unreadable(error) => Err(error),
            Self::Refused(refusal) => Ok(refusal),
        }
    }
}

impl From<io::Error> for NoStep {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Refusal> for NoStep {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
