//! The socket contract of the Fairlead executor: package `fairlead.executor.v1`, its messages, its
//! client and its server. The fields are documented in the `.proto` files, and `docs/socket.md`
//! tells how the calls work together.

/// The first and only version of the contract.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    unused_qualifications
)]
pub mod v1 {
    tonic::include_proto!("fairlead.executor.v1");
}

/// Largest message that either side accepts: an assignment of a big node, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
