//! What Prometheus decodes of the records it reads, and in what words it gives up (`loadWAL` and `loadWBL`,
//! `tsdb/head_wal.go`; `Checkpoint`, `tsdb/wlog/checkpoint.go`; `loadWAL`, `tsdb/agent/db.go`).

use super::Version;
use super::replay::{Class, Corruption, Part, Replay};
use super::stream::segment_path;
use crate::record::{EntryKind, Record, RecordType, decode_context, summarize_as};
use crate::wal::ReadAt;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A server's replay of a checkpoint or a segment of the WAL.
    Wal,
    /// Its replay of a segment of the WBL.
    Wbl,
    /// A server that makes a new checkpoint of the last one and the segments behind it.
    Checkpoint,
    /// An agent's replay.
    Agent,
    /// An agent that makes a new checkpoint.
    AgentCheckpoint,
}

/// What one reading comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Records that were read before the error, and decoded where this reader decodes them. Known ones are not counted.
    pub records: u64,
    /// Part and end of the last of them.
    pub read_to: Option<(usize, u64)>,
    /// Why it is not all.
    pub error: Option<ReplayError>,
}

/// How a reading fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// With an error.
    Corrupt {
        /// The whole of it, as `loadWAL`, `loadWBL` or `Checkpoint` returns it.
        text: String,
        /// What it is about.
        corruption: Corruption,
    },
    /// It panics, or is killed for its memory; on what, in words that are not Prometheus's.
    Crash(String),
    /// It waits for ever.
    Hang,
}

/// Why a record is an error.
struct Complaint {
    inner: String,
    class: Class,
    crashes: bool,
}

impl Reader {
    /// Whether it decodes records of that type; it passes over others, or rejects them.
    #[must_use]
    pub fn decodes(self, record_type: RecordType, version: Version) -> bool {
        version.knows(record_type)
            && match record_type.kind() {
                EntryKind::Samples => true,
                EntryKind::Series => self != Self::Wbl,
                EntryKind::Tombstones | EntryKind::Exemplars => self == Self::Wal || self.is_checkpoint(),
                EntryKind::Metadata => {
                    self == Self::Wal
                        || self.is_checkpoint()
                        || self == Self::Agent && version.agent_reads_metadata()
                }
                EntryKind::Histograms => self.decodes_histograms(version),
                EntryKind::FloatHistograms => {
                    self.decodes_histograms(version)
                        && (!self.is_checkpoint() || version.checkpoints_float_histograms())
                }
                EntryKind::MmapMarkers => self == Self::Wbl,
                EntryKind::MinValidTime => false,
            }
    }

    fn decodes_histograms(self, version: Version) -> bool {
        match self {
            Self::Wal | Self::Checkpoint | Self::AgentCheckpoint => true,
            Self::Wbl => version.replays_wbl_histograms(),
            Self::Agent => version.agent_reads_histograms(),
        }
    }

    fn is_checkpoint(self) -> bool {
        matches!(self, Self::Checkpoint | Self::AgentCheckpoint)
    }

    /// Whether it takes a record that it does not decode for corruption.
    fn rejects(self, record_type: Option<RecordType>, version: Version) -> bool {
        let is_expected = |record_type: RecordType| match record_type.kind() {
            EntryKind::Tombstones | EntryKind::Exemplars => true,
            EntryKind::Series
            | EntryKind::Samples
            | EntryKind::Histograms
            | EntryKind::FloatHistograms
            | EntryKind::Metadata
            | EntryKind::MmapMarkers
            | EntryKind::MinValidTime => false,
        };
        self == Self::Agent && version.agent_rejects_unknown() && !record_type.is_some_and(is_expected)
    }

    /// What it puts before the error of a record that does not decode.
    fn context(self, record_type: RecordType) -> &'static str {
        let replays = matches!(self, Self::Wal | Self::Wbl);
        match record_type.kind() {
            EntryKind::Tombstones if self.is_checkpoint() => "decode deletes",
            EntryKind::Histograms if !replays => "decode histogram samples",
            EntryKind::FloatHistograms if !replays => "decode float histogram samples",
            EntryKind::Series
            | EntryKind::Samples
            | EntryKind::Histograms
            | EntryKind::FloatHistograms
            | EntryKind::Exemplars
            | EntryKind::Tombstones
            | EntryKind::Metadata
            | EntryKind::MmapMarkers
            | EntryKind::MinValidTime => decode_context(record_type),
        }
    }

    /// What it has against a record that is whole, in Prometheus's words; `None` if it takes it.
    pub(crate) fn refuses(self, record: &[u8], version: Version) -> Option<String> {
        self.complaint(record, version).map(|complaint| complaint.inner)
    }

    /// What it has against a record.
    fn complaint(self, record: &[u8], version: Version) -> Option<Complaint> {
        let record_type = RecordType::of(record);
        if let Some(known) = record_type.filter(|&known| self.decodes(known, version)) {
            let error = summarize_as(record, version.dialect()).error?;
            return Some(Complaint {
                inner: format!("{}: {error}", self.context(known)),
                class: Class::Decodes(known),
                crashes: error.crashes_prometheus(),
            });
        }
        self.rejects(record_type, version).then(|| Complaint {
            inner: format!("invalid record type {}", type_name(record_type, version)),
            class: Class::Rejected(record_type),
            crashes: false,
        })
    }

    fn reads_records(self) -> &'static str {
        if self.is_checkpoint() { "read segments" } else { "read records" }
    }
}

