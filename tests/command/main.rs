//! The binary, as a script or a person meets it.

mod cli;
mod golden;
mod repair;
mod shipped;

support::main!();
