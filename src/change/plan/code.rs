//! The code of what a plan is about.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// The code of what a step of a plan repairs, or leaves. A backup may have been made by another version of walfix, and a code
/// that only that one knows keeps no backup from being undone: codes say why something is done, not what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlanCode {
    /// One that this version has.
    Known(Code),
    /// One of another version.
    Unknown(String),
}

impl PlanCode {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(code) => code.name(),
            Self::Unknown(name) => name,
        }
    }
}

impl From<Code> for PlanCode {
    fn from(code: Code) -> Self {
        Self::Known(code)
    }
}

impl PartialEq<Code> for PlanCode {
    fn eq(&self, code: &Code) -> bool {
        matches!(self, Self::Known(own) if own == code)
    }
}

impl fmt::Display for PlanCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_are_read_and_written_as_they_are() {
        for (text, code) in [
            ("\"zeroed_pages\"", PlanCode::Known(Code::ZeroedPages)),
            ("\"of_tomorrow\"", PlanCode::Unknown("of_tomorrow".to_owned())),
        ] {
            assert_eq!(serde_json::from_str::<PlanCode>(text).unwrap(), code);
            assert_eq!(serde_json::to_string(&code).unwrap(), text);
        }
    }
}