/// Reads all of `parts` as one stream, as `reader` does.
#[must_use]
pub fn read<S: ReadAt>(parts: Vec<Part<S>>, reader: Reader, version: Version) -> Reading {
    read_behind(None, parts, reader, version)
}

/// The same, from a place on up to which all records are known to be readable: a part, and the end of a record in it.
pub(super) fn read_behind<S: ReadAt>(
    known: Option<(usize, u64)>,
    parts: Vec<Part<S>>,
    reader: Reader,
    version: Version,
) -> Reading {
    if reader == Reader::Checkpoint
        && version.reads_min_valid_time()
        && let Some(error) = read_min_valid_time(&parts, version)
    {
        return Reading { records: 0, read_to: None, error: Some(error) };
    }
    let mut replay = Replay::new(parts, version);
    let mut reading = Reading { records: 0, read_to: known, error: None };
    if let Some((part, end)) = known {
        replay.seek(part, end);
    }
    // An agent that has rejected a record reads on, and only returns the error at the end.
    let mut rejected: Option<Corruption> = None;
    while let Some(record) = replay.next() {
        let (part, end) = (record.part, record.end);
        let Some(complaint) = reader.complaint(record.data, version) else {
            if rejected.is_none() {
                reading.records += 1;
                reading.read_to = Some((part, end));
            }
            continue;
        };
        let Complaint { inner, class, crashes } = complaint;
        if crashes {
            let name = replay.parts().get(part).map(|part| segment_path(&part.dir, part.index));
            let name = name.unwrap_or_default();
            reading.error = Some(ReplayError::Crash(format!("{inner}, before {end} of {name}")));
            return reading;
        }
        if rejected.is_some() {
            // There is room for one error, and it is taken out when all records have been read.
            reading.error = Some(ReplayError::Hang);
            return reading;
        }
        let segment = replay.parts().get(part).map_or(-1, |part| part.index);
        let corruption = Corruption { dir: None, segment, offset: end, inner, class, part };
        if matches!(class, Class::Rejected(_)) {
            rejected = Some(corruption);
            continue;
        }
        let text = if reader.is_checkpoint() { corruption.inner.clone() } else { corruption.to_string() };
        reading.error = Some(ReplayError::Corrupt { text, corruption });
        return reading;
    }
    reading.error = if let Some(corruption) = rejected {
        Some(ReplayError::Corrupt { text: corruption.to_string(), corruption })
    } else {
        replay.error().map(|corruption| ReplayError::Corrupt {
            text: format!("{}: {corruption}", reader.reads_records()),
            corruption: corruption.clone(),
        })
    };
    reading
}

/// What `%v` of a record's type is.
fn type_name(record_type: Option<RecordType>, version: Version) -> String {
    match record_type.filter(|&known| version.knows(known)) {
        Some(known) if version.names_record_types() => known.name().to_owned(),
        None if version.names_record_types() => "unknown".to_owned(),
        Some(known) => known.byte().to_string(),
        None => u8::MAX.to_string(),
    }
}

/// The error with which the first record of the last checkpoint cannot be read (`ReadMinValidTime`).
fn read_min_valid_time<S: ReadAt>(parts: &[Part<S>], version: Version) -> Option<ReplayError> {
    const CONTEXT: &str = "read previous min valid time";
    let dir = &parts.first()?.dir;
    if !dir.rsplit('/').next()?.starts_with("checkpoint.") {
        return None;
    }
    let checkpoint = parts.iter().take_while(|part| part.dir == *dir).map(|part| Part {
        dir: part.dir.clone(),
        index: part.index,
        source: &part.source,
        length: part.length,
    });
    let mut replay = Replay::new(checkpoint.collect(), version);
    let Some(record) = replay.next() else {
        let corruption = replay.error()?.clone();
        return Some(ReplayError::Corrupt { text: format!("{CONTEXT}: {corruption}"), corruption });
    };
    let Record::MinValidTime(time) = Record::parse(record.data) else { return None };
    let error = time.min_time().err()?;
    let (part, offset) = (record.part, record.end);
    let inner = format!("{}: {error}", decode_context(RecordType::MinValidTime));
    let class = Class::Decodes(RecordType::MinValidTime);
    let segment = replay.parts().get(part).map_or(-1, |part| part.index);
    let text = format!("{CONTEXT}: {inner}");
    Some(ReplayError::Corrupt {
        text,
        corruption: Corruption { dir: None, segment, offset, inner, class, part },
    })
}
