//! Little that would become very much.

use super::*;

#[test]
fn bombs() {
    let megabyte = vec![0; 1 << 20];
    let small = Limits {
        bytes: 512 << 10,
        ..Limits::default()
    };
    let attack = Attack::with("bomb-bytes", small);
    let error = attack.layers(&[tar_of(&[("big", &megabyte)])]);
    assert!(
        matches!(error, LayerError::Limit { what: "bytes", .. }),
        "{error}"
    );
    // Nothing but zeros behind the end of the archive, compressed to almost nothing.
    let mut tail = tar_of(&[("small", b"")]);
    tail.extend_from_slice(&megabyte);
    for compress in [gzip, zstd] {
        let layers = [tail.clone()];
        let files = layout("v", &layers, &config(&layers), compress);
        match attack.archive(&archive(&files)) {
            ImageError::Layer { source, .. } => {
                assert!(
                    matches!(*source, LayerError::Limit { what: "bytes", .. }),
                    "{source}"
                );
            }
            other => panic!("{other}"),
        }
    }
    // The limit holds for all layers together.
    let third = vec![1; 200 << 10];
    let layers: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| tar_of(&[(name, &third)]))
        .collect();
    let error = attack.layers(&layers);
    assert!(
        matches!(error, LayerError::Limit { what: "bytes", .. }),
        "{error}"
    );
    // A compressed archive as a whole.
    let error = attack.archive(&gzip(&megabyte));
    assert!(
        matches!(error, ImageError::Archive(ArchiveError::Decompress { .. })),
        "{error}"
    );

    let attack = Attack::with(
        "bomb-entries",
        Limits {
            entries: 100,
            ..Limits::default()
        },
    );
    let names: Vec<_> = (0..200).map(|n| format!("f{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = attack.layers(&[tar_of(&files)]);
    assert!(
        matches!(
            error,
            LayerError::Limit {
                what: "entries",
                limit: 100
            }
        ),
        "{error}"
    );

    // Directories that the archive only uses count as well, and so does the length of their paths.
    let deep = format!("{}file", "d/".repeat(2000));
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..50 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let name = format!("{number}/{deep}");
        let added = archive.append_data(&mut header, name, std::io::empty());
        added.expect("an entry");
    }
    let used = archive.into_inner().expect("an archive");
    for (limits, wanted) in [
        (
            Limits {
                entries: 50_000,
                ..Limits::default()
            },
            "entries",
        ),
        (
            Limits {
                path_bytes: 10 << 20,
                ..Limits::default()
            },
            "bytes of directories' paths",
        ),
    ] {
        let attack = Attack::with("bomb-paths", limits);
        let error = attack.layers(std::slice::from_ref(&used));
        assert!(
            matches!(error, LayerError::Limit { what, .. } if what == wanted),
            "{error}"
        );
    }

    let attack = Attack::with(
        "bomb-file",
        Limits {
            file_bytes: 1 << 30,
            ..Limits::default()
        },
    );
    let sparse = attack.place.join("sparse");
    sh(&format!(
        "truncate -s 2T {0}; tar -C {1} --format=gnu -Scf {0}.tar sparse",
        sparse.display(),
        attack.place.join("").display()
    ));
    let error = attack.layers(&[read(&sparse.with_extension("tar"))]);
    assert!(
        matches!(
            error,
            LayerError::Limit {
                what: "bytes in one file",
                ..
            }
        ),
        "{error}"
    );

    let attack = Attack::with(
        "bomb-layers",
        Limits {
            layers: 3,
            ..Limits::default()
        },
    );
    let layers = vec![tar_of(&[]); 4];
    let error = attack.archive(&docker_old(&["x"], &layers, &config(&layers)));
    assert!(error.to_string().contains("4 layers"), "{error}");
}

#[test]
fn absurd_headers_do_not_become_memory() {
    let attack = Attack::new("headers");
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8 << 30);
        header.set_cksum();
        let mut data = header.as_bytes().to_vec();
        data.extend_from_slice(&[b'a'; 4096]);
        says(
            &attack.layers(&[data]),
            "extended headers of 8589934592 bytes",
        );
    }
    // Many of them before one entry add up.
    let mut many = Vec::new();
    for number in 0..3 {
        let value = "v".repeat(400 << 10);
        let record = |length| format!("{length} SCHILY.xattr.user.x{number}={value}\n");
        let mut length = record(0).len();
        while record(length).len() != length {
            length = record(length).len();
        }
        let record = record(length);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        many.extend_from_slice(header.as_bytes());
        many.extend_from_slice(record.as_bytes());
        many.resize(many.len().next_multiple_of(512), 0);
    }
    says(&attack.layers(&[many]), "before one entry, at most 1048576");
    let mut names = String::new();
    for number in 0..2000 {
        names += &format!("29 SCHILY.xattr.user.x{number:04}=v\n");
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(names.len() as u64);
    header.set_cksum();
    let mut data = header.as_bytes().to_vec();
    data.extend_from_slice(names.as_bytes());
    data.resize(data.len().next_multiple_of(512), 0);
    says(
        &attack.layers(&[data]),
        "more than 1024 extended attributes",
    );
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_cksum();
    header.as_old_mut().size = [0xff; 12];
    header.set_cksum();
    let error = attack.layers(&[header.as_bytes().to_vec()]);
    assert!(
        matches!(error, LayerError::Tar(TarError::Header { .. })),
        "{error}"
    );
}

/// The archive's own members are remembered, each with its name.
#[test]
fn members_of_an_archive() {
    let members = |count: usize, length: usize| {
        let mut archive = tar::Builder::new(Vec::new());
        for number in 0..count {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            let name = format!("{number:0length$}");
            let added = archive.append_data(&mut header, name, std::io::empty());
            added.expect("an entry");
        }
        archive.into_inner().expect("an archive")
    };
    let attack = Attack::new("members");
    let error = attack.archive(&members(65_537, 8)).to_string();
    assert!(error.contains("more than 65536 members"), "{error}");
    let limits = Limits {
        path_bytes: 100_000,
        ..Limits::default()
    };
    let attack = Attack::with("members-names", limits);
    let error = attack.archive(&members(1001, 100)).to_string();
    assert!(
        error.contains("names have more than 100000 bytes"),
        "{error}"
    );
}
