//! The command line of a Fairlead node.

fn main() {}
