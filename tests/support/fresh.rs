//! Data directories made on the spot by a real server that scrapes the [`Exporter`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::exporter::{Exporter, Shape};
use super::server::{Compression, Error, Options, Running, Server, Version, io};

/// Longest wait for any one thing that a server is to write.
const DEADLINE: Duration = Duration::from_secs(120);

/// How the making of a directory ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: the log as a crash leaves it.
    Killed,
    /// SIGTERM: closed properly.
    Stopped,
    /// SIGTERM with the feature memory-snapshot-on-shutdown: a chunk snapshot.
    Snapshot,
    /// As `Snapshot`, then started again with it, scraped on, and killed: a snapshot with log after it.
    SnapshotThenKilled,
}

/// What checkpoint a directory is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// None.
    No,
    /// As soon as can be (some 13 s): it has series, but all samples up to its last segment are too old for it.
    Series,
    /// With samples too (some 35 s). An agent's has them in any case.
    Samples,
}

/// What was seen while a directory was made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Made {
    /// From the first start to the first checkpoint.
    pub checkpoint_after: Option<Duration>,
}

/// What directory to make.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What is scraped.
    pub shape: Shape,
    /// How often.
    pub interval: Duration,
    /// How the log is compressed; `None`: the server's default.
    pub compression: Option<Compression>,
    /// An agent's directory: no tombstones, no WBL, no head chunks, no snapshot.
    pub agent: bool,
    /// What checkpoint there is to be.
    pub checkpoint: Checkpoint,
    /// Scrapes after the checkpoint (or after the start), before the tombstones; the block duration is 2 h by then, so
    /// that all of it stays in the log. From 120 on there are m-mapped chunks of samples that are in the WAL too.
    pub scrapes: u64,
    /// Delete some series before the end: tombstones in the WAL.
    pub tombstones: bool,
    /// How it ends.
    pub end: End,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            shape: Shape::default(),
            interval: Duration::from_millis(200),
            compression: None,
            agent: false,
            checkpoint: Checkpoint::Series,
            scrapes: 150,
            tombstones: true,
            end: End::Killed,
        }
    }
}

impl Recipe {
    /// Options for `server` to scrape `exporter`.
    pub fn options(&self, server: &Server, exporter: &Exporter) -> Options {
        let mut features = vec!["exemplar-storage".to_owned(), "metadata-wal-records".to_owned()];
        let snapshot = matches!(self.end, End::Snapshot | End::SnapshotThenKilled);
        if snapshot {
            features.push("memory-snapshot-on-shutdown".to_owned());
        }
        // 2.42 turns snapshots off where there may be native histograms; 2.53 no longer does.
        if !snapshot || server.version >= Version(2, 53, 0) {
            features.push("native-histograms".to_owned());
        }
        let mut options = Options {
            agent: self.agent,
            config: exporter.config(self.interval, self.agent),
            compression: self.compression,
            segment_size: Some(10 << 20),
            features,
            ..Options::default()
        };
        if !self.agent {
            options.flags.push("--web.enable-admin-api".to_owned());
        }
        options
    }

    /// Makes the directory `data` with `server`.
    ///
    /// # Errors
    ///
    /// If the server fails, or what the recipe asks for does not come about.
    pub fn make(&self, server: &Server, data: &Path) -> Result<Made, Error> {
        self.make_of(server, data, &Exporter::start(self.shape)?)
    }

