//! A file system of the test's own, kept in memory, in which sectors go bad and files change while they are read.
//!
//! It speaks the kernel's protocol itself (`include/uapi/linux/fuse.h`) and lets mount(8) do the mounting, so that tests
//! need neither libfuse nor a helper that is installed, only Linux, root and `/dev/fuse`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A file, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Byte ranges that cannot be read (EIO).
    pub bad: Vec<Range<u64>>,
    /// Whether a read that only runs into a bad range fails as a whole; else it is cut short before it.
    pub fails_whole: bool,
    /// Whether the page cache holds it, without which it cannot be mapped.
    pub is_cached: bool,
    /// What becomes of it while it is read.
    pub then: Option<Change>,
    /// Reads that were asked for.
    pub reads: u64,
    pub opens: u64,
}

/// What becomes of a file as soon as a read goes beyond `after`, opened so many times; that read sees it changed.
#[derive(Clone, Debug)]
pub struct Change {
    pub opens: u64,
    pub after: u64,
    pub to: Vec<u8>,
}

impl Node {
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ..Self::default() }
    }

    pub fn with_bad(bytes: &[u8], bad: &[Range<u64>]) -> Self {
        Self { bad: bad.to_vec(), ..Self::of(bytes) }
    }

    fn read(&mut self, offset: u64, size: u64) -> Result<&[u8], i32> {
        self.reads += 1;
        let opens = self.opens;
        if let Some(change) =
            self.then.take_if(|change| opens >= change.opens && offset + size > change.after)
        {
            self.bytes = change.to;
        }
        let mut end = (offset + size).min(self.bytes.len() as u64);
        let touched = |bad: &&Range<u64>| bad.start < end && offset < bad.end;
        if let Some(first) = self.bad.iter().filter(touched).map(|bad| bad.start).min() {
            if first <= offset || self.fails_whole {
                return Err(EIO);
            }
            end = first;
        }
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(&self.bytes[at(offset)..at(end.max(offset))])
    }
}

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSYS: i32 = 38;

/// A data directory with `wal/` and its segments 0, 1, ...; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    directory: TempDir,
    nodes: Arc<Mutex<Vec<Node>>>,
    thread: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Mounts one, or skips the test of `what` because the machine does not allow it.
    pub fn new(what: &str, nodes: Vec<Node>) -> Self {
        Self::mount(nodes).unwrap_or_else(|why| super::skip(what, &format!("no FUSE: {why}")))
    }

    fn mount(nodes: Vec<Node>) -> Result<Self, String> {
        let device = File::options().read(true).write(true).open("/dev/fuse").map_err(|e| e.to_string())?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let child = device.try_clone().map_err(|e| e.to_string())?;
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o"])
            // The device is the child's standard input.
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,allow_other,ro")
            .arg("walfix-test")
            .arg(directory.path())
            .stdin(Stdio::from(child))
            .output()
            .map_err(|e| e.to_string())?;
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned());
        }
        let nodes = Arc::new(Mutex::new(nodes));
        let thread = std::thread::spawn({
            let nodes = Arc::clone(&nodes);
            // Ends with an error when it is unmounted.
            move || while serve(&device, &nodes).is_ok() {}
        });
        Ok(Self { directory, nodes, thread: Some(thread) })
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How often the file system was asked for bytes of that segment.
    pub fn reads(&self, segment: usize) -> u64 {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)[segment].reads
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a reader that is still there must not keep the test from ending.
        let unmounted = Command::new("umount").arg("-l").arg(self.directory.path()).status();
        if let (Ok(status), Some(thread)) = (unmounted, self.thread.take())
            && status.success()
        {
            let _ = thread.join();
        }
    }
}

/// Numbers of the nodes: the root, `wal/`, and the segments from here on.
const ROOT: u64 = 1;
const WAL: u64 = 2;
const FIRST: u64 = 3;

