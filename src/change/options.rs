//! What a plan is made for.

use crate::change::plan::Mode;
use crate::tsdb::{Assumed, Version};
use crate::wal::Corrections;

/// What a plan is to keep, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is kept.
    pub mode: Mode,
    /// Who is to read the directory next.
    pub assumed: Assumed,
    /// Which flipped bits are corrected.
    pub corrections: Corrections,
    /// Whether index and `meta.json` of blocks are changed that have been uploaded to object storage.
    pub rewrite_uploaded: bool,
}

impl Options {
    /// What `walfix repair` is given for them.
    pub(super) fn arguments(&self) -> String {
        let mode = match self.mode {
            Mode::Salvage => "salvage",
            Mode::Prometheus => "prometheus",
        };
        let version = self.assumed.version;
        let version =
            if version == Version::NEWEST { String::new() } else { format!(" --prometheus {version}") };
        let agent = if self.assumed.agent { " --agent" } else { "" };
        let corrections = match self.corrections {
            Corrections::Sure => "",
            Corrections::Large => " --correct-large",
        };
        format!("--mode {mode}{version}{agent}{corrections}")
    }
}
