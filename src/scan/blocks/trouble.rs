//! What is wrong with a block, in the order in which it was found, and not more of it than memory should hold.

use std::ops::Range;

use foldhash::HashMap;

use super::detail::BlockDetail;
use crate::scan::code::Code;
use crate::scan::report::{Lost, Severity, Times};

/// Places of one code that are kept one by one. A repair looks at all of them again.
const KEPT: usize = 1000;

/// A place in a block, and what is wrong there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trouble {
    pub(super) code: Code,
    pub(super) severity: Severity,
    /// Below the block.
    pub(super) file: String,
    pub(super) range: Option<Range<u64>>,
    pub(super) detail: BlockDetail,
    /// Series that it is about.
    pub(super) series: Option<u64>,
    pub(super) times: Option<Times>,
    pub(super) places: u64,
}

impl Trouble {
    pub(super) fn new(code: Code, severity: Severity, file: &str, detail: BlockDetail) -> Self {
        Self {
            code,
            severity,
            file: file.to_owned(),
            range: None,
            detail,
            series: None,
            times: None,
            places: 1,
        }
    }

    pub(super) fn at(mut self, range: Range<u64>) -> Self {
        self.range = Some(range);
        self
    }

    /// Only chunks, and series that name them, hold samples.
    pub(super) fn lost(&self) -> Lost {
        let holds_samples = match self.code {
            Code::DamagedBlockChunk | Code::BlockIncomplete | Code::Unreadable => true,
            Code::DamagedBlockIndex => {
                matches!(
                    self.detail,
                    BlockDetail::SeriesUnreadable { .. } | BlockDetail::SymbolMissing { .. }
                )
            }
            _ => false,
        };
        if holds_samples { Lost::default() } else { Lost { records: Some(0), entries: Some(0) } }
    }
}

/// All that is wrong with a block.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    kept: Vec<Trouble>,
    /// By code, how many were found, and the last kept one.
    found: HashMap<Code, (usize, usize)>,
}

impl Troubles {
    pub(super) fn push(&mut self, trouble: Trouble) {
        let (found, last) = self.found.entry(trouble.code).or_default();
        *found += 1;
        if *found <= KEPT {
            *last = self.kept.len();
            self.kept.push(trouble);
        } else if let Some(last) = self.kept.get_mut(*last) {
            if *found == KEPT + 1 {
                let (code, severity) = (trouble.code, trouble.severity.min(last.severity));
                *last =
                    Trouble { places: 2, ..Trouble::new(code, severity, &trouble.file, BlockDetail::More) };
            } else {
                last.places = last.places.saturating_add(1);
            }
        }
    }

    pub(super) fn extend(&mut self, troubles: impl IntoIterator<Item = Trouble>) {
        troubles.into_iter().for_each(|trouble| self.push(trouble));
    }

    pub(super) fn has(&self, code: Code) -> bool {
        self.found.contains_key(&code)
    }

    pub(super) fn into_kept(self) -> Vec<Trouble> {
        self.kept
    }
}