/// Answers one request.
fn serve(mut device: &File, nodes: &Mutex<Vec<Node>>) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let length = match device.read(&mut buffer) {
        // ENOENT: the request was interrupted before it was read. EINTR, EAGAIN.
        Err(e) if matches!(e.raw_os_error(), Some(2 | 4 | 11)) => return Ok(()),
        read => read?,
    };
    let request = &buffer[..length];
    let (opcode, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
    let body = &request[40..];
    let answer = match opcode {
        // FORGET, INTERRUPT and BATCH_FORGET have no answer.
        2 | 36 | 42 => return Ok(()),
        _ => answer(opcode, node, body, &mut nodes.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    let (error, data) = match answer {
        Ok(data) => (0, data),
        Err(error) => (-error, Vec::new()),
    };
    let mut out = Vec::with_capacity(16 + data.len());
    out.extend(u32::try_from(16 + data.len()).unwrap_or(16).to_le_bytes());
    out.extend(error.to_le_bytes());
    out.extend(unique.to_le_bytes());
    out.extend(data);
    match device.write(&out) {
        // The asker is gone.
        Err(e) if e.raw_os_error() == Some(ENOENT) => Ok(()),
        written => written.map(drop),
    }
}

fn answer(opcode: u32, node: u64, body: &[u8], nodes: &mut [Node]) -> Result<Vec<u8>, i32> {
    match opcode {
        1 => {
            let name = body.split(|&byte| byte == 0).next().unwrap_or_default();
            let found = (WAL..FIRST + nodes.len() as u64)
                .find(|&child| parent(child) == node && name_of(child).as_bytes() == name)
                .ok_or(ENOENT)?;
            // Node, generation, and how long entry and attributes are valid: not at all, sizes change.
            let mut entry = words64(&[found, 0, 0, 0, 0]);
            entry.extend(attributes(found, nodes)?);
            Ok(entry)
        }
        3 => {
            let mut out = words64(&[0, 0]);
            out.extend(attributes(node, nodes)?);
            Ok(out)
        }
        // OPEN with FOPEN_DIRECT_IO where it may be: the page cache asks for whole pages and more. OPENDIR.
        14 => {
            let node = at(node, nodes).ok_or(ENOENT)?;
            node.opens += 1;
            Ok(words64(&[0, u64::from(!node.is_cached)]))
        }
        27 => Ok(words64(&[0, 0])),
        15 => Ok(at(node, nodes).ok_or(ENOENT)?.read(u64_at(body, 8), u32_at(body, 16).into())?.to_vec()),
        // RELEASE, FLUSH, RELEASEDIR, DESTROY.
        18 | 25 | 29 | 38 => Ok(Vec::new()),
        // INIT: version 7.31; nothing beyond the basics.
        26 => {
            let mut out = Vec::new();
            out.extend([7u32, 31, 0, 0].map(u32::to_le_bytes).concat());
            out.extend([0; 4]);
            out.extend((1u32 << 17).to_le_bytes());
            out.resize(64, 0);
            Ok(out)
        }
        28 => Ok(entries(node, u64_at(body, 8), u32_at(body, 16), nodes)),
        _ => Err(ENOSYS),
    }
}

fn entries(directory: u64, from: u64, size: u32, nodes: &[Node]) -> Vec<u8> {
    let mut out = Vec::new();
    let children: Vec<u64> =
        (WAL..FIRST + nodes.len() as u64).filter(|&child| parent(child) == directory).collect();
    for (at, child) in (1u64..).zip(children) {
        if at <= from {
            continue;
        }
        let name = name_of(child);
        let mut entry = words64(&[child, at]);
        // DT_DIR, DT_REG.
        let kind = if child < FIRST { 4u32 } else { 8 };
        entry.extend(u32::try_from(name.len()).unwrap_or(0).to_le_bytes());
        entry.extend(kind.to_le_bytes());
        entry.extend(name.as_bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        if out.len() + entry.len() > size as usize {
            break;
        }
        out.extend(entry);
    }
    out
}

fn at(node: u64, nodes: &mut [Node]) -> Option<&mut Node> {
    nodes.get_mut(usize::try_from(node.checked_sub(FIRST)?).ok()?)
}

fn parent(node: u64) -> u64 {
    if node == WAL { ROOT } else { WAL }
}

fn name_of(node: u64) -> String {
    if node == WAL { "wal".to_owned() } else { format!("{:08}", node - FIRST) }
}

/// `struct fuse_attr`.
fn attributes(node: u64, nodes: &[Node]) -> Result<Vec<u8>, i32> {
    let size = match node.checked_sub(FIRST) {
        None => 0,
        Some(at) => usize::try_from(at).ok().and_then(|at| nodes.get(at)).ok_or(ENOENT)?.bytes.len() as u64,
    };
    let mode: u32 = if node < FIRST { 0o040_755 } else { 0o100_644 };
    let mut out = words64(&[node, size, size.div_ceil(512), 0, 0, 0]);
    // Nanoseconds of three times, mode, links, owner and group, device, block size, flags.
    out.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_le_bytes).concat());
    Ok(out)
}

fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
