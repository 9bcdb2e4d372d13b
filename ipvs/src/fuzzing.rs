//! What fuzzers and tests feed with bytes. Only that it comes back is of interest.

use crate::connection;
use crate::service::Family;
use crate::wire::decode;
use crate::wire::message::{Body, Messages};

/// Reads bytes in every way that the crate reads bytes from netlink.
pub fn read_all(bytes: &[u8]) {
    read_content(bytes);
    for message in Messages::new(bytes, 0x20).flatten() {
        if let Body::Content(content) = message.body {
            read_content(content);
        }
    }
}

fn read_content(content: &[u8]) {
    let _ = decode::service(content);
    let _ = decode::destination(content, Family::V4);
    let _ = decode::destination(content, Family::V6);
    let _ = decode::timeouts(content);
    let _ = decode::sync_daemon(content);
    let _ = decode::info(content);
    let _ = decode::family_id(content);
}

/// Reads a line of the connection table, and writes it.
pub fn connection(line: &str) {
    if let Ok(connection) = connection::parse(line) {
        let _ = connection.to_string();
    }
}
