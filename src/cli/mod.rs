//! The command line: what can be asked for, and how the answers end.

mod explain;
mod progress;
mod repair;
mod scan;
mod undo;
mod watch;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use clap::{Args, Parser, Subcommand, ValueEnum};
use walfix::fix::FixError;
use walfix::forecast::{Assumed, Version};
use walfix::io::printable;
use walfix::repair::RepairError;
use walfix::scan::blocks::Depth;
use walfix::tsdb::User;
use walfix::verdict;

const EXIT_STATUS: &str = "\
Exit status:
   0  clean: Prometheus starts and serves all that can be read; undo succeeded
   1  damage found, and all of it repaired
   4  damage found that is not repaired, or a start that fails or loses data
   8  could not do the work: nothing to scan, no permission, ...
  16  the command line is wrong";

const EXAMPLES: &str = "\
Examples:
  walfix scan /prometheus      say what is damaged in the data directory
  walfix scan --help           more about one command
  walfix scan --format json . | jq '.findings[] | select(.severity == \"damage\")'";

/// How a command ends, after fsck(8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// No damage.
    Clean = 0,
    /// There was damage, and all of it is repaired.
    Repaired = 1,
    /// Damage is left.
    Damaged = 4,
    /// The work could not be done.
    Failed = 8,
    /// The command line is wrong.
    Usage = 16,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// fsck for Prometheus: finds damage in the write-ahead log.
#[derive(Debug, Parser)]
#[command(
    name = "walfix",
    version,
    after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Scan),
    Repair(repair::Repair),
    Undo(undo::Undo),
    Explain(explain::Explain),
}

/// What every command takes.
#[derive(Args, Debug)]
struct Global {
    /// For people, or one JSON document for machines.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print nothing if there is no damage, and only the verdict if there is; JSON is printed all the same.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Threads to read with, at most four for each processor [default: one for each processor].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// How much of each block is verified.
    #[arg(long, global = true, value_name = "DEPTH", value_enum, default_value_t = BlockDepth::Checksums)]
    depth: BlockDepth,
    /// The version of Prometheus that will open the directory next.
    #[arg(long, global = true, value_name = "VERSION", default_value_t = Version::NEWEST)]
    prometheus: Version,
    /// It runs as an agent (`prometheus --agent`).
    #[arg(long, global = true)]
    agent: bool,
    /// As whom Prometheus runs [default: for root the owner of the newest segment, or, if that is root, the newest other
    /// owner; else who runs walfix].
    #[arg(long = "as", global = true, value_name = "UID:GID")]
    user: Option<User>,
    /// When to colour the text.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto)]
    color: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BlockDepth {
    /// Indexes, meta.json and tombstones.
    Structure,
    /// Also the checksum of each chunk.
    Checksums,
    /// Also each sample: chunks decode to what the index says.
    Samples,
}

impl From<BlockDepth> for Depth {
    fn from(depth: BlockDepth) -> Self {
        match depth {
            BlockDepth::Structure => Self::Structure,
            BlockDepth::Checksums => Self::Checksums,
            BlockDepth::Samples => Self::Samples,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless the environment says `NO_COLOR`.
    Auto,
    Always,
    Never,
}

impl Global {
    /// How a directory is looked at.
    fn how(&self) -> verdict::Options {
        let assumed = Assumed { version: self.prometheus, agent: self.agent };
        verdict::Options { threads: self.threads, depth: self.depth.into(), assumed, user: self.user }
    }

    /// Whether to colour standard output.
    fn colour(&self) -> bool {
        match self.color {
            Colour::Auto => AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}

/// Does what the arguments ask for.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help that nobody reads to its end is no error.
            let _ = answer.print();
            return if answer.use_stderr() { Exit::Usage } else { Exit::Clean };
        }
    };
    if let Some(threads) = cli.global.threads {
        // It is not there yet: this is the only one who makes it.
        let _ =
            rayon::ThreadPoolBuilder::new().num_threads(walfix::scan::threads(Some(threads))).build_global();
    }
    let done = match &cli.command {
        Command::Scan(command) => command.run(&cli.global),
        Command::Repair(command) => command.run(&cli.global),
        Command::Undo(command) => command.run(&cli.global),
        Command::Explain(command) => command.run(&cli.global),
    };
    done.unwrap_or_else(|error| {
        let _ = io::stderr().lock().write_all(complaint(&error).as_bytes());
        Exit::Failed
    })
}

/// Prints an answer. A reader that has seen enough and closed the pipe is no error.
fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // Else it would be written once more when it is dropped.
            drop(out.into_parts());
            Ok(())
        }
        done => Ok(done.map_err(|error| anyhow::Error::new(error).context("cannot write the report"))?),
    }
}

