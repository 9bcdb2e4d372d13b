//! An agent that answers for a filter with `SCMP_ACT_NOTIFY`, as a service of the host would.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

/// What a call gets.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Errno(i32),
    Value(i64),
    Continue,
}

/// What the agent saw.
#[derive(Debug)]
pub struct Seen {
    /// The container process state.
    pub state: serde_json::Value,
    /// The numbers of the calls that it was asked about.
    pub calls: Vec<i64>,
}

#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
const FLAG_CONTINUE: u32 = 1;

/// Waits at `path` for one container and answers until its last process has ended.
pub fn start(path: &Path, answer: impl Fn(i64) -> Answer + Send + 'static) -> JoinHandle<Seen> {
    let socket = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        let (mut connection, _) = socket.accept().expect("accept");
        let (mut text, listener) = receive(connection.as_raw_fd());
        connection
            .read_to_end(&mut text)
            .expect("the connection is closed");
        let state = serde_json::from_slice(&text).expect("json");
        let mut calls = Vec::new();
        while let Some(notification) = next(&listener) {
            let call = i64::from(notification.number);
            calls.push(call);
            let mut response = Response {
                id: notification.id,
                value: 0,
                error: 0,
                flags: 0,
            };
            match answer(call) {
                Answer::Errno(errno) => response.error = -errno,
                Answer::Value(value) => response.value = value,
                Answer::Continue => response.flags = FLAG_CONTINUE,
            }
            // SAFETY: a valid response. A caller that has been killed meanwhile is no matter.
            unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) };
        }
        Seen { state, calls }
    })
}

fn receive(connection: RawFd) -> (Vec<u8>, OwnedFd) {
    let mut buffer = vec![0u8; 4096];
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<()>(
        connection,
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .expect("receive");
    let descriptors = message
        .cmsgs()
        .expect("control messages")
        .find_map(|c| match c {
            ControlMessageOwned::ScmRights(list) => Some(list),
            _ => None,
        });
    let [fd] = descriptors.expect("a descriptor").try_into().expect("one");
    let length = message.bytes;
    buffer.truncate(length);
    // SAFETY: just received, so ours.
    (buffer, unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next question; `None` when nobody is left to ask.
fn next(listener: &OwnedFd) -> Option<Notification> {
    loop {
        let mut entry = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut entry, 1, 60_000) };
        if entry.revents & libc::POLLIN == 0 {
            return None;
        }
        let mut notification = Notification::default();
        // SAFETY: a valid notification, all zero, as the kernel wants it.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notification) };
        if result == 0 {
            return Some(notification);
        }
    }
}
