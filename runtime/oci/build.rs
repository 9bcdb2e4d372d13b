//! Links the program with all that it needs in it, where that is to be had: a container's start is
//! a program's start, and without a loader and its libraries that takes half the time.
//!
//! Rust can do this too (`-C target-feature=+crt-static`), but only for a whole build, which then
//! cannot have macros of its own. Here the linker is told, for this one program: to make an
//! executable for any address (`-static-pie`), and to look for libraries in a directory first where
//! each shared one that Rust asks for stands for the archive.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The libraries by the names that Rust asks for, and the archives in their place.
const LIBRARIES: [(&str, &[&str]); 8] = [
    ("seccomp", &["libseccomp.a"]),
    ("gcc_s", &["libgcc_eh.a", "libgcc.a", "libc.a"]),
    ("c", &["libc.a"]),
    ("m", &["libm.a"]),
    ("rt", &["librt.a"]),
    ("pthread", &["libpthread.a"]),
    ("dl", &["libdl.a"]),
    ("util", &["libutil.a"]),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in [DYNAMIC, "LIBSECCOMP_LIB_PATH", "RUSTC_LINKER"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rustc-check-cfg=cfg(entry)");
    if !fits() {
        return;
    }
    match scripts() {
        Ok(directory) => {
            let directory = directory.display();
            println!("cargo:rustc-link-arg-bin=fairlead-oci=-L{directory}");
            println!("cargo:rustc-link-arg-bin=fairlead-oci=-static-pie");
            // `entry.rs`.
            println!("cargo:rustc-link-arg-bin=fairlead-oci=-Wl,--entry=fairlead_entry");
            println!("cargo:rustc-cfg=entry");
        }
        Err(reason) => println!(
            "cargo:warning=fairlead-oci is linked with shared libraries and starts more slowly: \
             {reason}; {DYNAMIC}=1 says that this is wanted"
        ),
    }
}

/// Set to anything: a program with shared libraries.
const DYNAMIC: &str = "FAIRLEAD_OCI_DYNAMIC";

/// Whether this is a build for the one machine and C library that it was tried with.
fn fits() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    env::var_os(DYNAMIC).is_none()
        && is("TARGET", "x86_64-unknown-linux-gnu")
        && is("HOST", "x86_64-unknown-linux-gnu")
        && !features.split(',').any(|feature| feature == "crt-static")
}

/// Writes the directory with a linker script for each library.
fn scripts() -> Result<PathBuf, String> {
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let directory = Path::new(&out).join("static");
    let failed = |error| format!("{}: {error}", directory.display());
    fs::create_dir_all(&directory).map_err(failed)?;
    // Rust looks there before it looks into ours.
    if let Some(own) = env::var_os("LIBSECCOMP_LIB_PATH") {
        let shared = |name: &str| Path::new(&own).join(format!("lib{name}.so"));
        let mut names = LIBRARIES.iter().map(|(name, _)| shared(name));
        if let Some(found) = names.find(|path| path.exists()) {
            return Err(format!("{} would be taken", found.display()));
        }
    }
    // What an executable for any address begins with; a C library may lack it.
    find("rcrt1.o")?;
    for (library, archives) in LIBRARIES {
        let found = archives.iter().map(|archive| find(archive));
        let found = found.collect::<Result<Vec<_>, _>>()?.join(" ");
        let script = directory.join(format!("lib{library}.so"));
        fs::write(script, format!("GROUP({found})\n")).map_err(failed)?;
    }
    Ok(directory)
}

/// Where an archive is, quoted for a linker script.
fn find(archive: &str) -> Result<String, String> {
    let own = env::var_os("LIBSECCOMP_LIB_PATH").map(|path| Path::new(&path).join(archive));
    let path = match own.filter(|path| path.is_file()) {
        Some(path) => path,
        None => {
            let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
            let said = Command::new(&linker)
                .arg(format!("-print-file-name={archive}"))
                .output()
                .map_err(|error| format!("{}: {error}", linker.display()))?;
            // It repeats the name alone when there is no such file.
            PathBuf::from(String::from_utf8_lossy(&said.stdout).trim())
        }
    };
    match path.to_str() {
        Some(text) if path.is_absolute() && path.is_file() && !text.contains('"') => {
            println!("cargo:rerun-if-changed={text}");
            Ok(format!("\"{text}\""))
        }
        _ => Err(format!("{archive} is not there")),
    }
}
