//! What is saved is byte for byte what was loaded, for us and for other people's tools.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod same;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::*;
use image::{Image, Store};

/// Loads an image of `layers` called `name`.
fn load(place: &Place, store: &Store, name: &str, layers: &[Vec<u8>]) -> Image {
    let saved = docker_old(&[name], layers, &config(layers));
    let path = write(&place.join("in.tar"), &saved);
    store.resolve(&docker(&path)).expect(name)
}

fn saved(store: &Store, images: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    store.save(images, &mut out).expect("saved");
    out
}

/// The members of an archive, by GNU tar.
fn members(archive: &Path) -> Vec<String> {
    let list = sh(&format!("tar -tf {}", archive.display()));
    list.lines().map(str::to_owned).collect()
}

/// The names in a folder of the store.
fn entries(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.join("store").join(folder)).expect(folder);
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// Where the only layer of an image is.
fn lower(store: &Store, image: &Image) -> PathBuf {
    let snapshot = store.snapshot(image, "look").expect("a snapshot");
    let lower = snapshot.overlay_options().expect("an overlay").lower[0].clone();
    store.remove_snapshot("look").expect("removed");
    lower
}
