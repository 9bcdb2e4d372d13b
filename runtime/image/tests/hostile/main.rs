//! Archives that mean harm, or are damaged: each ends in an error that says why, leaves nothing in
//! the store, and touches nothing outside.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod limits;
mod paths;

use std::{fs, path::PathBuf};

use common::*;
use image::{ArchiveError, ImageError, LayerError, Limits, Options, Store, TarError};
use serde_json::json;
use tar::EntryType::{self, Char, Directory, Fifo, Link, Regular, Symlink};

/// A store, and a place outside it that must stay as it is.
struct Attack {
    place: Place,
    outside: PathBuf,
    store: Store,
}

impl Attack {
    fn new(test: &str) -> Self {
        Self::with(test, Limits::default())
    }

    fn with(test: &str, limits: Limits) -> Self {
        let place = Place::new(test);
        let outside = place.join("outside");
        fs::create_dir(&outside).expect("a directory");
        write(&outside.join("file"), b"untouched");
        let options = Options {
            limits,
            ..Options::default()
        };
        let store = Store::open_with(place.join("store"), options).expect("a store");
        Self {
            place,
            outside,
            store,
        }
    }

    /// The error that an archive with these bytes ends in.
    fn archive(&self, data: &[u8]) -> ImageError {
        let path = write(&self.place.join("attack.tar"), data);
        let error = refused(&self.store, &self.place.join("store"), &docker(&path));
        let listed: Vec<_> = fs::read_dir(&self.outside)
            .expect("outside")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(listed, ["file"]);
        assert_eq!(read(&self.outside.join("file")), b"untouched");
        error
    }

    fn layers(&self, layers: &[Vec<u8>]) -> LayerError {
        match self.archive(&docker_old(&["bad"], layers, &config(layers))) {
            ImageError::Layer { source, .. } => *source,
            other => panic!("{other}"),
        }
    }

    fn entries(&self, entries: &[(&str, EntryType, &str, &[u8])]) -> LayerError {
        self.layers(&[tar_of(&[("good", b"x")]), layer(entries)])
    }
}

#[track_caller]
fn says(error: &LayerError, text: &str) {
    assert!(error.to_string().contains(text), "{error}");
}
