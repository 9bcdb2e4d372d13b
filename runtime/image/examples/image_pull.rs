//! Pulls one image into a store, as a process by itself: what `scripts/bench --only images` measures.
//!
//! `image_pull STORE NAME` prints the image's id, and the most memory that it had, in KiB.

use image::{ImageError, PullOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, name] = arguments.as_slice() else {
        return Err("usage: image_pull STORE NAME".into());
    };
    let pulled = pull(store, name.parse()?)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .ok_or("/proc/self/status has no VmHWM")?;
    println!("{pulled} {peak}");
    Ok(())
}

fn pull(store: &str, name: image::Name) -> Result<image::Digest, ImageError> {
    let store = Store::open(store)?;
    Ok(store.pull(&name, &PullOptions::default())?.id)
}
