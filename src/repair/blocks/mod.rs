//! Blocks: the smallest change after which Prometheus opens a block, and all that it names can be read.
//!
//! Files of chunks stay as they are, but for a header, which is always the same. What cannot be read of them the index does not
//! name any more. Symbols and series of an index have checksums of their own; all else in it is made again from these. A block of
//! which nothing can be kept, and that keeps Prometheus from starting, gets a name that Prometheus ignores.

mod files;
mod index;
mod kept;
mod one;
mod tombstones;
mod uploaded;
mod walk;

use std::collections::BTreeMap;
use std::io;

pub(super) use self::index::rewrite;
use self::one::DamagedBlock;
use self::uploaded::Uploaded;
use super::{Options, Refusal, unrepaired};
use crate::change::plan::Plan;
use crate::scan::Scan;
use crate::scan::report::{Finding, LogKind, Severity};
use crate::tsdb::{Target, is_in_block, list_blocks};

/// Whether a finding is about a block, and damage.
pub(super) fn is_of_block(finding: &Finding) -> bool {
    finding.severity == Severity::Damage && is_in_block(&finding.path)
}

/// Adds what repairs the blocks of the data directory `target` to a plan that has all else.
pub(super) fn plan(target: &Target, report: &Scan, options: Options, plan: &mut Plan) -> io::Result<()> {
    let mut of_blocks: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| is_of_block(finding)) {
        let ulid = finding.path.split('/').next().unwrap_or_default();
        of_blocks.entry(ulid).or_default().push(finding);
    }
    if of_blocks.is_empty() {
        return Ok(());
    }
    let blocks = list_blocks(target.path())?;
    let uploaded = Uploaded::read(target.path());
    let logs = report.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
    let log_begins = logs.filter_map(|log| log.min_time).min();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let (mut left, mut lifted) = (Vec::new(), Vec::new());
    for (ulid, findings) in of_blocks {
        let Some(block) = blocks.iter().find(|block| block.ulid == ulid) else {
            left.extend(findings.into_iter().map(|finding| unrepaired(finding, Refusal::NotYet)));
            continue;
        };
        let damaged = DamagedBlock::new(target.path(), block, findings, options, &uploaded, log_begins);
        let planned = damaged.plan()?;
        left.extend(planned.left);
        if damaged.keeps_from_starting() {
            lifted.extend(damaged.refused(&planned.steps, &Refusal::NoStart));
            last.extend(planned.steps);
        } else {
            first.extend(planned.steps);
        }
    }
    // As long as Prometheus does not start it deletes nothing.
    if plan.left.is_empty() {
        plan.steps.extend(last);
    } else {
        plan.left.extend(lifted);
    }
    plan.steps.splice(..0, first);
    plan.left.extend(left);
    Ok(())
}
