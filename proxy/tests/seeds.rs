//! The fuzz targets over their seeds: what was made by hand to be hard, and what once was a crash.

#![allow(
    dead_code,
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::{fs, path::PathBuf};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

#[test]
fn every_seed_of_every_fuzz_target_holds() {
    let mut broken = Vec::new();
    for (name, target) in targets::TARGETS {
        let mut seeds: Vec<PathBuf> =
            fs::read_dir(folder(name)).expect("a folder of seeds").map(|entry| entry.expect("entry").path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 5, "{name} has {} seeds", seeds.len());
        for path in seeds {
            let seed = fs::read(&path).expect("read");
            let mut inputs = vec![seed.clone()];
            // Cut short, and with one bit turned round, it is another hard input.
            for at in (0..seed.len()).step_by(seed.len() / 16 + 1) {
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                inputs.extend([seed[..at].to_vec(), changed]);
            }
            if let Some(input) = inputs.iter().find(|input| std::panic::catch_unwind(|| target(input)).is_err()) {
                let shown = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
                broken.push(format!("{name}: {} as {shown:?}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these do not hold:\n{}", broken.join("\n"));
}

#[test]
fn every_fuzz_target_is_run_by_cargo_fuzz_too() {
    let manifest = fs::read_to_string(folder("../Cargo.toml")).expect("read");
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no binary of fuzz/Cargo.toml");
        assert!(folder("../fuzz_targets").join(format!("{name}.rs")).exists(), "{name}");
    }
    let targets = fs::read_dir(folder("../fuzz_targets")).expect("a folder").count();
    assert_eq!(targets, targets::TARGETS.len());
}
