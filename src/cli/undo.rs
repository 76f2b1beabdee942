//! `walfix undo`.

use std::path::PathBuf;

use walfix::io::printable;
use walfix::repair;
use walfix::report::undo::{self, UndoAnswer};

use super::{EXIT_STATUS, Exit, Format, Global, print};

/// Put back what a repair changed: bytes, names, owners, modes and times.
///
/// If anything has changed since the repair, as when Prometheus has run, nothing is done, unless --force or --into says
/// so.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Undo {
    /// The backup that the repair named.
    backup: PathBuf,
    /// Put back what the repair changed, whatever has happened since. What is there now of these files is copied first to
    /// BACKUP-before-undo; other files stay.
    #[arg(long, conflicts_with = "into")]
    force: bool,
    /// Write a copy of the logs as they were before the repair to DIR, which must not exist, and change nothing else.
    /// Prometheus may run.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Undo {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        let answer = |answer: &UndoAnswer<'_>| {
            let printed = print(|out| match global.format {
                Format::Json => undo::write_json(answer, out),
                Format::Text if global.quiet => Ok(()),
                Format::Text => undo::write(answer, out),
            });
            // What is done stays done if nobody can read of it.
            if let Err(error) = printed {
                let error = format!("{error:#}");
                eprintln!(
                    "walfix: the undo is done. Only the report could not be written: {}",
                    printable(&error)
                );
            }
        };
        if let Some(into) = &self.into {
            let restored = repair::restore_into(&self.backup, into)?;
            answer(&UndoAnswer::Restored { restored: &restored, into });
            return Ok(if restored.missing.is_empty() { Exit::Clean } else { Exit::Damaged });
        }
        let (undone, moved_to) = if self.force {
            let forced = repair::undo_by_force(&self.backup)?;
            (forced.undone, forced.moved_to)
        } else {
            (repair::undo(&self.backup)?, None)
        };
        answer(&UndoAnswer::PutBack { undone, moved_to: moved_to.as_deref() });
        Ok(Exit::Clean)
    }
}
