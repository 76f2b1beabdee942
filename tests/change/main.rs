//! How a directory is changed: in full or not at all, whoever interferes, and undone.

mod attack;
mod beside;
mod fix;
mod hostile;
mod interrupted;
mod power;
mod transaction;
mod undo;

support::main!();
