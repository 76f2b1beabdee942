//! Runs a program under `strace`: the calls by which it changes files, and the same run killed, or refused, at one of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The calls that change files, or make changes safe; and those that open them.
const CHANGES: &str = "openat,openat2,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,\
    rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,utimensat,fsync,fdatasync,sync_file_range,\
    copy_file_range,sendfile,splice,setxattr,fsetxattr";

/// Stops at no other calls. A signal cannot be sent at such a stop.
const FAST: &str = "--seccomp-bpf";

/// A call that returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// Which call by that name of that thread it is, from 1 on; of `openat` which with that path, as others vary with
    /// what else runs on the machine.
    pub ordinal: usize,
    pub arguments: String,
    /// `None` for one that never returned.
    pub result: Option<i64>,
    pub thread: u32,
}

impl Call {
    /// Whether it changes something, and is not only about a file that was open for it, or is about to be.
    pub fn is_change(&self) -> bool {
        match self.name.as_str() {
            "openat" | "openat2" | "open" => {
                self.arguments.contains("O_CREAT") || self.arguments.contains("O_TRUNC")
            }
            // Standard output and error.
            "write" => !self.arguments.starts_with("1,") && !self.arguments.starts_with("2,"),
            _ => true,
        }
    }

    /// Whether a full disk can refuse it.
    pub fn takes_room(&self) -> bool {
        matches!(
            self.name.as_str(),
            "openat"
                | "openat2"
                | "write"
                | "pwrite64"
                | "mkdir"
                | "mkdirat"
                | "rename"
                | "renameat"
                | "renameat2"
                | "link"
                | "linkat"
                | "fsync"
                | "ftruncate"
        ) && self.is_change()
    }

    /// Its strings, as bytes. They are hexadecimal, see [`trace_all`].
    pub fn strings(&self) -> Vec<Vec<u8>> {
        let parts = self.arguments.split('"').skip(1).step_by(2);
        parts
            .map(|text| {
                text.split("\\x").skip(1).map(|hex| u8::from_str_radix(&hex[..2], 16).unwrap()).collect()
            })
            .collect()
    }

    /// An argument that is a number, from 0 on, and behind strings from the end on.
    pub fn number(&self, at: usize) -> u64 {
        let outside: String = self.arguments.split('"').step_by(2).collect();
        let argument = outside.split(", ").nth(at).unwrap_or_else(|| panic!("{self:?}"));
        argument.trim().parse().unwrap_or_else(|_| panic!("{self:?}"))
    }
}

fn strace(log: &Path, options: &[String], command: &[&OsStr], mut wrap: Command) -> Output {
    wrap.args(["-f", "-qq", "-e", "signal=none", "-o"]).arg(log).args(options).arg("--").args(command);
    wrap.output().expect("strace")
}

/// Skips the test of `what` if there is no strace.
pub fn require(what: &str) {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        super::skip(what, "no strace");
    }
}

/// Runs a command to its end; the calls, in order.
pub fn trace(log: &Path, command: &[&OsStr]) -> (Output, Vec<Call>) {
    let output =
        strace(log, &[FAST.into(), "-e".into(), format!("trace={CHANGES}")], command, Command::new("strace"));
    (output, parse(&fs::read_to_string(log).unwrap()))
}

/// As [`trace`], with all bytes of all strings.
pub fn trace_all(log: &Path, command: &[&OsStr]) -> (Output, Vec<Call>) {
    let options =
        [FAST.into(), "-xx".into(), "-s".into(), "99999999".into(), "-e".into(), format!("trace={CHANGES}")];
    let output = strace(log, &options, command, Command::new("strace"));
    (output, parse(&fs::read_to_string(log).unwrap()))
}

/// `strace` for a minute at the most, where there is no `/proc`: what a program reads there varies with what else runs on the machine.
fn without_proc() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /proc && exec timeout -s KILL 60 strace \"$@\"",
        "sh",
    ]);
    command
}

/// Runs a command to its end without `/proc`; these calls, in order.
pub fn trace_of(log: &Path, command: &[&OsStr], calls: &str) -> (Output, Vec<Call>) {
    let options = [FAST.into(), "-s".into(), "9999".into(), "-e".into(), format!("trace={calls}")];
    let output = strace(log, &options, command, without_proc());
    (output, parse(&fs::read_to_string(log).unwrap()))
}

