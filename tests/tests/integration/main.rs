//! The whole road, end to end: from a file that is applied to a packet that arrives.
//!
//! Needs root. With engine `nft` natively, with `ipvs` in the virtual machine.

mod firewall;
mod heal;
mod host_ports;
mod images;
mod ipvs;
mod mesh;
mod names;
mod overlay;
mod pulls;
mod refuse;
mod registry;
mod remains;
mod saved;
mod survive;
mod tasks;
