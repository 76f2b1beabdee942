//! `meta.json` of a block (`BlockMeta`, `tsdb/block.go`).
//!
//! Others have keys of their own there, as Thanos has. They are kept, and so is the order of all keys.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What `stats` says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockStats {
    /// Samples of all kinds.
    pub samples: u64,
    /// Floats, since 3.6.
    pub float_samples: u64,
    /// Histograms, since 3.6.
    pub histogram_samples: u64,
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Intervals in the file of tombstones.
    pub tombstones: u64,
}

/// The document, ready to be changed and written.
#[derive(Clone, Debug, PartialEq)]
pub struct MetaJson(Json);

impl MetaJson {
    /// That of a new block which is made of no others. `last_time` is that of the last sample, ms.
    #[must_use]
    pub fn new(ulid: &str, min_time: i64, last_time: i64, stats: &BlockStats) -> Self {
        let mut new = Self(Json::Object(Vec::new()));
        new.set(&["ulid"], ulid.into());
        new.set_times(min_time, last_time);
        // Prometheus writes it if it is empty as well.
        new.set(&["stats"], Value::Object(serde_json::Map::new()));
        new.set_stats(stats);
        new.set(&["compaction", "level"], 1.into());
        new.set(&["compaction", "sources"], vec![ulid].into());
        new.set(&["version"], 1.into());
        new
    }

    /// One that exists.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        let json: Json = serde_json::from_slice(document)?;
        match json {
            Json::Object(_) => Ok(Self(json)),
            _ => Err(serde::de::Error::custom("not an object")),
        }
    }

    /// Sets what is at `path`, keys from the outermost to the innermost. A key that is new comes after all others.
    pub fn set(&mut self, path: &[&str], value: Value) {
        self.0.set(path, &value.into());
    }

    /// Sets the times. `last_time` is that of the last sample, ms; the document has the first time after it.
    pub fn set_times(&mut self, min_time: i64, last_time: i64) {
        self.set(&["minTime"], min_time.into());
        self.set(&["maxTime"], last_time.saturating_add(1).into());
    }

    /// Sets all of the stats. Prometheus writes no zeros there.
    pub fn set_stats(&mut self, stats: &BlockStats) {
        for (key, number) in [
            ("numSamples", stats.samples),
            ("numFloatSamples", stats.float_samples),
            ("numHistogramSamples", stats.histogram_samples),
            ("numSeries", stats.series),
            ("numChunks", stats.chunks),
            ("numTombstones", stats.tombstones),
        ] {
            if number > 0 {
                self.set(&["stats", key], number.into());
            } else {
                self.0.remove(&["stats", key]);
            }
        }
    }

    /// The document as Prometheus writes it: with tabs, and without a newline at the end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, tabs);
        // Keys are strings, and a vector does not fail.
        let written = self.0.serialize(&mut serializer);
        debug_assert!(written.is_ok(), "{written:?}");
        out
    }
}

/// A value whose keys keep their order, which those of [`Value`] do not.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    /// Neither an array nor an object.
    Scalar(Value),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What is no object on the way becomes one. Of a key that is there twice, both values are set.
    fn set(&mut self, path: &[&str], value: &Self) {
        let [key, inner @ ..] = path else {
            self.clone_from(value);
            return;
        };
        let mut entries = match std::mem::replace(self, Self::Scalar(Value::Null)) {
            Self::Object(entries) => entries,
            _ => Vec::new(),
        };
        if !entries.iter().any(|(name, _)| is_key(name, key)) {
            entries.push(((*key).to_owned(), Self::Scalar(Value::Null)));
        }
        for (_, place) in entries.iter_mut().filter(|(name, _)| is_key(name, key)) {
            place.set(inner, value);
        }
        *self = Self::Object(entries);
    }

    fn remove(&mut self, path: &[&str]) {
        let (Self::Object(entries), [key, inner @ ..]) = (self, path) else { return };
        if inner.is_empty() {
            entries.retain(|(name, _)| !is_key(name, key));
        } else {
            for (_, place) in entries.iter_mut().filter(|(name, _)| is_key(name, key)) {
                place.remove(inner);
            }
        }
    }
}

/// Prometheus's decoder does not care for upper and lower case (`encoding/json`).
fn is_key(name: &str, key: &str) -> bool {
    name.eq_ignore_ascii_case(key)
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Object(entries.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
            scalar => Self::Scalar(scalar),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(value) => value.serialize(serializer),
            Self::Array(items) => items.serialize(serializer),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Ordered)
    }
}

struct Ordered;

impl<'de> Visitor<'de> for Ordered {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
