//! Real Prometheus servers as judges: find them, start one on a data directory, read its log, query it, stop it.
//!
//! `scripts/fetch-servers` puts them where [`Servers::find`] looks.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to become ready or to exit before it counts as hanging.
pub const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to stop after SIGTERM before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long an answer to one HTTP request may take.
const HTTP_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(20);

/// What can go wrong between a test and a server (a server that exits by itself is an answer, not an error).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or process operation of the harness failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The server exited where a running one was needed.
    #[error("Prometheus {version} exited ({status}):\n{log}")]
    Exited {
        /// Its version.
        version: Version,
        /// Its exit status.
        status: ExitStatus,
        /// Its whole log.
        log: Log,
    },
    /// The server was neither ready nor gone when the deadline passed.
    #[error("Prometheus {version} is still not ready:\n{log}")]
    Hangs {
        /// Its version.
        version: Version,
        /// Its log so far.
        log: Log,
    },
    /// Something that was waited for did not come about in time.
    #[error("not within {} s: {what}", deadline.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The answer to an HTTP request is not what the API promises.
    #[error("{path}: HTTP status {status}: {body}")]
    Http {
        /// Path and query of the request.
        path: String,
        /// HTTP status; 0 if there was no status line.
        status: u16,
        /// Body of the answer.
        body: String,
    },
    /// `WALFIX_SERVERS` or a directory in it cannot be understood.
    #[error("{0}")]
    Layout(String),
}

/// Makes an [`Error::Io`] of an I/O error.
pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// A version of Prometheus. Ordered as versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self(major, minor, patch)),
            _ => Err(Error::Layout(format!("{text:?} is not a version like 2.53.3"))),
        }
    }
}

/// Where the servers are.
#[derive(Debug)]
pub struct Servers;

const NO_SERVERS: &str = "no Prometheus servers; run scripts/fetch-servers or set WALFIX_SERVERS";

impl Servers {
    /// The servers that are there, oldest first: those in the directory `WALFIX_SERVERS`, else in `target/servers`,
    /// each in a directory named after its version with `prometheus` and `promtool` in it. None is not an error.
    ///
    /// # Errors
    ///
    /// If `WALFIX_SERVERS` is set and cannot be read: a typing error must not look like "no servers".
    pub fn find() -> Result<Vec<Server>, Error> {
        let wanted = std::env::var_os("WALFIX_SERVERS").filter(|v| !v.is_empty());
        let explicit = wanted.is_some();
        let directory = wanted.map_or_else(|| super::project().join("target/servers"), PathBuf::from);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(_) if !explicit => return Ok(Vec::new()),
            Err(e) => return Err(io(directory.display().to_string())(e)),
        };
        let mut servers: Vec<Server> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.parse().ok()?;
                let (prometheus, promtool) = (entry.path().join("prometheus"), entry.path().join("promtool"));
                (prometheus.is_file() && promtool.is_file()).then_some(Server {
                    version,
                    prometheus,
                    promtool,
                })
            })
            .collect();
        servers.sort_by_key(|server| server.version);
        Ok(servers)
    }

    /// The servers for the test of `what`, one at least; without any, it is skipped.
    ///
    /// # Panics
    ///
    /// As [`super::skip`] and if `WALFIX_SERVERS` cannot be read.
    pub fn judges(what: &str) -> Vec<Server> {
        let servers = Self::find().unwrap_or_else(|e| panic!("{e}"));
        if servers.is_empty() {
            super::skip(what, NO_SERVERS);
        }
        servers
    }

    /// The servers for a part of the test of `what`; without any, that part is skipped.
    ///
    /// # Panics
    ///
    /// As [`Servers::judges`].
    pub fn judges_of_part(what: &str) -> Vec<Server> {
        let servers = Self::find().unwrap_or_else(|e| panic!("{e}"));
        if servers.is_empty() {
            super::skip_part(what, NO_SERVERS);
        }
        servers
    }

    /// Runs a test called `what` with every server, all at once: most of the time of a server goes into waiting (its
    /// first scrape comes 5 s after the start). Without any, the test is skipped.
    ///
    /// # Errors
    ///
    /// The first error of a test, if any.
    ///
    /// # Panics
    ///
    /// As [`Servers::judges`], and if a test does.
    pub fn each<E: Send>(what: &str, test: impl Fn(&Server) -> Result<(), E> + Sync) -> Result<(), E> {
        let servers = Self::judges(what);
        thread::scope(|scope| {
            let threads: Vec<_> = servers.iter().map(|server| scope.spawn(|| test(server))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }
}

/// Compression of what a server writes to its WAL, WBL, checkpoints and snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Records as they are.
    None,
    /// Snappy, the default.
    Snappy,
    /// Zstandard, since 2.46.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        })
    }
}

