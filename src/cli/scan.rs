//! `walfix scan`.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use walfix::report::{json, text};
use walfix::scan::frames;
use walfix::scan::report::{Report, Severity, Verdict};
use walfix::tsdb::{Target, TargetError};
use walfix::verdict::{self, Diagnosis};

use super::progress::Bar;
use super::{EXIT_STATUS, Exit, Format, Global, print};

/// Damages around which fragments are shown.
const FRAMED: usize = 20;

/// Where Prometheus's image keeps its data.
pub(super) const USUAL: &str = "/prometheus";

const EXAMPLES: &str = "\
Examples:
  walfix scan                              the current directory, or /prometheus
  walfix scan /prometheus                  a data directory
  walfix scan /prometheus/wal/00000042     one segment
  walfix scan --quiet && echo no damage    in a script
  walfix scan --format json | jq .verdict";

/// Read everything; say what is damaged, and what Prometheus would do about it; change nothing.
///
/// Reads every byte of the write-ahead log, its checkpoints, the write-behind log, chunk snapshots and head chunks, and blocks as far
/// as --depth says. It says what is damaged, where, and what that costs. It opens files for reading only, so it works beside a running Prometheus, on a read-only
/// mount and on a failing disk.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Scan {
    /// A data directory, or its wal/, wbl/, a checkpoint, a chunk snapshot or one segment [default: the current
    /// directory if it is one of these, else /prometheus].
    path: Option<PathBuf>,
    /// Show the fragments around each damaged place, raw, for a bug report.
    #[arg(long)]
    frames: bool,
}

impl Scan {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        if self.frames && global.format == Format::Json {
            eprintln!("walfix: --frames is for --format text; the JSON has the offsets");
            return Ok(Exit::Usage);
        }
        let target = match &self.path {
            Some(path) => Target::find(path)?,
            None => usual_target(Path::new(USUAL))?,
        };
        let options = global.how();
        let diagnosis = if global.quiet {
            verdict::diagnose(&target, &options, &())
        } else {
            verdict::diagnose(&target, &options, &Bar::new())
        }?;
        let Diagnosis { report, forecast, plans } = &diagnosis;
        let plans = plans.as_ref().filter(|_| report.verdict == Verdict::Damaged);
        print(|out| match global.format {
            Format::Json => json::write(report, forecast.as_ref(), plans, out),
            Format::Text => {
                let style = text::Style { colour: global.colour(), quiet: global.quiet };
                text::write(report, forecast.as_ref(), plans, out, style)?;
                if self.frames { frames_of(&target, report, out) } else { Ok(()) }
            }
        })?;
        Ok(match report.verdict {
            Verdict::Clean => Exit::Clean,
            Verdict::Damaged => Exit::Damaged,
        })
    }
}

/// The fragments around what is damaged.
fn frames_of(target: &Target, report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
    for finding in report.of_severity(Severity::Damage).take(FRAMED) {
        let (Some(start), Some(end)) = (finding.offset, finding.end) else { continue };
        let path = target.path_of(&finding.path);
        // It may have been removed since it was read.
        if let Ok(around) = frames::around(&path, &(start..end)) {
            walfix::report::frames::write(finding, &around, out)?;
        }
    }
    let more = report.of_severity(Severity::Damage).count().saturating_sub(FRAMED);
    if more > 0 {
        writeln!(out, "\n... and {more} more; scan one segment to see those of it")?;
    }
    Ok(())
}

/// What to read if nothing is said.
pub(super) fn usual_target(usual: &Path) -> anyhow::Result<Target> {
    let here = std::env::current_dir().context("cannot tell the current directory; give a PATH")?;
    let why = match Target::find(&here) {
        // An empty directory is a new volume only if it is named.
        Ok(target) if !target.is_new() => return Ok(target),
        Ok(_) => TargetError::Other(here),
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
