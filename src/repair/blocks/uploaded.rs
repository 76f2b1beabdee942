//! Blocks of which there are copies in object storage: who uploads them takes each file as final.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

/// Where those who upload blocks note which they have uploaded: Thanos (`pkg/shipper/shipper.go`) and Mimir
/// (`pkg/ingester/shipper.go`), as a list of ULIDs or as the keys of an object.
const NOTED: [&str; 2] = ["thanos.shipper.json", "mimir.shipper.json"];

/// More than such a file has.
const LONGEST: u64 = 64 << 20;

/// What is noted of blocks that have been uploaded.
pub(super) struct Uploaded(String);

impl Uploaded {
    /// Reads what is noted in the data directory.
    pub(super) fn read(data: &Path) -> Self {
        let read = |name: &&str| {
            let mut bytes = Vec::new();
            crate::io::open(&data.join(name)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).to_ascii_uppercase())
        };
        Self(NOTED.iter().filter_map(read).collect())
    }

    /// Whether the block has been uploaded, or has been in object storage: `meta.json` has a section of Thanos's then.
    pub(super) fn has(&self, ulid: &str, meta: Option<&[u8]>) -> bool {
        // Whatever the form is, the name is there.
        self.0.contains(&ulid.to_ascii_uppercase())
            || meta
                .and_then(|meta| serde_json::from_slice::<Value>(meta).ok())
                .is_some_and(|meta| meta.get("thanos").is_some())
    }
}