/// How to run a server. The default is a server as an operator would start it, without anything to scrape.
#[derive(Debug, Clone)]
pub struct Options {
    /// Agent mode.
    pub agent: bool,
    /// Configuration file, YAML.
    pub config: String,
    /// Compression of the log; `None`: the server's default.
    pub compression: Option<Compression>,
    /// `--storage.tsdb.min-block-duration` and max-block-duration: head compaction, and with it truncation of the
    /// WAL and a checkpoint, comes about once in that time. Servers only.
    pub block_duration: Option<Duration>,
    /// `--storage.{tsdb,agent}.wal-segment-size`, bytes; Prometheus takes 10 to 256 MiB.
    pub segment_size: Option<u64>,
    /// Names for `--enable-feature`; unknown ones only make the server warn.
    pub features: Vec<String>,
    /// Whether the server takes its lock file; `None`: its own default (Debian's 2.x does not, all others do).
    pub lock: Option<bool>,
    /// Further flags, as they are.
    pub flags: Vec<String>,
    /// How long it may take to be ready.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            agent: false,
            config: "scrape_configs: []\n".to_owned(),
            compression: None,
            block_duration: None,
            segment_size: None,
            features: Vec::new(),
            lock: None,
            flags: Vec::new(),
            deadline: START_DEADLINE,
        }
    }
}

/// A Prometheus server that can be started.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its version.
    pub version: Version,
    /// Path of the server.
    pub prometheus: PathBuf,
    /// Path of its promtool.
    pub promtool: PathBuf,
}