    /// As [`Recipe::make`], of an exporter of its shape that is there already.
    ///
    /// # Errors
    ///
    /// As [`Recipe::make`].
    pub fn make_of(&self, server: &Server, data: &Path, exporter: &Exporter) -> Result<Made, Error> {
        let mut made = Made::default();
        let options = self.options(server, exporter);
        if self.checkpoint != Checkpoint::No {
            let mut hurried = options.clone();
            // A head compaction comes when there are 1.5 times the block duration in the head and leaves 0.5 to 1.5
            // times of it. Then the WAL is cut: a new segment begins, and a checkpoint takes the place of two thirds of
            // the older ones but the last, if that is more than one segment (tsdb/head.go, truncateWAL).
            hurried.block_duration = Some(Duration::from_secs(2));
            if self.agent {
                // Without remote write an agent drops what is older than max-time; younger samples stay in the
                // checkpoint.
                hurried.flags.push("--storage.agent.wal-truncate-frequency=2s".to_owned());
                hurried.flags.push("--storage.agent.retention.min-time=1s".to_owned());
                hurried.flags.push("--storage.agent.retention.max-time=1m".to_owned());
            }
            let started = Instant::now();
            if self.checkpoint == Checkpoint::Samples && !self.agent {
                // 20 s of samples in segment 0, then two empty segments, as every start makes one. The next server
                // has its first scrape after 5 s, more than 24 s after the first sample: it compacts at once, leaves at
                // least 8 s, hence the newest samples of segment 0, and puts segments 0 and 1 into the checkpoint.
                hurried.block_duration = Some(Duration::from_secs(16));
                let mut running = server.start(data, &options)?.ready()?;
                let count = 20_000 / u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).max(1);
                self.scrape(&mut running, exporter, count)?;
                running.kill()?;
                for _ in 0..2 {
                    server.start(data, &options)?.ready()?.kill()?;
                }
            }
            if self.agent {
                // Series and samples in segment 0, or the checkpoint would be empty.
                let mut running = server.start(data, &options)?.ready()?;
                self.scrape(&mut running, exporter, 20)?;
                running.kill()?;
            }
            let mut running = server.start(data, &hurried)?.ready()?;
            running.wait_for("a checkpoint", DEADLINE, |_| Ok(checkpoint(data)?.is_some()))?;
            made.checkpoint_after = Some(started.elapsed());
            running.stop()?;
        }
        let mut running = server.start(data, &options)?.ready()?;
        self.scrape(&mut running, exporter, self.scrapes)?;
        if self.tombstones && !self.agent {
            running.delete_series("{__name__=\"walfix_temperature\",room=~\".*3\"}")?;
            running.delete_series("{__name__=\"walfix_late\",i=\"1\"}")?;
            // A clean stop writes full head chunks to chunks_head (else done once a minute since 2.43); the samples after
            // it are in the log only.
            running.stop()?;
            running = server.start(data, &options)?.ready()?;
            self.scrape(&mut running, exporter, 5)?;
        }
        match self.end {
            End::Killed => running.kill()?,
            End::Stopped | End::Snapshot => running.stop()?,
            End::SnapshotThenKilled => {
                running.stop()?;
                let mut running = server.start(data, &options)?.ready()?;
                self.scrape(&mut running, exporter, self.scrapes)?;
                running.kill()?
            }
        };
        Ok(made)
    }

    /// Lets `running` scrape `count` times more.
    pub fn scrape(&self, running: &mut Running, exporter: &Exporter, count: u64) -> Result<(), Error> {
        // A scrape is in the log by the time the next but one is asked for.
        let goal = exporter.scrapes() + count + 1;
        let what = format!("{count} scrapes");
        running.wait_for(&what, DEADLINE + self.interval * u32::try_from(count).unwrap_or(u32::MAX), |_| {
            Ok(exporter.scrapes() > goal)
        })
    }
}

/// The newest finished checkpoint in `data`.
///
/// # Errors
///
/// If `wal/` cannot be listed.
pub fn checkpoint(data: &Path) -> Result<Option<PathBuf>, Error> {
    let wal = data.join("wal");
    let mut newest = None;
    for entry in std::fs::read_dir(&wal).map_err(io(wal.display().to_string()))?.filter_map(Result::ok) {
        let number =
            entry.file_name().to_str().and_then(|n| n.strip_prefix("checkpoint.")?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, entry.path())));
    }
    Ok(newest.map(|(_, path)| path))
}
