//! `walfix repair`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use walfix::forecast::report::Forecast;
use walfix::forecast::{Assumed, forecast};
use walfix::io::printable;
use walfix::repair::{self, Found, Lock, Plan, RepairError};
use walfix::report::plan::{self, Answer, Done};
use walfix::report::text;
use walfix::scan::report::{Report, Verdict};
use walfix::tsdb::Target;
use walfix::verdict;

use super::progress::Bar;
use super::scan::{USUAL, usual_target};
use super::{EXIT_STATUS, Exit, Format, Global, print};

const EXAMPLES: &str = "\
Examples:
  walfix repair /prometheus                   print the plan, change nothing
  walfix repair --backup /prometheus          repair; old bytes go to /prometheus/walfix-backup-<time>
  walfix repair --backup=/mnt/b /prometheus   ... or to /mnt/b, which is not there yet
  walfix repair --into=/mnt/copy /prometheus  leave it alone and write a repaired copy of its logs
  walfix undo /prometheus/walfix-backup-...   put the old bytes back";

/// Mend what is damaged, so that only the damaged bytes are lost. Without --backup print the plan and change nothing.
///
/// Every record that can be read stays as it is, byte for byte; what is damaged is filled with records that say nothing to any reader.
/// Prometheus must be stopped. The bytes that are replaced are kept in a backup, from which `walfix undo` puts them back. A repair
/// that was interrupted is finished by the next.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Repair {
    /// A data directory, or a part of one [default: the current directory if it is one of these, else /prometheus].
    path: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// What to keep.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Salvage)]
    mode: Mode,
    /// Repair even if more than a tenth of all entries have lost their labels. They stay in the log; but maybe their
    /// series records can be had elsewhere: a copy of the directory, an older checkpoint.
    #[arg(long)]
    accept_orphans: bool,
    /// Flip a bit back in large records, too: in pieces of more than 4 KiB that are not compressed. Without it these are
    /// lost. The risk: there, of damages that are more than one bit, up to one in 8000 looks as if it were one, and a
    /// record with a wrong value would be taken for whole.
    #[arg(long)]
    correct_large: bool,
}

/// What becomes of the old bytes.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct How {
    /// Repair, and keep the old bytes in DIR, which is not there yet [default: walfix-backup-<time> in the data
    /// directory].
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    backup: Option<OsString>,
    /// Repair, and keep no old bytes: it cannot be undone.
    #[arg(long)]
    no_backup: bool,
    /// Leave the directory alone, and write a repaired copy of its logs to DIR, which is not there yet: for a failing
    /// disk, or one that cannot be written to. Blocks are not copied.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// All that can be read; only damaged bytes are lost.
    Salvage,
    /// What Prometheus's own repair keeps: nothing behind the first fault.
    Prometheus,
}

