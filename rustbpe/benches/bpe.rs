//! How fast splitting, training and encoding are, on text made from a seed: `cargo bench`.
//!
//! For work on the crate, where one commit is compared with another. What it is not: the comparison with
//! other packages on real text, which is `python -m scripts.bench tokenize`.

#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use rustbpe::batch::Block;
use rustbpe::encode::Encoder;
use rustbpe::error::Error;
use rustbpe::patterns::{GPT4_PATTERN, NAMED};
use rustbpe::split::Splitter;
use rustbpe::thread_pool;
use rustbpe::train::{Limits, WordCounts};

use common::Rng;

const DOCUMENTS: usize = 1_000;

/// Prose of 20,000 different words, some of them as frequent as in a language, with numbers and signs.
fn prose() -> Vec<String> {
    let mut rng = Rng(1);
    let words: Vec<String> = (0..20_000).map(|_| rng.text("eeetaoinshrdlucmé", 10)).collect();
    let mut document = || {
        let mut text = String::new();
        for _ in 0..300 {
            let rank = 1 + rng.below(200);
            text += &words[rng.below(rank * rank / 2 + 1)];
            text += [" ", " ", " ", " ", ", ", ". ", "'s ", "\n\n", " 1984 "][rng.below(9)];
        }
        text
    };
    (0..DOCUMENTS).map(|_| document()).collect()
}

fn train(documents: &[String], vocab_size: usize, threads: usize) -> Vec<Vec<u8>> {
    let pool = thread_pool(threads).unwrap();
    let limits = Limits { of_document: usize::MAX, in_all: usize::MAX };
    let mut counts = WordCounts::new(Splitter::new(GPT4_PATTERN).unwrap(), limits);
    for document in documents {
        if counts.push(document) {
            counts.count(&pool).unwrap();
        }
    }
    counts.into_tokens::<Error>(vocab_size, &pool, |_| Ok(())).unwrap()
}

fn bpe(c: &mut Criterion) {
    let documents = prose();
    let bytes: usize = documents.iter().map(String::len).sum();
    let mut group = c.benchmark_group("bpe");
    group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
    for (name, pattern) in NAMED {
        let splitter = Splitter::new(pattern).unwrap();
        let pieces = || documents.iter().map(|text| splitter.split(text).unwrap().len()).sum::<usize>();
        group.bench_function(format!("split {name}"), |b| b.iter(pieces));
    }
    for threads in [1, 2] {
        group.bench_function(format!("train, {threads} threads"), |b| {
            b.iter(|| train(&documents, 8_192, threads))
        });
    }
    let encoder = Encoder::new(train(&documents, 8_192, 1), GPT4_PATTERN).unwrap();
    for threads in [1, 2] {
        let encode = || {
            let mut n_ids = 0;
            let count = |block: &Block| {
                n_ids += block.ids.len();
                Ok::<_, Error>(())
            };
            encoder.encode_batch(&documents, threads, count).map(|()| n_ids)
        };
        group.bench_function(format!("encode, {threads} threads"), |b| b.iter(encode));
    }
    let long = documents.concat().replace([' ', '\n'], "x");
    group.bench_function("encode one piece", |b| b.iter(|| encoder.encode(&long).unwrap().len()));
    group.finish();
}

criterion_group!(benches, bpe);
criterion_main!(benches);
