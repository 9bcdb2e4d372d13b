//! Pulls one image into a store, as a process by itself: what `scripts/bench --only images` measures.
//!
//! `image_pull STORE NAME`

use image::{ImageError, PullOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, name] = arguments.as_slice() else {
        return Err("usage: image_pull STORE NAME".into());
    };
    let pulled = pull(store, name.parse()?)?;
    println!("{pulled}");
    Ok(())
}

fn pull(store: &str, name: image::Name) -> Result<image::Digest, ImageError> {
    let store = Store::open(store)?;
    Ok(store.pull(&name, &PullOptions::default())?.id)
}
