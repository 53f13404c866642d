//! Says what was built from what: the commit and the compiler, for `--version` and the build metric.

use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "this is how a build script speaks to cargo")]
fn main() {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "no commit".into());
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    println!("cargo::rustc-env=CROCHET_COMMIT={commit}");
    println!("cargo::rustc-env=CROCHET_RUSTC={}", rustc.unwrap_or_else(|| "rustc unknown".into()));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../.git/HEAD");
}
