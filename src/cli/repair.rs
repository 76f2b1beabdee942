//! `walfix repair`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use walfix::forecast::{Assumed, forecast};
use walfix::repair::{self, Lock, Plan};
use walfix::report::{plan, text};
use walfix::scan::report::{Report, Verdict};
use walfix::tsdb::Target;

use super::progress::Bar;
use super::scan::usual_target;
use super::{EXIT_STATUS, Exit, Format, Global, print};

const EXAMPLES: &str = "\
Examples:
  walfix repair /prometheus                   print the plan, change nothing
  walfix repair --backup /prometheus          repair; the old bytes are kept in /prometheus/walfix-backup-<time>
  walfix repair --backup=/mnt/b /prometheus   keep them in /mnt/b, which is not there yet
  walfix undo /prometheus/walfix-backup-...   put them back";

/// Mend what is damaged, so that only the damaged bytes are lost; without --backup print the plan and change nothing.
///
/// Every record that can be read stays as it is, byte for byte; what is damaged is filled with records that say nothing. Prometheus must
/// be stopped. The bytes that are replaced are kept in a backup, from which `walfix undo` puts them back.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Repair {
    /// A data directory, or a part of one [default: the current directory if it is one of these, else /prometheus].
    path: Option<PathBuf>,
    /// Repair, and keep the old bytes in DIR, which is not there yet [default: walfix-backup-<time> in the data
    /// directory].
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    backup: Option<OsString>,
}

impl Repair {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        let target = match &self.path {
            Some(path) => Target::find(path)?,
            None => usual_target(Path::new(super::scan::USUAL))?,
        };
        let target = target
            .data_directory_around()
            .with_context(|| repair::RepairError::NoDataDirectory(target.path().to_owned()).to_string())?;
        match &self.backup {
            None => {
                let (report, plan) = plan_of(&target, global)?;
                show(&plan, &report, &target, global)?;
                Ok(if report.verdict == Verdict::Clean { Exit::Clean } else { Exit::Damaged })
            }
            Some(backup) => apply(&target, Path::new(backup), global),
        }
    }
}

/// Repairs; the old bytes are kept in `backup`, or where they usually are if it is empty.
fn apply(target: &Target, backup: &Path, global: &Global) -> anyhow::Result<Exit> {
    let lock = Lock::take(target.path())?;
    let resumed = repair::resume(target, &lock)?;
    for removed in &resumed.removed {
        eprintln!(
            "walfix: a repair was interrupted here before it had changed anything; its backup {} is removed",
            removed.display()
        );
    }
    if let Some(backup) = &resumed.finished {
        eprintln!(
            "walfix: a repair was interrupted here; it is finished now, its backup is {}",
            backup.display()
        );
    }
    if let Some((backup, what)) = &resumed.given_up {
        eprintln!(
            "walfix: a repair was interrupted here, and something has changed since: {what}; it is given up, its backup stays in {}",
            backup.display()
        );
    }
    let finished = resumed.finished.is_some();
    let (report, plan) = plan_of(target, global)?;
    if plan.steps.is_empty() {
        show(&plan, &report, target, global)?;
        return Ok(match (report.verdict, finished) {
            (Verdict::Damaged, _) => Exit::Damaged,
            (Verdict::Clean, true) => Exit::Repaired,
            (Verdict::Clean, false) => Exit::Clean,
        });
    }
    let backup =
        if backup.as_os_str().is_empty() { repair::default_backup(target.path()) } else { backup.to_owned() };
    repair::apply(target, &plan, &backup, &lock)?;
    let after = walfix::scan::scan(target, &walfix::scan::Options { threads: global.threads }, &())?;
    show(&plan, &report, target, global)?;
    println!("done; the old bytes are in {}", backup.display());
    Ok(if after.verdict == Verdict::Clean { Exit::Repaired } else { Exit::Damaged })
}

fn show(plan: &Plan, report: &Report, target: &Target, global: &Global) -> anyhow::Result<()> {
    let assumed = Assumed { version: global.prometheus, agent: global.agent };
    let forecast = forecast(target, report, assumed).ok().flatten();
    let _ = forecast;
    print(|out| match global.format {
        Format::Json => plan::write_json(plan, out),
        Format::Text => plan::write(plan, out, text::Style { colour: global.colour(), quiet: global.quiet }),
    })
}

fn plan_of(target: &Target, global: &Global) -> anyhow::Result<(Report, Plan)> {
    let options = walfix::scan::Options { threads: global.threads };
    let report = if global.quiet {
        walfix::scan::scan(target, &options, &())
    } else {
        walfix::scan::scan(target, &options, &Bar::new())
    }?;
    let plan = repair::plan(target, &report)?;
    Ok((report, plan))
}
