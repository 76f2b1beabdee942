//! The sentences of values: what is wrong, how it is repaired, and why it is not.

mod details;
mod defects;
mod refusals;
mod resolutions;