impl Server {
    /// The compressions it can write.
    pub fn compressions(&self) -> &'static [Compression] {
        if self.version >= Version(2, 46, 0) {
            &[Compression::None, Compression::Snappy, Compression::Zstd]
        } else {
            &[Compression::None, Compression::Snappy]
        }
    }

    /// The command line for `data`, without what the harness itself adds.
    fn arguments(&self, data: &Path, config: &Path, options: &Options) -> Vec<String> {
        let storage = if options.agent { "storage.agent" } else { "storage.tsdb" };
        let mut arguments = vec![
            format!("--config.file={}", config.display()),
            // Port 0: the kernel picks a free one, and the log says which.
            "--web.listen-address=127.0.0.1:0".to_owned(),
            format!("--{storage}.path={}", data.display()),
            // Warnings and errors are what is judged; the address is logged as info.
            "--log.level=info".to_owned(),
        ];
        let mut features = options.features.clone();
        if options.agent {
            // A flag of its own since 3.0.
            if self.version >= Version(3, 0, 0) {
                arguments.push("--agent".to_owned());
            } else {
                features.push("agent".to_owned());
            }
        }
        match options.compression {
            None => {}
            Some(Compression::None) => arguments.push(format!("--no-{storage}.wal-compression")),
            Some(Compression::Snappy) => arguments.push(format!("--{storage}.wal-compression")),
            Some(Compression::Zstd) => {
                arguments.push(format!("--{storage}.wal-compression"));
                arguments.push(format!("--{storage}.wal-compression-type=zstd"));
            }
        }
        if let (Some(duration), false) = (options.block_duration, options.agent) {
            let seconds = duration.as_secs();
            arguments.push(format!("--storage.tsdb.min-block-duration={seconds}s"));
            arguments.push(format!("--storage.tsdb.max-block-duration={seconds}s"));
        }
        if let Some(bytes) = options.segment_size {
            arguments.push(format!("--{storage}.wal-segment-size={bytes}B"));
        }
        if let Some(lock) = options.lock {
            // Debian's 2.x has turned the flag round.
            let reversed = self.version < Version(3, 0, 0) && self.help_mentions("use-lockfile");
            let (yes, no) = if reversed { ("", "no-") } else { ("no-", "") };
            let flag = if reversed { "use-lockfile" } else { "no-lockfile" };
            arguments.push(format!("--{}{storage}.{flag}", if lock { yes } else { no }));
        }
        if !features.is_empty() {
            arguments.push(format!("--enable-feature={}", features.join(",")));
        }
        arguments.extend(options.flags.iter().cloned());
        arguments
    }

    /// True if the server's `--help` has this word.
    fn help_mentions(&self, word: &str) -> bool {
        Command::new(&self.prometheus).arg("--help").output().is_ok_and(|out| {
            [out.stdout, out.stderr].iter().any(|o| String::from_utf8_lossy(o).contains(word))
        })
    }

    /// Starts the server on `data` itself (made if it is not there) and waits until it is ready, exits or hangs.
    ///
    /// # Errors
    ///
    /// If it cannot be started at all.
    pub fn start(&self, data: &Path, options: &Options) -> Result<Started, Error> {
        let scratch = tempfile::tempdir().map_err(io("temporary directory"))?;
        self.launch(data.to_owned(), options, scratch)
    }

    /// As [`Server::start`], on a copy of `data` that goes away with the server.
    ///
    /// # Errors
    ///
    /// If `data` cannot be copied or the server not be started at all.
    pub fn start_on_copy(&self, data: &Path, options: &Options) -> Result<Started, Error> {
        let scratch = tempfile::tempdir().map_err(io("temporary directory"))?;
        let copy = scratch.path().join("data");
        copy_directory(data, &copy)?;
        self.launch(copy, options, scratch)
    }

    fn launch(&self, data: PathBuf, options: &Options, scratch: TempDir) -> Result<Started, Error> {
        let config = scratch.path().join("prometheus.yml");
        std::fs::write(&config, &options.config).map_err(io("write the configuration"))?;
        std::fs::create_dir_all(&data).map_err(io(data.display().to_string()))?;
        let arguments = self.arguments(&data, &config, options);
        let mut child = spawn(&self.prometheus, arguments.clone())
            .map_err(io(format!("start {}", self.prometheus.display())))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| collect(stderr, Arc::clone(&lines)));
        let mut running = Running {
            version: self.version,
            data,
            arguments,
            address: None,
            child,
            reader,
            lines,
            _scratch: scratch,
        };
        let end = Instant::now() + options.deadline;
        loop {
            if let Some(status) = running.exited()? {
                running.finish_log();
                return Ok(Started::Exited(Exited { version: self.version, status, log: running.log() }));
            }
            if running.address.is_none() {
                running.address = running.log().listening();
            }
            if running.address.is_some()
                && running.get_until("/-/ready", end).is_ok_and(|(status, _)| status == 200)
            {
                return Ok(Started::Ready(running));
            }
            if Instant::now() >= end {
                return Ok(Started::Hangs(running));
            }
            thread::sleep(POLL);
        }
    }

    /// Runs promtool to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started; what it says and returns is in the output.
    pub fn promtool(&self, arguments: &[&str]) -> Result<std::process::Output, Error> {
        Command::new(&self.promtool).args(arguments).stdin(Stdio::null()).output().map_err(io("promtool"))
    }
}

/// What became of a server that was started.
#[derive(Debug)]
#[must_use]
pub enum Started {
    /// It serves.
    Ready(Running),
    /// It exited by itself.
    Exited(Exited),
    /// It was neither ready nor gone at the deadline; still running, so that it can be looked at.
    Hangs(Running),
}

impl Started {
    /// The server if it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] and [`Error::Hangs`], each with the log.
    pub fn ready(self) -> Result<Running, Error> {
        match self {
            Self::Ready(running) => Ok(running),
            Self::Exited(Exited { version, status, log }) => Err(Error::Exited { version, status, log }),
            Self::Hangs(running) => Err(Error::Hangs { version: running.version, log: running.log() }),
        }
    }

    /// The log so far, whatever became of it.
    pub fn log(&self) -> Log {
        match self {
            Self::Ready(running) | Self::Hangs(running) => running.log(),
            Self::Exited(exited) => exited.log.clone(),
        }
    }
}

/// A server that is gone.
#[derive(Debug, Clone)]
pub struct Exited {
    /// Its version.
    pub version: Version,
    /// Its exit status.
    pub status: ExitStatus,
    /// Its whole log.
    pub log: Log,
}

