//! Layers whose every header is right, and whose entries get in each other's way.
//!
//! Bytes are decisions here: which kind of entry comes next, under which name, in which form. There
//! are few names, so that entries meet; most of what is decided may stand in a layer, so that an
//! archive comes far before something is refused, if anything is.

use std::{os::unix::ffi::OsStrExt, path::Path};

use nix::unistd::{getegid, geteuid};
use tar::EntryType;

use super::archive::{Form, Member, Sparse, record};
use crate::{Limits, unpack::Marks};

/// More entries say nothing that these do not.
const MOST: usize = 64;
const DIRECTORIES: [&str; 3] = ["d", "e", "f"];
const FILES: [&str; 4] = ["a", "b", "c", "beside"];
/// What an entry of a quiet author never names on purpose.
const ODD: [&str; 6] = [
    ".removed-0",
    ".wh.",
    ".wh..wh.plnk",
    "root",
    "outside",
    "\u{fc}\n",
];

/// A layer, and what is to be done with it.
pub(super) struct Layer {
    pub(super) archive: Vec<u8>,
    pub(super) marks: Marks,
    pub(super) limits: Limits,
}

/// Makes a layer. Links out of it lead to `outside`.
pub(super) fn write(decisions: &[u8], outside: &Path, usual: Limits) -> Layer {
    let mut author = Author {
        decisions,
        wild: false,
        root: geteuid().is_root(),
        outside,
        names: Vec::new(),
        files: Vec::new(),
    };
    let first = author.byte();
    // Only root can make those of overlayfs.
    let marks = match author.root && first & 1 == 0 {
        true => Marks::Overlay,
        false => Marks::Sockets,
    };
    author.wild = first & 6 == 6;
    let mut limits = usual;
    match first >> 3 {
        29 => limits.entries = 6,
        30 => limits.path_bytes = 4,
        31 => limits.bytes = 8192,
        28 => limits.file_bytes = 600,
        _ => {}
    }
    let mut archive = Vec::new();
    for _ in 0..MOST {
        if author.decisions.is_empty() {
            break;
        }
        author.entry().write(&mut archive);
    }
    match first % 7 {
        // Writers forget the end, or write much of it; behind it may stand anything.
        0 => {}
        1 => archive.resize(archive.len() + 512, 0),
        2 => archive.resize(archive.len() + 10_240, 0),
        3 => {
            archive.resize(archive.len() + 1024, 0);
            archive.extend_from_slice(b"behind the end");
        }
        _ => archive.resize(archive.len() + 1024, 0),
    }
    Layer {
        archive,
        marks,
        limits,
    }
}

struct Author<'a> {
    decisions: &'a [u8],
    /// Does more of what is refused.
    wild: bool,
    root: bool,
    outside: &'a Path,
    /// What was named before, and which of it are files.
    names: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
}

