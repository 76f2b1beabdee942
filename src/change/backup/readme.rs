//! The words in a backup for somebody who has no walfix.

use std::fmt::Write as _;

use std::path::Path;

use crate::change::plan::{Change, Plan};
use crate::io::printable;

/// The line of a README before that with the data directory.
pub(in crate::change) const OF: &str = "in the data directory\n\n    ";

/// How to put everything back by hand.
pub(in crate::change) fn text(plan: &Plan, data: &Path) -> String {
    let mut text = format!(
        "Backup of a repair by walfix {}\n\n\
         It has the bytes that the repair replaced {OF}{}\n\n\
         With walfix, everything is put back with\n\n    walfix undo <this directory>\n\n\
         which first makes sure that nothing has changed since. By hand, and only while Prometheus is stopped and has not\n\
         been started since the repair, with this directory as BACKUP and the data directory as DATA, in this order:\n\n",
        plan.walfix,
        printable(&data.display().to_string()),
    );
    for step in plan.steps.iter().rev() {
        let path = &printable(step.change.path());
        let put_back = match &step.change {
            Change::Patch { patches, .. } => {
                let mut skip = 0;
                for patch in patches {
                    let (offset, count) = (patch.offset, patch.replaces);
                    if (patch.with.bytes().len() as u64) > count {
                        let _ = writeln!(text, "    truncate -s {} DATA/{path}", offset + count);
                    }
                    if count > 0 {
                        let _ = writeln!(
                            text,
                            "    dd bs=1 conv=notrunc if=BACKUP/old/{path} skip={skip} count={count} of=DATA/{path} seek={offset}"
                        );
                    }
                    skip += count;
                }
                continue;
            }
            Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
                format!("cp -p BACKUP/old/{path} DATA/{path}")
            }
            Change::Create { .. } => format!("rm DATA/{path}"),
            Change::CreateDirectory { .. } => format!("rmdir DATA/{path}"),
            Change::Rename { from, to } => format!("mv -n DATA/{} DATA/{}", printable(to), printable(from)),
            Change::SetAside { .. } => format!("cp -pr BACKUP/old/{path} DATA/{path}"),
        };
        let _ = writeln!(text, "    {put_back}");
    }
    text.push_str(
        "\nplan.json says what was changed and why, manifest.json what each file was before and is now.\n\
         Nothing removes this directory. When Prometheus runs and nothing is missed, remove it.\n",
    );
    text
}
