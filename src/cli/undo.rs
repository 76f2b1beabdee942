//! `walfix undo`.

use std::path::PathBuf;

use walfix::repair;

use super::{EXIT_STATUS, Exit, Global};

/// Put back what a repair changed: bytes, names, owners, modes and times.
///
/// If anything has changed since the repair, as when Prometheus has run, nothing is done, unless --force or --into says
/// so.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Undo {
    /// The backup that the repair named.
    backup: PathBuf,
    /// Put back what the repair changed, whatever has come since. What is there now of these files is copied first to
    /// BACKUP-before-undo; other files stay.
    #[arg(long, conflicts_with = "into")]
    force: bool,
    /// Write a copy of the logs as they were before the repair to DIR, which is not there yet, and change nothing else.
    /// Prometheus may run.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

impl Undo {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        let say = |text: String| {
            if !global.quiet {
                println!("{text}");
            }
        };
        if let Some(into) = &self.into {
            let restored = repair::restore_into(&self.backup, into)?;
            say(format!("{} files as they were before the repair are in {}", restored.files, into.display()));
            for path in &restored.missing {
                eprintln!("walfix: {path} is not among them: it has gone or changed since the repair");
            }
            return Ok(if restored.missing.is_empty() { Exit::Clean } else { Exit::Damaged });
        }
        let undone = if self.force {
            let forced = repair::undo_by_force(&self.backup)?;
            if let Some(moved) = &forced.moved_to {
                say(format!("what was there is in {}", moved.display()));
            }
            forced.undone
        } else {
            repair::undo(&self.backup)?
        };
        say(format!("undone: {} steps ({} had nothing to undo)", undone.steps, undone.left));
        Ok(Exit::Clean)
    }
}