impl Author<'_> {
    /// The next decision: 0 when there is none left.
    fn byte(&mut self) -> u8 {
        match self.decisions.split_first() {
            Some((first, rest)) => {
                self.decisions = rest;
                *first
            }
            None => 0,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// True for one decision in `count`, and never when there is none left.
    fn one_in(&mut self, count: u8) -> bool {
        self.byte() % count == count - 1
    }

    /// Whether something is done that is refused.
    fn refused(&mut self) -> bool {
        match self.wild {
            true => self.one_in(12),
            false => self.one_in(128),
        }
    }

    fn earlier(&mut self, files: bool) -> Option<Vec<u8>> {
        let at = usize::from(self.byte());
        let from = if files { &self.files } else { &self.names };
        (!from.is_empty()).then(|| from[at % from.len()].clone())
    }

    /// A name for an entry, mostly one that means a place in the layer.
    fn name(&mut self, last: &[&str]) -> Vec<u8> {
        if self.one_in(5)
            && let Some(name) = self.earlier(false)
        {
            return name;
        }
        let mut parts: Vec<&str> = Vec::new();
        for _ in 0..self.pick(&[0, 0, 0, 1, 1, 1, 2, 2, 3]) {
            let all = [&DIRECTORIES[..], &FILES[..]].concat();
            let of = if self.wild { &all[..] } else { &DIRECTORIES };
            parts.push(self.pick(of));
        }
        let odd = self.one_in(24);
        parts.push(match odd {
            true => self.pick(&ODD[2..]),
            false => self.pick(last),
        });
        let plain = parts.join("/");
        let long = "n".repeat(150);
        let name = match self.byte() % 24 {
            16 => format!("./{plain}"),
            17 => format!("/{plain}"),
            18 => format!("//.//{}", parts.join("/./")),
            19 => parts.join("//"),
            20 => format!("{plain}/."),
            21 => format!("{long}/{plain}"),
            // Longer than the kernel tells paths, if only all of it is there.
            22 if self.wild => format!("{}{plain}", format!("{long}/").repeat(26)),
            23 if self.refused() => match self.byte() % 5 {
                0 => format!("../{plain}"),
                1 => format!("{plain}/.."),
                2 => format!("d/../../{plain}"),
                3 => "n".repeat(256),
                _ => String::new(),
            },
            _ => plain,
        };
        self.names.push(name.clone().into_bytes());
        name.into_bytes()
    }

    fn entry(&mut self) -> Member {
        let mut member = match self.byte() % 32 {
            0..=8 => self.file(),
            9..=13 => {
                let mut name = self.name(&DIRECTORIES);
                name.extend_from_slice(self.pick(&[&b"/"[..], b""]));
                Member::new(EntryType::Directory, name)
            }
            14..=17 => self.symlink(),
            18..=21 => self.hard_link(),
            22..=24 => self.whiteout(),
            25 => {
                let all = [&DIRECTORIES[..], &FILES[..]].concat();
                let name = self.name(&all);
                let kind = self.pick(&[EntryType::Regular, EntryType::Directory, EntryType::Fifo]);
                Member::new(kind, name)
            }
            26 => Member::new(EntryType::Fifo, self.name(&FILES)),
            27 if self.root => self.device(),
            28 | 29 => self.sparse(),
            30 => Member::new(EntryType::Directory, self.pick(&["./", ".", "/"]).into()),
            31 => self.odd(),
            _ => self.file(),
        };
        self.dress(&mut member);
        member
    }

    /// The last names of files and directories, those of each other included, but seldom.
    fn last(&mut self) -> &'static [&'static str] {
        match self.one_in(12) {
            true => &DIRECTORIES,
            false => &FILES,
        }
    }

    fn file(&mut self) -> Member {
        let last = self.last();
        let name = self.name(last);
        self.files.push(name.clone());
        let mut member = Member::new(EntryType::Regular, name);
        let size = self.pick(&[0, 1, 17, 17, 511, 512, 513, 600, 600, 1025, 4096, 70_000]);
        member.data = self.content(size);
        if self.refused() {
            member.size = Some(self.pick(&[1 << 40, u64::MAX >> 1, 1_000_000]));
        }
        member
    }

    fn content(&mut self, size: usize) -> Vec<u8> {
        let first = self.byte();
        (0..size)
            .map(|at| (at as u8).wrapping_mul(31).wrapping_add(first))
            .collect()
    }

    fn symlink(&mut self) -> Member {
        let last = self.last();
        let mut member = Member::new(EntryType::Symlink, self.name(last));
        let targets = [
            ".",
            "..",
            "/",
            "d",
            "e",
            "/f",
            "../d",
            "../e/f",
            "a",
            "/a",
            "absent",
            "../outside",
            "../beside",
            "../../../../../../..",
            "/d/../../../e",
            "//f//.",
            "/proc/self/root",
        ];
        member.link = match self.byte() % 20 {
            18 => self.outside.as_os_str().as_bytes().to_vec(),
            19 => format!("d/{}", "../".repeat(60)).into_bytes(),
            _ => self.pick(&targets).into(),
        };
        member
    }

    fn hard_link(&mut self) -> Member {
        let last = self.last();
        let name = self.name(last);
        let refused = self.refused();
        let link = match (refused, self.earlier(true)) {
            (false, Some(earlier)) => match self.one_in(4) {
                true => [b"/", &earlier[..]].concat(),
                false => earlier,
            },
            // There is nothing to link to, or what there is cannot be linked to.
            (false, None) => {
                let mut member = Member::new(EntryType::Regular, name.clone());
                self.files.push(name);
                member.data = self.content(100);
                return member;
            }
            _ => match self.byte() % 6 {
                0 => b"absent/file".to_vec(),
                1 => b"../beside".to_vec(),
                2 => self.outside.join("inside").as_os_str().as_bytes().to_vec(),
                3 => name.clone(),
                4 => b"d".to_vec(),
                _ => Vec::new(),
            },
        };
        let mut member = Member::new(EntryType::Link, name.clone());
        member.link = link;
        self.files.push(name);
        member
    }

    fn whiteout(&mut self) -> Member {
        let mut name = self.name(&["d", "a", "b", "c", ".wh..opq", ".wh..opq"]);
        if name.ends_with(b"/.") {
            name.truncate(name.len() - 2);
        }
        let at = name.iter().rposition(|byte| *byte == b'/');
        let at = at.map_or(0, |slash| slash + 1);
        name.splice(at..at, *b".wh.");
        let mut member = Member::new(EntryType::Regular, name);
        if self.one_in(16) {
            member.data = self.content(10);
        }
        member
    }

    fn device(&mut self) -> Member {
        let kind = self.pick(&[EntryType::Char, EntryType::Block]);
        let mut member = Member::new(kind, self.name(&FILES));
        member.device = match self.refused() {
            true => (0, 0),
            false => self.pick(&[(1, 3), (7, 300), (4095, 0xf_ffff), (0, 1)]),
        };
        member
    }

    fn sparse(&mut self) -> Member {
        let name = self.name(&FILES);
        self.files.push(name.clone());
        let mut sparse = Sparse::default();
        let mut length = 0;
        for _ in 0..self.pick(&[0u8, 1, 2, 3, 4, 5, 30]) {
            let offset = sparse.size + self.pick(&[0, 1, 512, 5000]);
            let run = self.pick(&[0, 1, 100, 512, 513]);
            sparse.extents.push((offset, run));
            sparse.size = offset + run;
            length += run;
        }
        sparse.size += self.pick(&[0, 1, 100_000]);
        if self.refused() {
            match self.byte() % 4 {
                0 => sparse.size = 1 << 32,
                1 => sparse.size /= 2,
                2 => sparse.extents.reverse(),
                _ => length += 1,
            }
        }
        let mut member = Member::new(EntryType::GNUSparse, name.clone());
        member.data = self.content(length as usize);
        let version = self.byte() % 4;
        if version == 3 {
            member.sparse = Some(sparse);
            return member;
        }
        let mut add = |key: &str, value: String| {
            let key = format!("GNU.sparse.{key}").into_bytes();
            member.records.push((key, value.into_bytes()));
        };
        let numbers: Vec<u64> = sparse.extents.iter().flat_map(|e| [e.0, e.1]).collect();
        match version {
            0 => {
                add("size", sparse.size.to_string());
                for (offset, run) in &sparse.extents {
                    add("offset", offset.to_string());
                    add("numbytes", run.to_string());
                }
            }
            1 => {
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                add("size", sparse.size.to_string());
                if !numbers.is_empty() {
                    add("map", numbers.join(","));
                }
            }
            _ => {
                add("major", "1".into());
                add("minor", "0".into());
                add("realsize", sparse.size.to_string());
                let lines = numbers.iter().map(|number| format!("{number}\n"));
                let count = format!("{}\n", sparse.extents.len());
                let mut map: Vec<u8> = [count].into_iter().chain(lines).collect::<String>().into();
                map.resize(map.len().next_multiple_of(512), 0);
                map.append(&mut member.data);
                member.data = map;
            }
        }
        let real = (b"GNU.sparse.name".to_vec(), name);
        member.records.push(real);
        member.name = b"GNUSparseFile.0/made-up".to_vec();
        member.kind = EntryType::Regular;
        member.form = Form::Pax;
        member
    }

    /// What is no file, or not called what files are called.
    fn odd(&mut self) -> Member {
        match self.byte() % 8 {
            0 | 1 => {
                let mut global = Member::new(EntryType::XGlobalHeader, b"pax_global_header".into());
                global.data = record(b"path", b"../everything");
                global
            }
            2 => Member::new(EntryType::new(b'V'), b"a volume".into()),
            3 => Member::new(EntryType::Regular, b".wh..wh.aufs".into()),
            4 => Member::new(EntryType::Continuous, self.name(&FILES)),
            5 => Member::new(EntryType::Regular, self.name(&DIRECTORIES)),
            6 if self.refused() => {
                Member::new(EntryType::Regular, self.pick(&ODD).as_bytes().to_vec())
            }
            7 if self.refused() => Member::new(EntryType::new(b'Q'), self.name(&FILES)),
            _ => {
                let mut member = Member::new(EntryType::Directory, self.name(&DIRECTORIES));
                // Old writers leave sizes where there is no data.
                member.size = Some(4096);
                member
            }
        }
    }

    /// What all kinds of entries have.
    fn dress(&mut self, member: &mut Member) {
        let modes = [
            0o644, 0o755, 0o700, 0o4755, 0o2755, 0o1777, 0, 0o200, 0o100_644,
        ];
        member.mode = self.pick(&modes);
        (member.uid, member.gid) = (geteuid().as_raw(), getegid().as_raw());
        if self.root && self.one_in(4) {
            member.uid = self.pick(&[1, 1000, 65_534, 4_000_000_000]);
            member.gid = self.pick(&[1, 1000, 65_534, 4_000_000_000]);
        }
        if !self.root {
            // Nobody else gets past what the mode forbids the owner.
            member.mode |= 0o700;
        }
        if self.refused() {
            member.uid = u32::MAX;
        }
        member.mtime = self.pick(&[
            0,
            1_700_000_000,
            -1,
            1 << 33,
            -(1 << 33),
            i64::MAX,
            i64::MIN,
        ]);
        if member.records.is_empty() && member.sparse.is_none() {
            let forms = [Form::Gnu, Form::Gnu, Form::Ustar, Form::Pax, Form::Old];
            member.form = self.pick(&forms);
        }
        let is_device = matches!(member.kind, EntryType::Char | EntryType::Block);
        if member.form == Form::Old && is_device {
            member.form = Form::Ustar;
        }
        if self.one_in(8) {
            let time = self.pick(&[&b"1.5"[..], b"-1.25", b"99999999999", b"soon", b""]);
            member.records.push((b"mtime".to_vec(), time.to_vec()));
        }
        if self.one_in(12) {
            self.xattr(member);
        }
    }

    fn xattr(&mut self, member: &mut Member) {
        let is_plain = matches!(member.kind, EntryType::Regular | EntryType::Directory);
        let key = match self.byte() % 8 {
            0..=2 if is_plain => "user.a",
            3 if self.root => "trusted.a",
            4 if self.refused() => "trusted.overlay.opaque",
            5 if is_plain => "user.overlay.whiteout",
            6 if self.refused() => "odd",
            // It says something of another machine.
            _ => "security.selinux",
        };
        let value = self.pick(&[&b""[..], b"y", b"\n\0=", &[7; 600]]);
        let key = format!("SCHILY.xattr.{key}").into_bytes();
        member.records.push((key, value.to_vec()));
    }
}