/// A server that runs. Dropped, it is stopped.
#[derive(Debug)]
pub struct Running {
    /// Its version.
    pub version: Version,
    data: PathBuf,
    arguments: Vec<String>,
    address: Option<SocketAddr>,
    child: Child,
    reader: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<String>>>,
    /// Configuration and, perhaps, the copy of the data directory.
    _scratch: TempDir,
}

impl Running {
    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its command line, without the program.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Where it listens.
    ///
    /// # Panics
    ///
    /// If it is not ready.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log up to now.
    pub fn log(&self) -> Log {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Log { lines: lines.iter().map(|line| LogLine::parse(line)).collect() }
    }

    /// Ends it as an operator does (SIGTERM) and waits for it; kills it if it does not end in time.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub fn stop(mut self) -> Result<Exited, Error> {
        let status = self.terminate()?;
        self.finish_log();
        Ok(Exited { version: self.version, status, log: self.log() })
    }

    /// Kills it (SIGKILL): what it has written stays as it is, as after a crash of the process.
    ///
    /// # Errors
    ///
    /// If its end cannot be waited for.
    pub fn kill(mut self) -> Result<Exited, Error> {
        self.child.kill().map_err(io("kill the server"))?;
        let status = self.child.wait().map_err(io("wait for the server"))?;
        self.finish_log();
        Ok(Exited { version: self.version, status, log: self.log() })
    }

    /// Its status if it is gone.
    fn exited(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(io("look after the server"))
    }

    fn terminate(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        // std can only send SIGKILL; every shell has `kill`. The child is not reaped yet: the id is still its own.
        let _ = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()])
            .stderr(Stdio::null())
            .status();
        let end = Instant::now() + STOP_DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.child.kill().map_err(io("kill the server"))?;
        self.child.wait().map_err(io("wait for the server"))
    }

    /// Waits for the rest of the log of a server that is gone.
    fn finish_log(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// One GET: status and body.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), Error> {
        self.get_until(path, Instant::now() + HTTP_DEADLINE)
    }

    fn get_until(&self, path: &str, end: Instant) -> Result<(u16, String), Error> {
        self.request("GET", path, end)
    }

    fn request(&self, method: &str, path: &str, end: Instant) -> Result<(u16, String), Error> {
        let address = self.address.ok_or_else(|| Error::Layout("the server does not listen".to_owned()))?;
        let left = end.saturating_duration_since(Instant::now()).max(POLL);
        let failed = || io(format!("{method} {path}"));
        let mut stream = TcpStream::connect_timeout(&address, left).map_err(failed())?;
        stream.set_read_timeout(Some(left)).map_err(failed())?;
        // HTTP/1.0: the answer is not chunked and ends with the connection.
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed())?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }

    /// One call of the HTTP API: the `data` of a successful answer.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it is not a success.
    pub fn api(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Result<Value, Error> {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        let path = format!("/api/v1/{endpoint}?{}", query.join("&"));
        let (status, body) = self.get(&path)?;
        match serde_json::from_str::<Value>(&body) {
            Ok(mut answer) if status == 200 && answer["status"] == "success" => Ok(answer["data"].take()),
            _ => Err(Error::Http { path, status, body }),
        }
    }

    /// An instant query at `time` (seconds; `None`: now): its `data`.
    ///
    /// # Errors
    ///
    /// As [`Running::api`].
    pub fn query(&self, promql: &str, time: Option<f64>) -> Result<Value, Error> {
        let time = time.map(|t| format!("{t:.3}"));
        let mut parameters = vec![("query", promql)];
        parameters.extend(time.as_deref().map(|t| ("time", t)));
        self.api("query", &parameters)
    }

    /// A range query; times and step in seconds.
    ///
    /// # Errors
    ///
    /// As [`Running::api`].
    pub fn query_range(&self, promql: &str, start: f64, end: f64, step: f64) -> Result<Value, Error> {
        let times = [start, end, step].map(|t| format!("{t:.3}"));
        self.api(
            "query_range",
            &[("query", promql), ("start", &times[0]), ("end", &times[1]), ("step", &times[2])],
        )
    }

    /// The label sets that match, over all time.
    ///
    /// # Errors
    ///
    /// As [`Running::api`].
    pub fn series(&self, selector: &str) -> Result<Vec<BTreeMap<String, String>>, Error> {
        let data = self.api("series", &[("match[]", selector), ("start", "0"), ("end", "9999999999")])?;
        serde_json::from_value(data).map_err(|e| Error::Layout(format!("series: {e}")))
    }

    /// Every raw sample of the series that match, in all the time up to `time` (seconds; `None`: now): from label set
    /// (as a selector writes it) to samples, each timestamp in ms and the value as the server prints it. Native histograms
    /// are there too, their value being their JSON.
    ///
    /// # Errors
    ///
    /// As [`Running::api`].
    pub fn samples(
        &self,
        selector: &str,
        time: Option<f64>,
    ) -> Result<BTreeMap<String, Vec<(i64, String)>>, Error> {
        // A duration is an int64 of nanoseconds: 100 years is well within, and before the Unix epoch nothing is.
        let data = self.query(&format!("{selector}[100y]"), time)?;
        let mut all = BTreeMap::new();
        for series in data["result"].as_array().into_iter().flatten() {
            let mut samples = Vec::new();
            for (key, text) in [("values", false), ("histograms", true)] {
                for sample in series[key].as_array().into_iter().flatten() {
                    let seconds = sample[0].as_f64().unwrap_or(f64::NAN);
                    #[allow(clippy::cast_possible_truncation)] // ms since 1970 are far below 2^53
                    let ms = (seconds * 1000.0).round() as i64;
                    let value = match sample[1].as_str() {
                        Some(value) if !text => value.to_owned(),
                        _ => sample[1].to_string(),
                    };
                    samples.push((ms, value));
                }
            }
            samples.sort();
            all.insert(label_set(&series["metric"]), samples);
        }
        Ok(all)
    }

    /// Deletes the samples that match, of all time: tombstones. The server needs `--web.enable-admin-api`.
    ///
    /// # Errors
    ///
    /// If the server refuses.
    pub fn delete_series(&self, selector: &str) -> Result<(), Error> {
        let path = format!("/api/v1/admin/tsdb/delete_series?match[]={}", escape(selector));
        match self.request("POST", &path, Instant::now() + HTTP_DEADLINE)? {
            (204, _) => Ok(()),
            (status, body) => Err(Error::Http { path, status, body }),
        }
    }

    /// Asks `condition` of this server again and again until it holds.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] if it never does, [`Error::Exited`] if the server ends, and what `condition` returns.
    pub fn wait_for(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let end = Instant::now() + deadline;
        loop {
            if condition(self)? {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                self.finish_log();
                return Err(Error::Exited { version: self.version, status, log: self.log() });
            }
            if Instant::now() >= end {
                return Err(Error::Deadline { what: what.to_owned(), deadline });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.terminate();
        self.finish_log();
    }
}

/// A label set as a selector writes it, names in order.
fn label_set(metric: &Value) -> String {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned).unwrap_or_default();
    label_text(
        &metric.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect(),
    )
}

/// A label set as a selector writes it.
pub fn label_text(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", labels.join(","))
}

/// Percent-encodes everything but what is always allowed in a query.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(|half| char::from(b"0123456789ABCDEF"[usize::from(half)])));
        }
    }
    out
}

