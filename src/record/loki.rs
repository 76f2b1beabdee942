//! Recognises the records of Grafana Loki, whose logs have Prometheus's framing but other records in it.
//!
//! Ingester (Loki's `pkg/ingester/wal/encoding.go`): type, tenant as a string, then for type 1 a complete Prometheus series
//! record whose refs are fingerprints; for 2, 4 and 5 entries: BE64 base time; repeat { BE64 fingerprint; but for type 2
//! a BE64 counter; uvarint n; n times { zigzag time; line as a string; for type 5 uvarint k; k times { two strings } } }.
//! Its checkpoints: type 3 and a protobuf message that begins with the tenant and the fingerprint
//! (`pkg/ingester/checkpoint.proto`). Index head: type 0, 1 or 2, tenant, then a nested series record (after a BE64
//! fingerprint in type 2), or chunks in type 1.

use super::cursor::{Cursor, CutShort};
use super::{Record, summarize};

/// Tenant names are bounded so by Loki (`MaxTenantIDLength`).
const MAX_TENANT: usize = 150;

/// Whether this record is one of Loki's and cannot be one of Prometheus's.
///
/// True only if the bytes decode to their end as one of Loki's records, tenant and all, and do not decode as a record
/// of Prometheus. Records that begin with a type and a tenant are far from Prometheus's, which begin with a ref of which
/// the highest byte is 0. Chunks of an index head give no proof and are left alone; its series come before them.
#[must_use]
pub fn is_loki(record: &[u8]) -> bool {
    let Some((&kind, _)) = record.split_first() else {
        return false;
    };
    let fits = match kind {
        0 | 1 => nests_series(record, kind),
        2 => nests_series(record, kind) || has_entries(record, kind) == Ok(true),
        3 => is_checkpointed_series(record) == Ok(true),
        4 | 5 => has_entries(record, kind) == Ok(true),
        _ => false,
    };
    // Type 0 is none of Prometheus's. The others must make no sense as what Prometheus would take them for.
    fits && (kind == 0 || summarize(record).error.is_some())
}

/// Whether tenant and entries follow, at least one, and nothing else.
fn has_entries(record: &[u8], kind: u8) -> Result<bool, CutShort> {
    let mut cursor = Cursor::body_of(record);
    if !is_tenant(cursor.string()?) {
        return Ok(false);
    }
    cursor.be64()?;
    let mut any = false;
    while !cursor.is_empty() {
        cursor.be64()?;
        if kind > 2 {
            cursor.be64()?;
        }
        // Each turn reads something, so a count that the record cannot hold ends with it.
        for _ in 0..cursor.uvarint64()? {
            cursor.varint64()?;
            cursor.string()?;
            if kind > 4 {
                for _ in 0..cursor.uvarint64()? {
                    cursor.string()?;
                    cursor.string()?;
                }
            }
            any = true;
        }
    }
    Ok(any)
}

/// Whether a protobuf message follows whose first fields are a tenant and a fingerprint, and nothing else.
fn is_checkpointed_series(record: &[u8]) -> Result<bool, CutShort> {
    const TENANT: u64 = 1 << 3 | 2;
    const FINGERPRINT: u64 = 2 << 3;
    let mut cursor = Cursor::body_of(record);
    if cursor.uvarint64()? != TENANT
        || !is_tenant(cursor.string()?)
        || cursor.uvarint64()? != FINGERPRINT
        || cursor.uvarint64().is_err()
    {
        return Ok(false);
    }
    while !cursor.is_empty() {
        // The fields after them, up to 8, are numbers or have their length before them.
        let tag = cursor.uvarint64()?;
        match (tag >> 3, tag & 7) {
            (3..=8, 0) => {
                cursor.uvarint64()?;
            }
            (3..=8, 2) => {
                cursor.string()?;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether tenant and nested series record follow, and nothing else.
fn nests_series(record: &[u8], kind: u8) -> bool {
    let mut cursor = Cursor::body_of(record);
    let head = (|cursor: &mut Cursor<'_>| -> Result<bool, CutShort> {
        let tenant = cursor.string()?;
        if kind == 2 {
            cursor.be64()?;
        }
        Ok(is_tenant(tenant))
    })(&mut cursor);
    if head != Ok(true) {
        return false;
    }
    let Record::Series(nested) = Record::parse(cursor.rest()) else {
        return false;
    };
    let mut entries = nested.entries().peekable();
    entries.peek().is_some() && entries.all(|entry| entry.is_ok_and(|entry| !entry.labels.is_empty()))
}

/// The characters that Loki accepts in tenant names (`validTenantID` of its tenant package).
fn is_tenant(name: &[u8]) -> bool {
    (1..=MAX_TENANT).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!-_.*'()|".contains(byte))
}
