//! The bytes on the netlink socket.

pub(crate) mod attr;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod message;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