/// Starts a command without `/proc`, which stands still when it has done a call for the `ordinal`th time in a thread; `None`
/// if it came to its end instead.
pub fn stopped_after(log: &Path, command: &[&OsStr], name: &str, ordinal: usize) -> Option<Stopped> {
    let mut strace = without_proc();
    strace.args(["-f", "-qq", "-o"]).arg(log);
    strace.args(["-e", &format!("trace={name}")]);
    strace.args(["-e", &format!("inject={name}:signal=STOP:when={ordinal}")]);
    strace.arg("--").args(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = strace.spawn().expect("strace");
    wait_for_stop(child, log).ok()
}

/// Runs a command and kills it as it enters `call`, which it does not do any more.
pub fn kill_at(log: &Path, command: &[&OsStr], call: &Call) -> Output {
    inject(log, command, call, "signal=KILL", None)
}

/// Runs a command and sends it a signal, as `TERM`, as it enters `call`.
pub fn interrupt_at(log: &Path, command: &[&OsStr], call: &Call, signal: &str) -> Output {
    inject(log, command, call, &format!("signal={signal}"), None)
}

/// Runs a command of which `call` fails with `error`.
pub fn fail_at(log: &Path, command: &[&OsStr], call: &Call, error: &str) -> Output {
    inject(log, command, call, &format!("error={error}"), Some(FAST))
}

fn inject(log: &Path, command: &[&OsStr], call: &Call, what: &str, fast: Option<&str>) -> Output {
    let mut options = vec![
        "-e".into(),
        format!("trace={}", call.name),
        "-e".into(),
        format!("inject={}:{what}:when={}", call.name, call.ordinal),
    ];
    // The same path, below the directories of this run; or the same name in a directory that is held open.
    let opened = path_opened(&call.name, &call.arguments);
    if let Some(name) = opened.filter(|path| !path.contains('/')) {
        options.extend(["-P".to_owned(), name]);
    } else if let Some(below) =
        path_opened(&call.name, &call.arguments).and_then(|path| split_temporary(&path)?.1)
    {
        let texts = command.iter().copied().chain([log.as_os_str()]);
        let roots = texts.filter_map(|text| split_temporary(text.to_str()?));
        options.extend(roots.flat_map(|(root, _)| ["-P".to_owned(), format!("{root}/{below}")]));
    }
    options.extend(fast.map(str::to_owned));
    let output = strace(log, &options, command, Command::new("strace"));
    // Counts are of threads; it must have been the call that was meant.
    let text = fs::read_to_string(log).unwrap();
    let calls = parse(&text);
    let mut hit = calls.iter().filter(|found| found.name == call.name && found.ordinal == call.ordinal);
    assert!(hit.any(|found| same(found, call)), "not at {call:?}: {text}");
    output
}

/// What `openat` opens.
fn path_opened(name: &str, arguments: &str) -> Option<String> {
    (name == "openat").then(|| arguments.split('"').nth(1).unwrap_or_default().to_owned())
}

/// A temporary directory in a text, and what follows below it.
fn split_temporary(text: &str) -> Option<(String, Option<String>)> {
    let start = text.find('/')?;
    let name = start + text[start..].find("/.tmp")? + 1;
    let end = text[name..].find('/').map_or(text.len(), |length| name + length);
    Some((text[start..end].to_owned(), text.get(end + 1..).map(str::to_owned)))
}

/// The same call in another run: names of backups have times, and numbers of descriptors may differ.
fn same(a: &Call, b: &Call) -> bool {
    a.name == b.name && a.arguments.contains("O_CREAT") == b.arguments.contains("O_CREAT")
}

fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut ordinals: BTreeMap<(u32, String, Option<String>), usize> = BTreeMap::new();
    let mut open: BTreeMap<u32, usize> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse::<u32>(), rest.trim_start()) else { continue };
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        let split_result = |text: &str| {
            let (arguments, result) = text.rsplit_once(" = ")?;
            let arguments = arguments.trim_end().strip_suffix(')')?.to_owned();
            Some((arguments, result.split(' ').next().and_then(|number| number.parse().ok())))
        };
        if rest.starts_with("<... ") {
            let Some((_, tail)) = rest.split_once(" resumed>") else { continue };
            let Some(at) = open.remove(&thread) else { continue };
            if let Some((arguments, result)) = split_result(tail) {
                calls[at].arguments.push_str(&arguments);
                calls[at].result = result;
            }
            continue;
        }
        let Some((name, tail)) = rest.split_once('(') else { continue };
        let ordinal = ordinals.entry((thread, name.to_owned(), path_opened(name, tail))).or_default();
        *ordinal += 1;
        let mut call =
            Call { name: name.to_owned(), ordinal: *ordinal, arguments: String::new(), result: None, thread };
        if let Some(begun) = tail.strip_suffix(" <unfinished ...>") {
            begun.clone_into(&mut call.arguments);
            open.insert(thread, calls.len());
        } else if let Some((arguments, result)) = split_result(tail) {
            (call.arguments, call.result) = (arguments, result);
        }
        calls.push(call);
    }
    calls
}

/// A program that stands still.
#[derive(Debug)]
pub struct Stopped {
    child: std::process::Child,
    program: u32,
    log: PathBuf,
}

/// Starts a command that stops itself as it enters `call`.
pub fn stopped_at(log: &Path, command: &[&OsStr], call: &Call) -> Stopped {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(log);
    strace.args(["-e", &format!("trace={}", call.name)]);
    strace.args(["-e", &format!("inject={}:signal=STOP:when={}", call.name, call.ordinal)]);
    strace.arg("--").args(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = strace.spawn().expect("strace");
    wait_for_stop(child, log).expect("it did not stop")
}

/// The processes that stood still so far, one for each time.
fn stops(log: &Path) -> Vec<u32> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let stops = text.lines().filter(|line| line.contains("--- stopped by SIGSTOP"));
    stops.filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// Waits until a program stands still; else how it ended.
fn wait_for_stop(mut child: std::process::Child, log: &Path) -> Result<Stopped, Output> {
    loop {
        let is_over = child.try_wait().unwrap().is_some();
        if let Some(program) = stops(log).first().copied() {
            return Ok(Stopped { child, program, log: log.to_owned() });
        }
        if is_over {
            return Err(child.wait_with_output().unwrap());
        }
        std::thread::yield_now();
    }
}

impl Stopped {
    /// Lets it run to its end.
    pub fn go_on(mut self) -> Output {
        assert!(go_on(self.program), "it is gone");
        // All threads of a program stop, and another of them may come to such a number as well.
        let mut seen = 1;
        while self.child.try_wait().unwrap().is_none() {
            for program in stops(&self.log).into_iter().skip(seen) {
                // It may have come to its end.
                let _ = go_on(program);
                seen += 1;
            }
            std::thread::yield_now();
        }
        self.child.wait_with_output().unwrap()
    }
}

fn go_on(program: u32) -> bool {
    Command::new("kill").args(["-CONT", &program.to_string()]).output().is_ok_and(|out| out.status.success())
}
