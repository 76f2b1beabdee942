//! `walfix scan`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use walfix::report::{json, text};
use walfix::scan::report::Verdict;
use walfix::tsdb::Target;

use super::progress::Bar;
use super::{EXIT_STATUS, Exit, Format, Global, print};

/// Where Prometheus's image keeps its data.
const USUAL: &str = "/prometheus";

const EXAMPLES: &str = "\
Examples:
  walfix scan                              the current directory, or /prometheus
  walfix scan /prometheus                  a data directory
  walfix scan /prometheus/wal/00000042     one segment
  walfix scan --quiet && echo no damage    in a script
  walfix scan --format json | jq .verdict";

/// Read everything and say what is damaged; changes nothing.
///
/// Reads every byte of the write-ahead log, its checkpoints, the write-behind log and chunk snapshots, and says what is damaged,
/// where, and what that costs. It opens files for reading only, so it works beside a running Prometheus, on a read-only
/// mount and on a failing disk.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Scan {
    /// A data directory, or its wal/, wbl/, a checkpoint, a chunk snapshot or one segment [default: the current
    /// directory if it is one of these, else /prometheus].
    path: Option<PathBuf>,
}

impl Scan {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        let target = match &self.path {
            Some(path) => Target::find(path)?,
            None => usual_target(Path::new(USUAL))?,
        };
        let options = walfix::scan::Options { threads: global.threads };
        let report = if global.quiet {
            walfix::scan::scan(&target, &options, &())
        } else {
            let bar = Bar::new();
            walfix::scan::scan(&target, &options, &bar)
        }?;
        print(|out| match global.format {
            Format::Json => json::write(&report, out),
            Format::Text => {
                let style = text::Style { colour: global.colour(), quiet: global.quiet };
                text::write(&report, out, style)
            }
        })?;
        Ok(match report.verdict {
            Verdict::Clean => Exit::Clean,
            Verdict::Damaged => Exit::Damaged,
        })
    }
}

/// What to read if nothing is said.
fn usual_target(usual: &Path) -> anyhow::Result<Target> {
    let here = std::env::current_dir().context("cannot tell the current directory; give a PATH")?;
    let why = match Target::find(&here) {
        Ok(target) => return Ok(target),
        Err(why) => why,
    };
    if usual.exists() {
        return Ok(Target::find(usual)?);
    }
    Err(why).with_context(|| {
        format!(
            "nothing to scan: the current directory is no data directory of Prometheus nor a part of one, \
             and there is no {}; give a PATH",
            usual.display()
        )
    })
}
