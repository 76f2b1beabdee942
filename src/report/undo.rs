//! What an undo did, for an operator and for machines.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::page::{Page, count, path};
use crate::repair::{Restored, Undone};

/// The identity of the JSON form.
pub const SCHEMA: &str = "walfix.undo/1";

/// What is reported of an undo.
#[derive(Clone, Copy, Debug)]
pub enum UndoAnswer<'a> {
    /// What the repair changed was put back.
    PutBack {
        /// What was done.
        undone: Undone,
        /// Where that is now which stood in its place, if it was not what the repair had left.
        moved_to: Option<&'a Path>,
    },
    /// The logs as they were were written elsewhere.
    Restored {
        /// What was written.
        restored: &'a Restored,
        /// Where.
        into: &'a Path,
    },
}

/// The keys of the JSON.
#[derive(Default, Serialize)]
struct UndoDocument<'a> {
    schema: &'a str,
    undone: usize,
    unchanged: usize,
    moved_to: Option<String>,
    into: Option<String>,
    files: usize,
    missing: &'a [String],
}

/// Writes the answer as one JSON document on one line. `docs/schema/undo.schema.json` describes it.
///
/// # Errors
/// Those of `out`.
pub fn write_json(answer: &UndoAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let text = |path: &Path| path.display().to_string();
    let document = match answer {
        UndoAnswer::PutBack { undone, moved_to } => UndoDocument {
            schema: SCHEMA,
            undone: undone.steps,
            unchanged: undone.left,
            moved_to: moved_to.map(text),
            ..UndoDocument::default()
        },
        UndoAnswer::Restored { restored, into } => UndoDocument {
            schema: SCHEMA,
            into: Some(text(into)),
            files: restored.files,
            missing: &restored.missing,
            ..UndoDocument::default()
        },
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// Writes the answer as text.
///
/// # Errors
/// Those of `out`.
pub fn write(answer: &UndoAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { out, colour: false };
    let shown = |place: &Path| path(&place.display().to_string(), 90);
    match answer {
        UndoAnswer::PutBack { undone: Undone { steps: 0, .. }, .. } => {
            page.line("nothing to undo: all is as it was before the repair")
        }
        UndoAnswer::PutBack { undone, moved_to } => {
            let steps = count(undone.steps as u64, "change", "changes");
            page.indented(0, &format!("{steps} undone: all is as it was before the repair"))?;
            let Some(moved_to) = moved_to else { return Ok(()) };
            page.indented(0, &format!("the previous contents were moved to {}", shown(moved_to)))
        }
        UndoAnswer::Restored { restored, into } => {
            let files = count(restored.files as u64, "file", "files");
            page.indented(0, &format!("{files} as before the repair: {}", shown(into)))?;
            for missing in &restored.missing {
                let words = format!("{} is not among them: it has gone or changed since", path(missing, 60));
                page.indented(0, &words)?;
            }
            Ok(())
        }
    }
}
