//! What is said of a repair that was interrupted, and of what is not known before one.

use std::path::Path;

use crate::change::{RepairError, UnfinishedRepair};
use crate::fix::Event;
use crate::io::printable;

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// What a dry run says of a repair that was interrupted; nothing if there is none.
#[must_use]
pub fn found(found: &Result<Option<UnfinishedRepair>, RepairError>) -> Option<String> {
    match found {
        Ok(None) => None,
        Err(error) => Some(printable(&error.to_string())),
        Ok(Some(UnfinishedRepair::NotStarted { .. })) => {
            Some("a repair was interrupted here before it had changed anything".to_owned())
        }
        Ok(Some(UnfinishedRepair::Unfinished(backup))) if !backup.is_staged() => Some(format!(
            "a repair was interrupted here that an earlier version of walfix started: `walfix undo {}` rolls it back.",
            shown(backup.path())
        )),
        Ok(Some(UnfinishedRepair::Unfinished(backup))) => Some(format!(
            "a repair was interrupted here. Use --backup to finish it; `walfix undo {}` rolls it back.",
            shown(backup.path())
        )),
        Ok(Some(UnfinishedRepair::Outdated { backup, what })) => Some(format!(
            "a repair was interrupted here, and something has changed since: {}. With --backup a new one is planned; the \
             backup of the interrupted one is {}.",
            printable(what),
            shown(backup)
        )),
    }
}

/// What a repair says before its result, line by line.
#[must_use]
pub fn heard(event: Event<'_>) -> Vec<String> {
    match event {
        Event::NotKnown(why) => vec![format!(
            "cannot tell whether a Prometheus in another container is using this directory ({}); make sure that none is",
            printable(&why.to_string())
        )],
        Event::Resumed(resumed) => {
            let removed = resumed.removed.iter().map(|backup| {
                format!(
                    "a repair was interrupted here before it had changed anything; its backup {} is removed",
                    shown(backup)
                )
            });
            let finished = resumed.finished.iter().map(|backup| {
                format!("a repair was interrupted here; it is finished now, its backup is {}", shown(backup))
            });
            let given_up = resumed.given_up.iter().map(|(backup, what)| {
                format!(
                    "a repair was interrupted here, and something has changed since: {}; it is given up, its backup stays in {}",
                    printable(what),
                    shown(backup)
                )
            });
            removed.chain(finished).chain(given_up).collect()
        }
    }
}
