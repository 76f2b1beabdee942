//! What decoders of different versions of Prometheus make of the same bytes (`tsdb/record/record.go`).

/// The versions whose decoders differ, each of them up to the next. Newer layouts have record types of their own, and
/// older decoders do not know these; here is what one type has meant at different times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecoderVersion {
    /// 2.30 to 2.41. Room is made for as many labels as are claimed, and a claim of 2^63 or more is a panic. A histogram
    /// (from 2.40 on) begins with its schema.
    V2_30,
    /// 2.42 to 3.1. A histogram begins with its counter reset hint.
    V2_42,
    /// 3.2 to 3.6. The bounds of custom buckets follow where the schema says that there are any.
    V3_2,
    /// 3.7 and 3.8. Histograms of unknown schemas are skipped, resolutions beyond 8 are lowered, and that is a panic where
    /// spans need more buckets than there are.
    V3_7,
    /// 3.9 and later. A resolution that cannot be lowered is an error.
    #[default]
    V3_9,
}

impl DecoderVersion {
    pub(crate) fn has_hints(self) -> bool {
        self >= Self::V2_42
    }

    pub(crate) fn has_custom_bounds(self) -> bool {
        self >= Self::V3_2
    }

    pub(crate) fn judges_schemas(self) -> bool {
        self >= Self::V3_7
    }
}
