//! One [`Report`](crate::scan::report::Report), many faces: [`text`] for an operator, [`json`] for machines.

pub mod explain;
mod forecast;
pub mod frames;
pub mod json;
mod page;
pub mod plan;
#[cfg(test)]
pub(crate) mod samples;
pub mod text;
pub mod undo;
pub mod unfinished;
mod words;
