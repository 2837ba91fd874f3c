//! Passes the interpreter's version on as `cfg(Py_3_12)` and friends, and the
//! name of the build profile as `TOKIOLOOP_PROFILE`.

use std::path::Path;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rustc-env=TOKIOLOOP_PROFILE={}", profile());
}

/// Cargo tells a script only whether the profile derives from release, but its
/// output goes to a directory named after the profile.
fn profile() -> String {
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let mut parts = Path::new(&out).components().rev().map(|part| part.as_os_str());
    parts
        .by_ref()
        .find(|part| *part == "build")
        .and_then(|_| parts.next())
        .and_then(|name| name.to_str())
        .unwrap_or("unknown")
        .to_owned()
}
