//! The judge that imports Prometheus's own packages: `testdata/oracle`, built once for each run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The oracle's binary, or why there is none.
fn binary() -> &'static Result<PathBuf, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| {
        let root = super::project();
        let target = root.join("target/oracle");
        std::fs::create_dir_all(&target).map_err(|e| e.to_string())?;
        let binary = target.join("oracle");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&binary)
            .arg(".")
            .current_dir(root.join("testdata/oracle"))
            .output()
            .map_err(|e| format!("no Go toolchain: {e}"))?;
        if built.status.success() {
            Ok(binary)
        } else {
            Err(String::from_utf8_lossy(&built.stderr).into_owned())
        }
    })
}

/// The oracle, or why there is none.
pub fn find() -> Result<Oracle, &'static str> {
    binary().as_deref().map(Oracle).map_err(String::as_str)
}

/// The oracle; without one, the test of `what` is skipped.
pub fn judge(what: &str) -> Oracle {
    find().unwrap_or_else(|why| super::skip(what, why))
}

/// The oracle for a part of the test of `what`; without one, that part is skipped.
pub fn judge_of_part(what: &str) -> Option<Oracle> {
    find().map_err(|why| super::skip_part(what, why)).ok()
}

/// The JSON document that a command has printed.
fn answer(args: &[&str], output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("oracle {args:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs the oracle's commands.
#[derive(Clone, Copy, Debug)]
pub struct Oracle(&'static Path);

impl Oracle {
    /// One JSON document from a command.
    pub fn json(self, args: &[&str], dir: &Path) -> serde_json::Value {
        let output = Command::new(self.0).args(args).arg(dir).stdin(Stdio::null()).output().unwrap();
        answer(args, &output)
    }

    /// As [`Self::json`], run by another user, if one is given. What that one may not even list is a crash.
    pub fn json_as(self, user: Option<u32>, args: &[&str], dir: &Path) -> serde_json::Value {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(self.0);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let output = command.args(args).arg(dir).stdin(Stdio::null()).output().unwrap();
        if user.is_some() && output.stdout.is_empty() {
            return serde_json::json!({ "crash": String::from_utf8_lossy(&output.stderr) });
        }
        answer(args, &output)
    }

    /// One JSON document from a command that is told what to do.
    pub fn told(self, args: &[&str], dir: &Path, what: &serde_json::Value) -> serde_json::Value {
        let mut child = Command::new(self.0)
            .args(args)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The answer comes when all has been read.
        child.stdin.take().unwrap().write_all(what.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        answer(args, &output)
    }

    /// The answers of `oracle read` with `args` about each of `dirs`, in order. Where the oracle dies of one, its last
    /// words are the error; it is then asked about the others.
    pub fn read_batch(self, args: &[&str], dirs: &[PathBuf]) -> Vec<serde_json::Value> {
        let mut answers = Vec::new();
        while answers.len() < dirs.len() {
            let rest = &dirs[answers.len()..];
            let mut child = Command::new(self.0)
                .args(["read", "--batch"])
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            std::thread::scope(|scope| {
                // Fails where the oracle dies.
                scope.spawn(move || rest.iter().try_for_each(|dir| writeln!(stdin, "{}", dir.display())));
                let mut stderr = child.stderr.take().unwrap();
                let last_words = scope.spawn(move || {
                    let mut words = String::new();
                    let _ = stderr.read_to_string(&mut words);
                    words
                });
                for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                    answers.push(serde_json::from_str(&line.unwrap()).unwrap());
                }
                let last_words = last_words.join().unwrap();
                if !child.wait().unwrap().success() {
                    let first = last_words.lines().next().unwrap_or("killed");
                    assert!(!first.starts_with("oracle: "), "{first}");
                    answers.push(serde_json::json!({ "error": format!("panic: {first}") }));
                }
            });
        }
        answers
    }

    /// Every line of `oracle dump` with `args`, in order.
    pub fn dump(self, args: &[&str], dir: &Path, each: impl FnMut(serde_json::Value)) {
        let dir = dir.to_str().expect("a path of a test");
        self.lines(&[&["dump"], args, &[dir]].concat(), each);
    }

    /// Random chunks of all encodings and damaged copies, with what their iterators return.
    pub fn chunks(self, args: &[&str], each: impl FnMut(serde_json::Value)) {
        self.lines(&[&["chunkenc"], args].concat(), each);
    }

    /// What `oracle index` or `oracle blockfiles` has written into `dir`, and what that is made of.
    pub fn made(self, args: &[&str], dir: &Path, each: impl FnMut(serde_json::Value)) {
        let dir = dir.to_str().expect("a path of a test");
        self.lines(&[args, &[dir]].concat(), each);
    }

    /// Every JSON document of a command that prints one a line, in order.
    fn lines(self, args: &[&str], mut each: impl FnMut(serde_json::Value)) {
        let mut child =
            Command::new(self.0).args(args).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            each(serde_json::from_str(&line.unwrap()).unwrap());
        }
        assert!(child.wait().unwrap().success(), "oracle {args:?}");
    }

    /// Writes a log.
    pub fn write(self, args: &[&str], dir: &Path) {
        let output = Command::new(self.0).arg("write").args(args).arg(dir).output().unwrap();
        assert!(
            output.status.success(),
            "oracle write {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
