//! What a repair decides, and what Prometheus then serves.

mod as_prometheus;
mod blocks;
mod combined;
mod correct_large;
mod delivered;
mod edges;
mod fence;
mod generations;
mod head_chunk_files;
mod labels;
mod matrix;
mod misplaced;
mod random;
mod restarted;
mod whole_directories;

support::main!();
