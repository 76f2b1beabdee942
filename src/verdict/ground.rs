//! What makes a start fail, or lose data, beside logs and blocks: files that Prometheus may not read or write, a full or read-only
//! volume. Each costs a few system calls.

use std::fs::{self, Metadata};
use std::path::Path;

use crate::forecast::report::{Forecast, NoRoom};
use crate::forecast::{Assumed, refuses_until};
use crate::scan::code::Code;
use crate::scan::detail::{Deed, Detail, FailingRepair, Lack};
use crate::scan::findings::of_path;
use crate::scan::report::{Finding, Report, Severity, Times};
use crate::tsdb::{Block, CHUNKS_HEAD, LogKind, Right, Target, User, list_blocks};

/// Findings with which Prometheus does not start.
pub(super) const NO_START: [Code; 4] =
    [Code::BlockUnusable, Code::NoPermission, Code::NoSpace, Code::ReadOnly];

/// What a start needs: a file of head chunks is made with 128 KiB (`HeadChunkFilePreallocationSize`,
/// `tsdb/chunks/head_chunks.go`), and `queries.active` has 20 kB. Without them the server panics.
const NEEDED: u64 = 256 * 1024;

pub(super) fn findings(
    target: &Target,
    report: &Report,
    forecast: Option<&Forecast>,
    assumed: Assumed,
    user: Option<User>,
) -> Vec<Finding> {
    let data = target.path();
    let no_room = forecast.and_then(|forecast| forecast.no_room.as_ref());
    let mut findings: Vec<Finding> = volume(data, no_room).into_iter().collect();
    // What cannot be listed, the scan has complained about.
    let blocks = list_blocks(data).unwrap_or_default();
    findings.extend(rights(target, &blocks, user));
    if !assumed.agent {
        findings.extend(future(target, report, assumed));
    }
    findings
}

/// Samples or blocks from the future: until their time comes every scrape is refused.
fn future(target: &Target, report: &Report, assumed: Assumed) -> Option<Finding> {
    let listing = target.list().ok()?;
    let until = refuses_until(target.path(), &listing, report, assumed.version)?;
    let finding = damage(Code::FutureSamples, String::new(), Detail::FromTheFuture { until });
    Some(Finding { times: Some(Times { from: Some(until), to: None }), ..finding })
}

fn damage(code: Code, path: String, detail: Detail) -> Finding {
    of_path(None, path, code, Severity::Damage, detail)
}

/// Space and mount of the volume.
fn volume(data: &Path, no_room: Option<&NoRoom>) -> Option<Finding> {
    let about = rustix::fs::statvfs(data).ok()?;
    if about.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Some(damage(Code::ReadOnly, String::new(), Detail::ReadOnly));
    }
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    // Some file systems do not say how large they are.
    let lack = if about.f_blocks > 0 && free < NEEDED {
        Lack::Space { free, needed: NEEDED }
    } else if about.f_files > 0 && about.f_favail == 0 {
        Lack::Inodes
    } else if let Some(room) = no_room {
        Lack::SpaceForRepair { free: room.free }
    } else {
        return None;
    };
    let repair = no_room.map(|room| FailingRepair {
        path: room.path.clone(),
        needed: room.needed,
        failing_start: room.failing_start,
        destroys: room.destroys.clone(),
    });
    Some(damage(Code::NoSpace, String::new(), Detail::NoSpace { lack, repair }))
}

/// As whom Prometheus runs.
enum Who {
    /// As this user, by owner, group and mode.
    User(User),
    /// As the user whose process this is: the kernel knows.
    Own,
}

impl Who {
    fn may(&self, right: Right, path: &Path, metadata: &Metadata) -> bool {
        use rustix::fs::Access;
        match self {
            Self::User(user) => user.may(right, metadata),
            Self::Own => {
                let access = match right {
                    Right::Read => Access::READ_OK,
                    Right::Write => Access::READ_OK | Access::WRITE_OK,
                    Right::List => Access::READ_OK | Access::EXEC_OK,
                    Right::Change => Access::WRITE_OK | Access::READ_OK | Access::EXEC_OK,
                };
                !matches!(rustix::fs::access(path, access), Err(rustix::io::Errno::ACCESS))
            }
        }
    }
}

