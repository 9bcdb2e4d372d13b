//! A compiled filter: installed in the child, or written down for another process.

use super::arch;
use super::compile::MAX_METADATA;
use super::digest::{self, Digest};
use super::program::{self, code};
use crate::error::{ContainerError, Setup, SetupFailure};
use crate::sys::{self, Instruction, filter_flag};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const MAGIC: &[u8; 6] = b"flscmp";
/// Of the form of the bytes.
const VERSION: u16 = 1;
const MAX_TEXT: u32 = MAX_METADATA as u32;
const KNOWN_FLAGS: u32 = filter_flag::TSYNC
    | filter_flag::LOG
    | filter_flag::SPEC_ALLOW
    | filter_flag::NEW_LISTENER
    | filter_flag::TSYNC_ESRCH
    | filter_flag::WAIT_KILLABLE_RECV;

/// Where an agent waits for the listener of a filter with `SCMP_ACT_NOTIFY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `linux.seccomp.listenerPath`: a Unix stream socket.
    pub path: PathBuf,
    /// `linux.seccomp.listenerMetadata`: handed to the agent as it is.
    pub metadata: Option<String>,
}

/// A filter of system calls, ready for `seccomp(2)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    pub(super) instructions: Vec<Instruction>,
    pub(super) flags: u32,
    pub(super) digest: Digest,
    pub(super) listener: Option<Listener>,
}

impl Filter {
    /// Whether this is the filter of `profile`, compiled by this version on this architecture.
    pub fn is_for(&self, profile: &LinuxSeccomp) -> bool {
        self.digest == digest::of(profile)
    }

    /// The agent's socket, for a filter that asks one.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Puts this thread, and what it executes and forks, under the filter for good. Returns the
    /// listener (close-on-exec) of a filter that asks an agent.
    ///
    /// One system call and no memory is allocated. Without `no_new_privs` it needs `CAP_SYS_ADMIN`
    /// in effect.
    pub(crate) fn install(&self) -> Setup<Option<OwnedFd>> {
        sys::seccomp_set_filter(&self.instructions, self.flags).map_err(|errno| {
            let mut failure = SetupFailure::new("install", "seccomp filter", errno);
            failure.reason = match errno {
                Errno::EACCES => "needs CAP_SYS_ADMIN or process.noNewPrivileges",
                Errno::EBUSY => "this process has a filter with a listener already",
                Errno::EINVAL => "this kernel was built without filters (CONFIG_SECCOMP_FILTER)",
                Errno::ESRCH => "another thread has a filter of its own",
                _ => "",
            }
            .into();
            failure
        })
    }

    /// As bytes, for a file that [`Filter::from_bytes`] reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let path = self
            .listener
            .as_ref()
            .map(|l| l.path.as_os_str().as_bytes());
        let metadata = self.listener.as_ref().and_then(|l| l.metadata.as_deref());
        let texts = [path, metadata.map(str::as_bytes)];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((arch::native() as u32).to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.digest);
        bytes.extend((self.instructions.len() as u32).to_le_bytes());
        for text in texts {
            // The largest number stands for "none".
            let length = text.map_or(u32::MAX, |text| text.len() as u32);
            bytes.extend(length.to_le_bytes());
        }
        for one in &self.instructions {
            bytes.extend(one.code.to_le_bytes());
            bytes.extend([one.jump_true, one.jump_false]);
            bytes.extend(one.k.to_le_bytes());
        }
        texts
            .into_iter()
            .flatten()
            .for_each(|text| bytes.extend(text));
        let sum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend(sum);
        bytes
    }

    /// Reads what [`Filter::to_bytes`] wrote. The sum at the end finds damage, not malice: only
    /// read what a trusted user wrote.
    ///
    /// # Errors
    /// Another form or version, damage, or a program that the kernel would not take.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ContainerError> {
        read(bytes).map_err(|reason| ContainerError::invalid("compiled seccomp filter", reason))
    }
}

impl std::fmt::Debug for Filter {
    /// Without the program, which is hundreds of lines.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("instructions", &self.instructions.len())
            .field("flags", &self.flags)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

fn read(bytes: &[u8]) -> Result<Filter, &'static str> {
    const SHORT: &str = "ends early";
    let mut reader = Reader(bytes);
    if reader.array().ok_or(SHORT)? != *MAGIC {
        return Err("is something else");
    }
    if u16::from_le_bytes(reader.array().ok_or(SHORT)?) != VERSION {
        return Err("has the form of another version");
    }
    if reader.number().ok_or(SHORT)? != arch::native() as u32 {
        return Err("is for another architecture");
    }
    let flags = reader.number().ok_or(SHORT)?;
    let digest = reader.array().ok_or(SHORT)?;
    let count = reader.number().ok_or(SHORT)?;
    let lengths = [reader.number().ok_or(SHORT)?, reader.number().ok_or(SHORT)?];
    if count as usize > program::MAX_INSTRUCTIONS {
        return Err("has too many instructions");
    }
    let mut instructions = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let [c0, c1, jump_true, jump_false] = reader.array().ok_or(SHORT)?;
        instructions.push(Instruction {
            code: u16::from_le_bytes([c0, c1]),
            jump_true,
            jump_false,
            k: reader.number().ok_or(SHORT)?,
        });
    }
    let mut texts = [None, None];
    for (text, length) in texts.iter_mut().zip(lengths) {
        *text = match length {
            u32::MAX => None,
            0..=MAX_TEXT => Some(reader.take(length as usize).ok_or(SHORT)?),
            _ => return Err("holds too long a text"),
        };
    }
    let covered = bytes.len() - reader.0.len();
    let sum: [u8; 32] = Sha256::digest(bytes.get(..covered).unwrap_or_default()).into();
    if reader.0 != sum {
        return Err("is damaged");
    }
    let listener = match texts {
        [None, None] => None,
        [None, Some(_)] => return Err("has metadata for no agent"),
        [Some(path), metadata] => Some(Listener {
            path: OsString::from_vec(path.to_vec()).into(),
            metadata: metadata
                .map(|text| String::from_utf8(text.to_vec()))
                .transpose()
                .map_err(|_| "has metadata that is no text")?,
        }),
    };
    if !program::is_valid(&instructions) {
        return Err("holds a program that the kernel would not take");
    }
    let notify = LinuxSeccompAction::ScmpActNotify.as_u32(None);
    let notifies = instructions
        .iter()
        .any(|one| one.code == code::RETURN && one.k & 0xffff_0000 == notify);
    let listens = flags & filter_flag::NEW_LISTENER != 0;
    if flags & !KNOWN_FLAGS != 0 || notifies != listens || listens != listener.is_some() {
        return Err("has flags that do not fit its program");
    }
    Ok(Filter {
        instructions,
        flags,
        digest,
        listener,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}
