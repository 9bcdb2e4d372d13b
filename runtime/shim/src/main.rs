//! The supervisor of one task: owns its process, its log and its exit status.

fn main() {}
