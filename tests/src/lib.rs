//! Integration tests: many nodes on one machine.