/// Copies a directory with all that is in it.
///
/// # Errors
///
/// If something cannot be read or written.
pub fn copy_directory(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = || io(format!("copy {} to {}", from.display(), to.display()));
    std::fs::create_dir_all(to).map_err(failed())?;
    for entry in std::fs::read_dir(from).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed())?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target).map_err(failed())?;
        }
    }
    Ok(())
}

/// What is asked of the thread that starts servers.
type Order = (PathBuf, Vec<String>, mpsc::Sender<std::io::Result<Child>>);

/// Starts a program that is killed when the test process dies.
///
/// The parent-death signal comes when the *thread* that forked ends, and a test's thread may end before a server that
/// several tests share: so one thread, which lives as long as the process, starts them all.
fn spawn(program: &Path, arguments: Vec<String>) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (program, arguments, answer) in orders {
                let quiet = |mut command: Command| {
                    command
                        .args(&arguments)
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .stderr(Stdio::piped())
                        .spawn()
                };
                let mut tied = Command::new("setpriv");
                tied.args(["--pdeathsig", "KILL", "--"]).arg(&program);
                let child = match quiet(tied) {
                    // No util-linux here: then a killed test leaves its servers behind.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => quiet(Command::new(&program)),
                    result => result,
                };
                let _ = answer.send(child);
            }
        });
        Mutex::new(sender)
    });
    let gone = || std::io::Error::other("the thread that starts servers is gone");
    let (sender, answer) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((program.to_owned(), arguments, sender))
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Reads a log to its end in a thread of its own, so that the server never waits for its reader.
fn collect(stderr: ChildStderr, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            line.clear();
        }
    })
}

