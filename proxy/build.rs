//! Says what was built from what: the commit and the compiler, for `--version` and the build metric. Asks nobody but the
//! machine it runs on; a source tree without its history is built all the same.

use std::{path::Path, process::Command};

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

/// The commit of this tree: none when it was unpacked inside somebody else's.
fn commit() -> Option<String> {
    let top = output("git", &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new("..").canonicalize().ok()? {
        return None;
    }
    // Both are written when another commit is checked out or made; what is missing would have us run at every build.
    for file in ["HEAD", "logs/HEAD"] {
        let watched = output("git", &["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists());
        watched.iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

#[expect(clippy::disallowed_methods, reason = "this is how a build script speaks to cargo")]
fn main() {
    // A packager, who builds from an archive, knows what it is of.
    let told = std::env::var("CROCHET_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(commit).unwrap_or_else(|| "no commit".into());
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    println!("cargo::rustc-env=CROCHET_COMMIT={commit}");
    println!("cargo::rustc-env=CROCHET_RUSTC={}", rustc.unwrap_or_else(|| "rustc unknown".into()));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CROCHET_COMMIT");
}
