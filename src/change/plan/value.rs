//! Decisions as JSON has them: the value, and its sentence beside it.
//!
//! `report::words` has the sentences. A plan of another version may have values that this one does not know; of these it
//! keeps the sentence.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer};

/// What a plan says with a value.
pub(super) trait Worded: Clone + fmt::Display {
    /// What another version has said in these words.
    fn of_words(words: String) -> Self;

    /// Whether there are only words.
    fn is_words(&self) -> bool;

    /// The value, if there is one.
    fn value(&self) -> Option<Self> {
        (!self.is_words()).then(|| self.clone())
    }

    /// The value, or else what the words say.
    fn of(value: Option<Self>, words: String) -> Self {
        value.unwrap_or_else(|| Self::of_words(words))
    }
}

/// A value, if this version knows it.
pub(super) fn if_known<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}
