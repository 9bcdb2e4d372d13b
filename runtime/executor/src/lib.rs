//! The executor daemon of a Fairlead node: it takes assignments on a socket, keeps them, and makes
//! the node so. `docs/architecture.md` tells how its parts work together.

pub mod assign;
pub mod config;
pub mod daemon;
pub mod events;
pub mod filters;
pub mod ipam;
pub mod lock;
pub mod model;
pub mod node;
pub mod notify;
pub mod open_files;
pub mod plan;
pub mod plane;
pub mod record;
pub mod server;
pub mod status;
pub mod stop;
pub mod store;
pub mod task;
pub mod upkeep;
pub mod validate;
