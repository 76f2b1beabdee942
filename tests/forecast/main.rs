//! What Prometheus does with a directory: forecasts, against its own packages and real servers.

mod blocks;
mod deletions;
mod fixtures;
mod replay;
mod replay_rules;
mod replay_versions;
mod served;
mod servers;
mod snapshots;
mod starts;
mod state;
mod verdict;

support::main!();