/// Level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `warn`
    Warn,
    /// `error`
    Error,
}

/// One line of a server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The line as it was written.
    pub raw: String,
    /// Its keys and values in order, values unquoted. Empty for what is no log line, a panic's trace for instance.
    pub fields: Vec<(String, String)>,
}

impl LogLine {
    /// Takes apart a line of logfmt (2.x) or slog's text format (3.x): both are `key=value` with values quoted as Go
    /// quotes strings where they need it.
    pub fn parse(raw: &str) -> Self {
        Self { raw: raw.to_owned(), fields: fields(raw).unwrap_or_default() }
    }

    /// The first value of `key`.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Its level, written in lower case by 2.x and in upper case by 3.x.
    pub fn level(&self) -> Option<Level> {
        match self.field("level")?.to_ascii_lowercase().as_str() {
            "debug" => Some(Level::Debug),
            "info" => Some(Level::Info),
            "warn" => Some(Level::Warn),
            "error" => Some(Level::Error),
            _ => None,
        }
    }

    /// Its message; empty if it has none.
    pub fn msg(&self) -> &str {
        self.field("msg").unwrap_or_default()
    }

    /// The error it tells of.
    pub fn err(&self) -> Option<&str> {
        self.field("err")
    }
}

/// The fields of a line, or none if it is not `key=value` throughout.
fn fields(line: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || key.contains([' ', '"']) {
            return None;
        }
        let value = if let Some(quoted) = after.strip_prefix('"') {
            let (value, after) = unquote(quoted)?;
            rest = after;
            value
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            rest = &after[end..];
            after[..end].to_owned()
        };
        fields.push((key.to_owned(), value));
        rest = rest.trim_start();
    }
    Some(fields)
}

/// Reads a string quoted by Go's `strconv.Quote` or as JSON, from behind its first quote: the string and what follows.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((String::from_utf8_lossy(&bytes).into_owned(), &quoted[at + 1..])),
            '\\' => {
                let digits = match chars.next()?.1 {
                    'n' => {
                        bytes.push(b'\n');
                        continue;
                    }
                    't' => {
                        bytes.push(b'\t');
                        continue;
                    }
                    'r' => {
                        bytes.push(b'\r');
                        continue;
                    }
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    other => {
                        bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                };
                let mut code = 0;
                for _ in 0..digits {
                    code = code * 16 + chars.next()?.1.to_digit(16)?;
                }
                match u8::try_from(code) {
                    // \xNN is a byte, \uNNNN a character.
                    Ok(byte) if digits == 2 => bytes.push(byte),
                    _ => bytes.extend_from_slice(
                        char::from_u32(code)
                            .unwrap_or(char::REPLACEMENT_CHARACTER)
                            .encode_utf8(&mut [0; 4])
                            .as_bytes(),
                    ),
                }
            }
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

/// A server's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Its lines in order.
    pub lines: Vec<LogLine>,
}

impl Log {
    /// Lines of at least this level.
    pub fn at_least(&self, level: Level) -> impl Iterator<Item = &LogLine> {
        self.lines.iter().filter(move |line| line.level().is_some_and(|l| l >= level))
    }

    /// The first line with exactly this message.
    pub fn with_msg(&self, msg: &str) -> Option<&LogLine> {
        self.lines.iter().find(|line| line.msg() == msg)
    }

    /// The first line that tells of a corruption, a repair or a fatal error: none of these in the log of a server that
    /// likes its data directory.
    pub fn complaint(&self) -> Option<&LogLine> {
        self.lines.iter().find(|line| {
            let raw = line.raw.to_ascii_lowercase();
            line.level() == Some(Level::Error)
                || line.raw.starts_with("panic:")
                || [
                    "corrupt",
                    "attempting repair",
                    "successfully repaired",
                    "unknown series references",
                    "deleting all",
                ]
                .iter()
                .any(|sign| raw.contains(sign))
        })
    }

    /// The address that the server says it listens on.
    fn listening(&self) -> Option<SocketAddr> {
        self.with_msg("Listening on")?.field("address")?.parse().ok()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "    {}", line.raw))
    }
}