/// What went wrong, why, and what to do next where that is known.
fn complaint(error: &anyhow::Error) -> String {
    let mut text = format!("walfix: {}\n", printable(&error.to_string()));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors name their cause themselves.
        if !said.contains(&cause) {
            let _ = writeln!(text, "  because: {}", printable(&cause));
            said = cause;
        }
    }
    if let Some(advice) = advice(error) {
        let _ = writeln!(text, "  {advice}");
    }
    text
}

/// What kept a repair or an undo from being done.
fn refused(error: &anyhow::Error) -> Option<&RepairError> {
    match error.downcast_ref() {
        Some(FixError::Repair(error)) => Some(error),
        Some(FixError::AfterResume { source, .. }) => match &**source {
            FixError::Repair(error) => Some(error),
            _ => None,
        },
        _ => error.downcast_ref(),
    }
}

fn advice(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(RepairError::InUse(_)) = refused(error) {
        return Some("Stop Prometheus (systemctl stop, docker stop, or scale it down to 0), and try again.");
    }
    if let Some(RepairError::NoSpace { .. }) = refused(error) {
        return Some(
            "Free that much, keep the backup on another volume (--backup=DIR), or write a repaired copy to another one \
             (--into=DIR).",
        );
    }
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)?;
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(
            "Give the directory that Prometheus has as --storage.tsdb.path (of an agent: --storage.agent.path).",
        ),
        io::ErrorKind::PermissionDenied => {
            Some("Run it as the user of Prometheus (in its image: nobody, 65534), or as root.")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("Mount it writable, or write a repaired copy elsewhere: `walfix repair --into`.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["walfix"], arguments].concat())
    }

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_arguments_stand_anywhere() {
        for arguments in [["--quiet", "--threads=3", "scan", "x"], ["scan", "x", "--threads=3", "-q"]] {
            let cli = parse(&arguments).expect("right");
            assert!(cli.global.quiet);
            assert_eq!(cli.global.threads, NonZeroUsize::new(3));
            assert_eq!(cli.global.format, Format::Text);
            assert_eq!(cli.global.color, Colour::Auto);
        }
    }

    #[test]
    fn wrong_arguments() {
        for arguments in
            [&["scan", "--threads=0"][..], &["scan", "a", "b"], &["scan", "--format=xml"], &["mend"], &[]]
        {
            assert!(parse(arguments).expect_err("wrong").use_stderr(), "{arguments:?}");
        }
    }

    #[test]
    fn complaints_say_why_and_what_next() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error =
            Err::<(), _>(denied).context("cannot open wal/00000000").context("cannot scan /prometheus");
        assert_eq!(
            complaint(&error.expect_err("it is one")),
            "walfix: cannot scan /prometheus\n  \
               because: cannot open wal/00000000\n  \
               because: permission denied\n  \
               Run it as the user of Prometheus (in its image: nobody, 65534), or as root.\n"
        );
    }

    #[test]
    fn complaints_do_not_repeat_themselves() {
        let full = io::Error::other("no space");
        let error = Err::<(), _>(full).context("cannot write: no space");
        assert_eq!(complaint(&error.expect_err("it is one")), "walfix: cannot write: no space\n");
    }
}