impl Repair {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        if self.correct_large && self.mode == Mode::Prometheus {
            eprintln!(
                "walfix: --mode prometheus keeps nothing behind the first fault: it has no use for --correct-large"
            );
            return Ok(Exit::Usage);
        }
        let given = match &self.path {
            Some(path) => Target::find(path)?,
            None => usual_target(Path::new(USUAL))?,
        };
        let target = given
            .data_directory_around()
            .ok_or_else(|| RepairError::NoDataDirectory(given.path().to_owned()))?;
        if let Some(copy) = &self.how.into {
            for left_out in repair::copy_logs(&target, copy)? {
                eprintln!(
                    "walfix: {} is neither a file nor a directory, and is not copied; no link is followed",
                    printable(&left_out.display().to_string())
                );
            }
            return self.apply(&Target::find(copy)?, None, global);
        }
        match (&self.how.backup, self.how.no_backup) {
            (Some(backup), _) if !backup.is_empty() => self.apply(&target, Some(Path::new(backup)), global),
            (Some(_), _) => self.apply(&target, Some(&repair::default_backup(target.path())), global),
            (None, true) => self.apply(&target, None, global),
            (None, false) => self.print_plan(&target, global),
        }
    }

    /// Says what would be done.
    fn print_plan(&self, target: &Target, global: &Global) -> anyhow::Result<Exit> {
        let found = match repair::unfinished(target) {
            // What is by that name keeps nobody from seeing what else there is.
            Err(error @ RepairError::Marker { .. }) => {
                eprintln!("walfix: {}", printable(&error.to_string()));
                None
            }
            found => found?,
        };
        match found {
            Some(Found::NotBegun { .. }) => {
                eprintln!("walfix: a repair was interrupted here before it had changed anything");
            }
            Some(Found::Unfinished(backup)) => eprintln!(
                "walfix: a repair was interrupted here. With --backup it is finished; `walfix undo {}` rolls it back.",
                printable(&backup.path().display().to_string())
            ),
            Some(Found::Overtaken { backup, what }) => eprintln!(
                "walfix: a repair was interrupted here, and something has changed since: {}. With --backup it is planned \
                 anew; its backup is {}.",
                printable(&what),
                printable(&backup.display().to_string())
            ),
            None => {}
        }
        let made = self.plan(target, global)?;
        show(&Answer { plan: &made.plan, forecast: made.forecast.as_ref(), done: None }, global)?;
        let clean = made.report.verdict == Verdict::Clean && made.plan.left.is_empty();
        Ok(if clean { Exit::Clean } else { Exit::Damaged })
    }

    /// Repairs; the old bytes go to `backup`, or nowhere.
    fn apply(&self, target: &Target, backup: Option<&Path>, global: &Global) -> anyhow::Result<Exit> {
        let lock = Lock::take(target.path())?;
        if let Some(why) = lock.not_known() {
            eprintln!(
                "walfix: whether a Prometheus in another container works here cannot be told ({}); make sure that none does",
                printable(&why.to_string())
            );
        }
        let finished = finish_interrupted(target, &lock, self.options(global))?;
        let made = self.plan(target, global)?;
        let plan = &made.plan;
        if plan.steps.is_empty() {
            let done = finished.as_deref().map(|backup| Done {
                backup: Some(backup),
                finished: true,
                after: &made.report,
            });
            match done {
                Some(_) => show_done(&Answer { plan, forecast: made.forecast.as_ref(), done }, global),
                None => show(&Answer { plan, forecast: made.forecast.as_ref(), done }, global)?,
            }
            return Ok(match (made.report.verdict, finished) {
                (Verdict::Damaged, _) => Exit::Damaged,
                (Verdict::Clean, Some(_)) => Exit::Repaired,
                (Verdict::Clean, None) => Exit::Clean,
            });
        }
        if let Some(orphans) = plan.orphans.filter(|_| plan.needs_accept_orphans() && !self.accept_orphans) {
            let elsewhere = match self.mode {
                Mode::Salvage => "",
                Mode::Prometheus => {
                    " --mode salvage keeps the series records behind the fault that can be read."
                }
            };
            bail!(
                "{}. Nothing was changed.{elsewhere} If their series records cannot be had from anywhere, repair with \
                 --accept-orphans.",
                plan::orphans_in_words(&orphans)
            );
        }
        match backup {
            Some(backup) => repair::apply(target, plan, backup, &lock)?,
            None => repair::apply_for_good(target, plan, &lock)?,
        }
        // The scan, the forecast and a further plan: all that a scan of the repaired directory would say.
        let mut after = self
            .plan(target, global)
            .context("the repair is done, but the directory cannot be read to verify it")?;
        // The volume was full before, and that is nothing that a repair repairs.
        let full = verdict::without_room(&mut after.report.findings);
        if let Some(full) = full {
            verdict::judge(target, &mut after.report, after.forecast.as_ref(), Some(&after.plan));
            eprintln!("walfix: free some space before Prometheus is started: {}", printable(&full.message));
        }
        let done = Done { backup, finished: finished.is_some(), after: &after.report };
        show_done(&Answer { plan, forecast: made.forecast.as_ref(), done: Some(done) }, global);
        Ok(match after.report.verdict {
            Verdict::Clean if plan.left.is_empty() => Exit::Repaired,
            Verdict::Clean | Verdict::Damaged => Exit::Damaged,
        })
    }

    fn plan(&self, target: &Target, global: &Global) -> anyhow::Result<Made> {
        let options = walfix::scan::Options { threads: global.threads };
        let mut report = if global.quiet {
            walfix::scan::scan(target, &options, &())
        } else {
            walfix::scan::scan(target, &options, &Bar::new())
        }?;
        let options = self.options(global);
        let forecast = forecast(target, &report, options.assumed)?;
        let plan = repair::plan(target, &report, forecast.as_ref(), options)?;
        let around = verdict::around(target, &report, forecast.as_ref(), (options.assumed, global.user));
        report.findings.extend(around);
        verdict::judge(target, &mut report, forecast.as_ref(), Some(&plan));
        Ok(Made { report, forecast, plan })
    }

    fn options(&self, global: &Global) -> repair::Options {
        let mode = match self.mode {
            Mode::Salvage => repair::Mode::Salvage,
            Mode::Prometheus => repair::Mode::Prometheus,
        };
        let corrections =
            if self.correct_large { repair::Corrections::Large } else { repair::Corrections::Sure };
        repair::Options { mode, assumed: assumed(global), corrections }
    }
}

fn assumed(global: &Global) -> Assumed {
    Assumed { version: global.prometheus, agent: global.agent }
}

/// A plan, and what it was made from.
struct Made {
    report: Report,
    forecast: Option<Forecast>,
    plan: Plan,
}

/// Finishes a repair that was interrupted, if it can be; its backup.
fn finish_interrupted(
    target: &Target,
    lock: &Lock,
    options: repair::Options,
) -> anyhow::Result<Option<PathBuf>> {
    let resumed = repair::resume(target, lock, options)?;
    for removed in &resumed.removed {
        eprintln!(
            "walfix: a repair was interrupted here before it had changed anything; its backup {} is removed",
            printable(&removed.display().to_string())
        );
    }
    if let Some(backup) = &resumed.finished {
        eprintln!(
            "walfix: a repair was interrupted here; it is finished now, its backup is {}",
            printable(&backup.display().to_string())
        );
    }
    if let Some((backup, what)) = &resumed.given_up {
        eprintln!(
            "walfix: a repair was interrupted here, and something has changed since: {}; it is given up, its backup stays in {}",
            printable(what),
            printable(&backup.display().to_string())
        );
    }
    Ok(resumed.finished)
}

/// As [`show`]. The directory is changed, and that is not undone because nobody can read of it.
fn show_done(answer: &Answer<'_>, global: &Global) {
    let Err(error) = show(answer, global) else { return };
    let backup = answer.done.and_then(|done| done.backup);
    let kept = backup.map_or_else(String::new, |backup| {
        format!("; its backup is {}", printable(&backup.display().to_string()))
    });
    let error = format!("{error:#}");
    eprintln!(
        "walfix: the repair is done{kept}. Only the report could not be written: {}",
        printable(&error)
    );
}

fn show(answer: &Answer<'_>, global: &Global) -> anyhow::Result<()> {
    let style = text::Style { colour: global.colour(), quiet: global.quiet };
    print(|out| match global.format {
        Format::Json => plan::write_json(answer, out),
        Format::Text => plan::write(answer, out, style),
    })
}
