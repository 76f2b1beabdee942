//! Whether the volume has room for what Prometheus's own repair writes. Measured with 2.53.3 and 3.5.3, as a server and an agent.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::report::{Forecast, NoRoom};
use crate::wal::PAGE;

/// The first repair that the volume of the data directory `root` has no room for. The segments behind the damaged one are
/// deleted before, which makes some.
pub(super) fn lacking(root: &Path, forecast: &Forecast) -> Option<NoRoom> {
    let about = rustix::fs::statvfs(root).ok()?;
    // Some file systems do not say how large they are.
    if about.f_blocks == 0 {
        return None;
    }
    let mut free = about.f_bavail.saturating_mul(about.f_frsize);
    for (start, number) in forecast.starts.iter().zip(1..) {
        // Blocks of 512 bytes, whatever the file system's have.
        let taken = |path: &String| root.join(path).symlink_metadata().map_or(0, |file| file.blocks() * 512);
        free = start.deletes.iter().map(taken).fold(free, u64::saturating_add);
        for cut in start.truncates.iter().filter(|cut| cut.offset > 0) {
            let needed = cut.offset.next_multiple_of(PAGE);
            if needed > free {
                let (path, destroys) = (cut.path.clone(), format!("{}.repair", cut.path));
                return Some(NoRoom { path, free, needed, failing_start: number, destroys });
            }
        }
    }
    None
}
