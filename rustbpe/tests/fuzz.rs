//! The corpora of the fuzz targets, replayed without a fuzzer: every input that was ever worth keeping.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/checks.rs"]
mod checks;
mod common;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut n = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        n += 1;
    }
    assert!(n >= 20, "{folder} has {n} inputs");
}

#[test]
fn split() {
    replay("split", checks::split);
}

#[test]
fn encode() {
    replay("encode", checks::encode);
}

#[test]
fn train() {
    replay("train", checks::train);
}
