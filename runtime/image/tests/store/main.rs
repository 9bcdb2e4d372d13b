//! What a store keeps, finds again, and survives.

#[path = "../common/mod.rs"]
mod common;
mod crash;
mod full;
mod left;
mod loading;
mod pinned;
mod several;
mod snapshots;
#[path = "../common/taking.rs"]
mod taking;

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use common::*;
use image::{ArchiveError, Collected, Digest, Image, ImageError, Store, StoreError};
use serde_json::json;
use tar::EntryType::{Directory, Regular};

fn two_layers() -> [Vec<u8>; 2] {
    [tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])]
}

/// Everything below the store's root but its lock, with inode numbers and times of change.
fn state(place: &Place) -> String {
    let root = place.join("store");
    sh(&format!(
        "cd {}; find . -printf '%p %i %C@ %s\\n' | grep -v '^./tmp ' | sort",
        root.display()
    ))
}

/// A store with the image of [`two_layers`], and the archive that it is from.
fn with_image(place: &Place) -> (Store, Image, PathBuf) {
    let layers = two_layers();
    let archive = docker_old(&["web"], &layers, &config(&layers));
    let path = write(&place.join("x.tar"), &archive);
    let store = place.store();
    let image = store.resolve(&docker(&path)).expect("an image");
    (store, image, path)
}
