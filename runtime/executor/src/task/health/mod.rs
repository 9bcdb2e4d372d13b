//! Whether a task is well: what is to be looked at ([`check`]), what was found ([`record`]), who looks
//! ([`monitor`]), and what follows ([`gate`]).
//!
//! A task with a health check stays STARTING until a probe has succeeded: only then it is a backend. When
//! too many in a row fail, it is stopped like any other, and has FAILED.
//!
//! Both what is to be looked at and what was found are files beside the task's other run-time state, so a
//! new daemon goes on where the one before was killed, and nothing of it outlives the machine.

mod check;
mod gate;
mod monitor;
mod record;

pub(super) use check::merge;
pub(super) use monitor::Monitor;
