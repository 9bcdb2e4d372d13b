//! The executor daemon of a Fairlead node.

fn main() {}
