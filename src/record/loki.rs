//! Recognises the records of Grafana Loki, whose logs have Prometheus's framing but other records in it.
//!
//! Ingester (Loki's `pkg/ingester/wal/encoding.go`): type, tenant as a string, then for type 1 a whole Prometheus series
//! record whose refs are fingerprints; for 2, 4 and 5 entries. Index head: type 0, 1 or 2, tenant, then a nested series
//! record (after a BE64 fingerprint in type 2), or chunks in type 1.

use super::cursor::{Cursor, Cut};
use super::{Record, summarize};

/// Tenant names are bounded so by Loki (`MaxTenantIDLength`).
const MAX_TENANT: usize = 150;

/// Whether this record is one of Loki's and cannot be one of Prometheus's.
///
/// True only if the bytes decode to their end as one of Loki's series records, tenant and all, and do not decode as
/// a record of Prometheus. Other kinds of Loki's records give no proof and are left alone; in a log of Loki's a series record comes
/// before the entries that need it.
#[must_use]
pub fn is_loki(record: &[u8]) -> bool {
    let Some((&kind, _)) = record.split_first() else {
        return false;
    };
    if kind > 2 || !nests_series(record, kind) {
        return false;
    }
    // Type 0 is none of Prometheus's. The others must make no sense as what Prometheus would take them for.
    kind == 0 || summarize(record).error.is_some()
}

/// Whether tenant and nested series record follow, and nothing else.
fn nests_series(record: &[u8], kind: u8) -> bool {
    let mut cursor = Cursor::body_of(record);
    let head = (|cursor: &mut Cursor<'_>| -> Result<bool, Cut> {
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
