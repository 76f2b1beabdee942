//! `walfix repair`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use walfix::fix::{self, Fixed, Keep, Outcome, Planned, Request};
use walfix::io::printable;
use walfix::repair::{self, RepairError};
use walfix::report::plan::{self, Done, RepairAnswer};
use walfix::report::text;
use walfix::report::unfinished;
use walfix::scan::report::Verdict;
use walfix::tsdb::Target;

use super::scan::{USUAL, usual_target};
use super::watch::Watcher;
use super::{EXIT_STATUS, Exit, Format, Global, print};

const EXAMPLES: &str = "\
Examples:
  walfix repair /prometheus                   print the plan, change nothing
  walfix repair --backup /prometheus          repair; old bytes go to /prometheus/walfix-backup-<time>
  walfix repair --backup=/mnt/b /prometheus   ... or to /mnt/b, which must not exist
  walfix repair --into=/mnt/copy /prometheus  leave it alone and write a repaired copy of its logs
  walfix undo /prometheus/walfix-backup-...   put the old bytes back";

/// Repair damage so that only the damaged bytes are lost. Without --backup, print the plan and change nothing.
///
/// Every record that can be read stays as it is, byte for byte; damage is overwritten with empty records, which every reader
/// skips. Prometheus must be stopped. The bytes that are replaced are kept in a backup, from which `walfix undo` restores them.
/// Ctrl-C before the first change leaves no trace; a repair that is interrupted later is finished by the next.
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
    /// record with a wrong value would be taken as intact.
    #[arg(long)]
    correct_large: bool,
    /// Rewrite index and meta.json of damaged blocks even if these have been uploaded to object storage (Thanos, Mimir), which
    /// has another copy then: it may be intact, so take it from there if you can.
    #[arg(long)]
    rewrite_uploaded: bool,
}

/// What becomes of the old bytes.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct How {
    /// Repair, and keep the old bytes in DIR, which must not exist [default: walfix-backup-<time> in the data
    /// directory].
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    backup: Option<OsString>,
    /// Repair, and keep no old bytes: it cannot be undone.
    #[arg(long)]
    no_backup: bool,
    /// Leave the directory alone, and write a repaired copy of its logs to DIR, which must not exist: for a failing
    /// disk, or one that cannot be written to. Blocks are not copied.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// All that can be read; only damaged bytes are lost.
    Salvage,
    /// What Prometheus's own repair keeps: nothing after the first fault.
    Prometheus,
}

impl Repair {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        if self.correct_large && self.mode == Mode::Prometheus {
            eprintln!(
                "walfix: --correct-large has no effect with --mode prometheus, which keeps nothing after the first fault"
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
            return self.fix(&Target::find(copy)?, Keep::Nothing, global).with_context(|| {
                let copy = printable(&copy.display().to_string());
                format!(
                    "{copy} holds a copy that is not repaired: repair it with `walfix repair --no-backup {copy}`, or remove it"
                )
            });
        }
        match (&self.how.backup, self.how.no_backup) {
            (Some(backup), _) if !backup.is_empty() => self.fix(&target, Keep::At(Path::new(backup)), global),
            (Some(_), _) => self.fix(&target, Keep::InPlace, global),
            (None, true) => self.fix(&target, Keep::Nothing, global),
            (None, false) => self.preview(&target, global),
        }
    }

    /// Says what would be done.
    fn preview(&self, target: &Target, global: &Global) -> anyhow::Result<Exit> {
        let request = self.request(Keep::default(), global);
        let preview = fix::preview(target, &request, &Watcher::new(global.quiet))?;
        if let Some(text) = unfinished::found(&preview.unfinished) {
            eprintln!("walfix: {text}");
        }
        let Planned { plan, forecast, .. } = &preview.planned;
        show(&RepairAnswer { plan, forecast: forecast.as_ref(), done: None }, global)?;
        Ok(if preview.planned.is_clean() { Exit::Clean } else { Exit::Damaged })
    }

    fn fix(&self, target: &Target, keep: Keep<'_>, global: &Global) -> anyhow::Result<Exit> {
        let request = self.request(keep, global);
        let watcher = Watcher::for_a_change(global.quiet)?;
        let Fixed { planned, finished, outcome } = fix::fix(target, &request, &watcher)?;
        drop(watcher);
        let (plan, forecast) = (&planned.plan, planned.forecast.as_ref());
        match outcome {
            Outcome::Repaired(repaired) => {
                if let Some(full) = &repaired.full {
                    eprintln!(
                        "walfix: free some space before Prometheus is started: {}",
                        printable(&full.message())
                    );
                }
                let done = Done {
                    backup: repaired.backup.as_deref(),
                    finished: finished.is_some(),
                    after: &repaired.after,
                };
                show_done(&RepairAnswer { plan, forecast, done: Some(done) }, global);
                Ok(match repaired.after.verdict {
                    Verdict::Clean if plan.left.is_empty() => Exit::Repaired,
                    Verdict::Clean | Verdict::Damaged => Exit::Damaged,
                })
            }
            Outcome::NeedsAcceptOrphans(orphans) => {
                bail!(plan::refused_for_orphans(&orphans, request.mode, finished.is_some()))
            }
            _ => {
                let after = &planned.report;
                match finished.as_deref() {
                    Some(backup) => {
                        let done = Done { backup: Some(backup), finished: true, after };
                        show_done(&RepairAnswer { plan, forecast, done: Some(done) }, global);
                    }
                    None => show(&RepairAnswer { plan, forecast, done: None }, global)?,
                }
                Ok(match (after.verdict, finished) {
                    (Verdict::Damaged, _) => Exit::Damaged,
                    (Verdict::Clean, Some(_)) => Exit::Repaired,
                    (Verdict::Clean, None) => Exit::Clean,
                })
            }
        }
    }

    fn request<'a>(&self, keep: Keep<'a>, global: &Global) -> Request<'a> {
        let mode = match self.mode {
            Mode::Salvage => repair::Mode::Salvage,
            Mode::Prometheus => repair::Mode::Prometheus,
        };
        let corrections =
            if self.correct_large { repair::Corrections::Large } else { repair::Corrections::Sure };
        let (accept_orphans, rewrite_uploaded) = (self.accept_orphans, self.rewrite_uploaded);
        Request { how: global.how(), mode, corrections, accept_orphans, rewrite_uploaded, keep }
    }
}

/// As [`show`]. The directory is changed, and that is not undone because nobody can read of it.
fn show_done(answer: &RepairAnswer<'_>, global: &Global) {
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

fn show(answer: &RepairAnswer<'_>, global: &Global) -> anyhow::Result<()> {
    let style = text::Style { colour: global.colour(), quiet: global.quiet };
    print(|out| match global.format {
        Format::Json => plan::write_json(answer, out),
        Format::Text => plan::write(answer, out, style),
    })
}
