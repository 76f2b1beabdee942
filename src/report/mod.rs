//! One [`Report`](crate::scan::report::Report), many faces: [`text`] for an operator, [`json`] for machines.

pub mod json;
#[cfg(test)]
pub(crate) mod samples;
pub mod text;
