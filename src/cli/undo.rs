//! `walfix undo`.

use std::path::PathBuf;

use super::{EXIT_STATUS, Exit, Global};

/// Put back what a repair changed: bytes, names, owners, modes and times.
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Undo {
    /// The backup that the repair named.
    backup: PathBuf,
}

impl Undo {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<Exit> {
        let undone = walfix::repair::undo(&self.backup)?;
        if !global.quiet {
            println!("undone: {} steps ({} had nothing to undo)", undone.steps, undone.left);
        }
        Ok(Exit::Clean)
    }
}