/// Files that Prometheus's user may not read, or not write where it has to.
fn rights(target: &Target, blocks: &[Block], user: Option<User>) -> Option<Finding> {
    let data = target.path();
    let needed = needed(target, blocks);
    let own = User::of_this_process();
    let (who, named, owns) = match user {
        Some(user) => (Who::User(user), user, None),
        None if own.is_root() => {
            let (owner, of) = owner(data, &needed)?;
            (Who::User(owner), owner, Some(of))
        }
        None => (Who::Own, own, None),
    };
    let forbidden: Vec<(&String, Right)> = needed
        .iter()
        .filter_map(|(relative, right)| {
            let path = data.join(relative);
            let metadata = path.metadata().ok()?;
            (!who.may(*right, &path, &metadata)).then_some((relative, *right))
        })
        .collect();
    let (first, right) = *forbidden.first()?;
    let deed = match right {
        Right::Read => Deed::Read,
        Right::Write => Deed::Write,
        Right::List => Deed::List,
        Right::Change => Deed::MakeFiles,
    };
    let detail = Detail::NoPermission { uid: named.uid, gid: named.gid, owns, deed };
    let finding = damage(Code::NoPermission, first.clone(), detail);
    Some(Finding { places: forbidden.len() as u64, ..finding })
}

/// The owner of the newest segment, or of the directory if there is none, and of what it is the owner. If root wrote the newest
/// ones, and another user owns `wal/` and wrote those before, it is that one: a command that was run once as root leaves such a
/// segment.
fn owner(data: &Path, needed: &[(String, Right)]) -> Option<(User, &'static str)> {
    use std::os::unix::fs::MetadataExt as _;
    let segments =
        needed.iter().rev().filter(|(path, _)| path.starts_with("wal/") && !path.contains("checkpoint."));
    let mut owners = segments.filter_map(|(path, _)| {
        let metadata = data.join(path).metadata().ok()?;
        Some(User { uid: metadata.uid(), gid: metadata.gid() })
    });
    let Some(newest) = owners.next() else {
        let metadata = data.metadata().ok()?;
        return Some((User { uid: metadata.uid(), gid: metadata.gid() }, "the directory"));
    };
    if newest.is_root()
        && let Some(other) = owners.find(|owner| !owner.is_root())
        && data.join("wal").metadata().is_ok_and(|wal| wal.uid() == other.uid)
    {
        return Some((other, "the newest segment that is not root's"));
    }
    Some((newest, "the newest segment"))
}

/// What Prometheus opens at a start, and for what.
fn needed(target: &Target, blocks: &[Block]) -> Vec<(String, Right)> {
    let data = target.path();
    let mut needed = vec![(String::new(), Right::Change)];
    for file in ["lock", "queries.active"] {
        needed.push((file.to_owned(), Right::Write));
    }
    for block in blocks {
        let below = |name: &str| format!("{}/{name}", block.ulid);
        needed.push((block.ulid.clone(), Right::List));
        for file in ["meta.json", "index", "tombstones"] {
            needed.push((below(file), Right::Read));
        }
        needed.push((below("chunks"), Right::List));
        needed.extend(
            names(&data.join(below("chunks"))).map(|name| (below(&format!("chunks/{name}")), Right::Read)),
        );
    }
    needed.push((CHUNKS_HEAD.to_owned(), Right::Change));
    let head_chunks = names(&data.join(CHUNKS_HEAD));
    needed.extend(head_chunks.map(|name| (format!("{CHUNKS_HEAD}/{name}"), Right::Read)));
    let Ok(listing) = target.list() else { return needed };
    let last = listing.last_checkpoint().map(|(at, _)| at);
    // The WAL last: the owner of its newest segment is the one who counts.
    for kind in [LogKind::Wbl, LogKind::Checkpoint, LogKind::Wal] {
        for (at, log) in listing.logs.iter().enumerate().filter(|(_, log)| log.kind == kind) {
            if kind == LogKind::Checkpoint && Some(at) != last {
                continue;
            }
            let right = if kind == LogKind::Checkpoint { Right::List } else { Right::Change };
            needed.push((log.relative.clone(), right));
            needed.extend(log.segments.iter().map(|segment| (log.relative_of(segment), Right::Read)));
        }
    }
    needed
}

/// The names of files in a directory, none if it cannot be listed.
fn names(directory: &Path) -> std::vec::IntoIter<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names.into_iter()
}
