//! Versions of Prometheus, as numbers. What they differ in is the forecast's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of Prometheus. Ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

/// What is no version, or one that is too old.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It has not the form of one.
    #[error("{0:?} is no version of Prometheus; give one like 3.5 or 2.53.3")]
    Form(String),
    /// It is older than what is modelled.
    #[error("walfix forecasts Prometheus {oldest} and later, and {0} is older", oldest = Version::OLDEST)]
    TooOld(Version),
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl Version {
    /// The newest whose source was read for this model. Later ones are taken to do the same.
    pub const NEWEST: Self = Self::new(3, 16, 0);
    /// The oldest that is modelled.
    pub const OLDEST: Self = Self::new(2, 30, 0);

    /// Of its three numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether it is of this minor version, or a later one.
    pub(crate) fn since(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// `3.5`, `v2.53.3`, `3.14.0-rc.1`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError::Form(text.to_owned());
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().map_err(|_| wrong()));
        let (major, minor) = (parts.next().ok_or_else(wrong)??, parts.next().ok_or_else(wrong)??);
        let patch = parts.next().transpose()?.unwrap_or(0);
        if parts.next().is_some() {
            return Err(wrong());
        }
        let version = Self { major, minor, patch };
        if version < Self::OLDEST { Err(VersionError::TooOld(version)) } else { Ok(version) }
    }
}

/// As Prometheus's releases are spoken of: without the third number where it is 0.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// Which Prometheus is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Its version.
    pub version: Version,
    /// Whether it runs as an agent.
    pub agent: bool,
}

impl Default for Assumed {
    fn default() -> Self {
        Self { version: Version::NEWEST, agent: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_written() {
        for (text, version, written) in [
            ("3.5", Version::new(3, 5, 0), "3.5"),
            ("v2.53.3", Version::new(2, 53, 3), "2.53.3"),
            ("3.14.0-rc.1", Version::new(3, 14, 0), "3.14"),
            ("2.42.0+ds", Version::new(2, 42, 0), "2.42"),
        ] {
            assert_eq!(text.parse(), Ok(version));
            assert_eq!(version.to_string(), written);
        }
        for text in ["", "3", "three", "3.x", "3.5.1.2", "3.5.", "-3.5"] {
            assert_eq!(text.parse::<Version>(), Err(VersionError::Form(text.into())), "{text:?}");
        }
        assert_eq!("2.9.2".parse::<Version>(), Err(VersionError::TooOld(Version::new(2, 9, 2))));
        assert!(Version::new(3, 2, 0) < Version::new(3, 10, 0));
    }
}
