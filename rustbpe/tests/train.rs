//! Training against a slow twin; the tie rule; what the result must not depend on.

#![allow(clippy::unwrap_used)]

mod common;

use common::{slow_train, Rng, NASTY};
use rustbpe::error::Error;
use rustbpe::patterns::GPT4_PATTERN;
use rustbpe::split::Splitter;
use rustbpe::thread_pool;
use rustbpe::train::{merge, Limits, WordCounts, Words};

const ALL: Limits = Limits { of_document: usize::MAX, in_all: usize::MAX };

fn train(documents: &[String], vocab_size: usize, threads: usize, chunk: usize) -> Vec<Vec<u8>> {
    let pool = thread_pool(threads).unwrap();
    let mut counts = WordCounts::new(Splitter::new(GPT4_PATTERN).unwrap(), ALL);
    for documents in documents.chunks(chunk) {
        documents.iter().for_each(|document| assert!(!counts.push(document)));
        counts.count(&pool).unwrap();
    }
    counts.into_tokens::<Error>(vocab_size, &pool, |_| Ok(())).unwrap()
}

fn words_of(counted: &[(&str, u64)]) -> Words {
    let mut words = Words::default();
    counted.iter().for_each(|&(word, count)| words.add(word.as_bytes(), count));
    words
}

fn merged(words: &[(&str, u64)], vocab_size: usize) -> Vec<String> {
    let tokens = merge::<Error>(words_of(words), vocab_size, |_| Ok(())).unwrap();
    tokens[256..].iter().map(|token| String::from_utf8(token.clone()).unwrap()).collect()
}

#[test]
fn equals_the_twin() {
    let splitter = Splitter::new(GPT4_PATTERN).unwrap();
    let mut rng = Rng(2);
    for alphabet in ["a", "ab", "ab ", "abcdef  ", NASTY] {
        for round in 0..12 {
            let documents: Vec<String> = (0..1 + round).map(|_| rng.text(alphabet, 40)).collect();
            assert_eq!(
                train(&documents, 330, 1, 100),
                slow_train(&documents, &splitter, 330),
                "{documents:?}"
            );
        }
    }
}

/// Alphabets of 2 to 300 code points, 1 byte to 20 KB, up to 600 merges; a third with every document twice or
/// more and few letters, so that ties decide. Each is trained on 1 and 2 threads and in another order.
fn equals_the_twin_on_random_corpora(n: usize, seed: u64) {
    let splitter = Splitter::new(GPT4_PATTERN).unwrap();
    for round in 0..n {
        let mut rng = Rng(seed + round as u64);
        let letters = if round % 3 == 0 { 2 + rng.below(4) } else { 2 + rng.below(299) };
        let alphabet: String = (0..letters).map(|_| rng.character()).chain("  ".chars()).collect();
        let bytes = 1 << rng.below(15);
        let mut documents = vec![];
        while documents.iter().map(String::len).sum::<usize>() < bytes {
            documents.push(rng.text(&alphabet, 1 + bytes / 4));
        }
        let more = 4_000 * rng.below(2);
        documents.push(rng.text(&alphabet, more));
        if round % 3 == 0 {
            documents.extend_from_within(..);
        }
        let vocab_size = 256 + rng.below(601);
        let expected = slow_train(&documents, &splitter, vocab_size);
        let chunk = 1 + rng.below(documents.len());
        assert_eq!(train(&documents, vocab_size, 1, chunk), expected, "corpus {round} of seed {seed}");
        rng.shuffle(&mut documents);
        assert_eq!(
            train(&documents, vocab_size, 2, chunk),
            expected,
            "corpus {round} of seed {seed}, shuffled"
        );
    }
}

#[test]
fn equals_the_twin_on_100_random_corpora() {
    equals_the_twin_on_random_corpora(100, 1_000_000);
}

/// `cargo test -- --ignored`: about two minutes.
#[test]
#[ignore = "two minutes"]
fn equals_the_twin_on_2000_random_corpora() {
    equals_the_twin_on_random_corpora(2_000, 2_000_000);
}

#[test]
fn independent_of_threads_chunks_and_order() {
    let mut rng = Rng(3);
    let mut documents: Vec<String> = (0..300).map(|_| rng.text("abcd 'é\n1", 200)).collect();
    let tokens = train(&documents, 500, 1, 1000);
    assert_eq!(tokens.len(), 500);
    documents.reverse();
    assert_eq!(tokens, train(&documents, 500, 3, 7));
}

#[test]
fn ties_go_to_the_smallest_pair() {
    assert_eq!(merged(&[("cd", 5), ("ab", 5), ("ac", 5)], 259), ["ab", "ac", "cd"]);
    assert_eq!(merged(&[("cd", 6), ("ab", 5)], 258), ["cd", "ab"]);
}

#[test]
fn overlaps_count_and_merge_left_to_right() {
    // aa aa a: both pairs stand once, and (aa, a) is the smaller one.
    assert_eq!(merged(&[("aaaaa", 1)], 300), ["aa", "aaa", "aaaaa"]);
    // "aa" stands twice in "aaa": 4 beats 3.
    assert_eq!(merged(&[("aaa", 2), ("bc", 3)], 257), ["aa"]);
}

#[test]
fn counts_do_not_wrap() {
    assert_eq!(merged(&[("ab", u64::from(u32::MAX) + 2), ("cd", 1)], 257), ["ab"]);
}

#[test]
fn little_text_gives_fewer_tokens() {
    assert_eq!(train(&[], 1000, 1, 1).len(), 256);
    assert_eq!(train(&["a b".into()], 1000, 1, 1).len(), 257);
    assert_eq!(merged(&[("abc", 1)], 256), [""; 0]);
}

#[test]
fn limits_cut_at_characters() {
    let splitter = Splitter::new(GPT4_PATTERN).unwrap();
    let mut counts = WordCounts::new(splitter, Limits { of_document: 3, in_all: 5 });
    assert!(!counts.push("éabcd") && !counts.is_full());
    assert!(!counts.push("xyzw") && counts.is_full());
    let tokens = counts.into_tokens::<Error>(1000, &thread_pool(1).unwrap(), |_| Ok(())).unwrap();
    assert_eq!((tokens.len(), tokens[259].as_slice()), (260, "éab".as_bytes()));
    assert!(tokens.contains(&b"xy".to_vec()));
}

#[test]
fn a_chunk_is_full_whatever_the_size_of_documents() {
    for document in ["", "a", "some text"] {
        let mut counts = WordCounts::new(Splitter::new(GPT4_PATTERN).unwrap(), ALL);
        assert!((0..1_000_000).any(|_| counts.push(document)));
    }
}

#[test]
fn a_long_word_is_not_quadratic() {
    let text = Rng(4).text("ACGT", 1_000_000);
    assert_eq!(train(&[text, "a".repeat(1_000_000)], 2000, 1, 1).len(), 2000);
}

#[test]
fn poll_can_end_the_work() {
    let words = words_of(&[(&Rng(5).text("abcdefgh", 20_000), 1)]);
    let stop = Error::Threads { reason: "stopped".into() };
    assert_eq!(merge(words, 1000, |_| Err(stop.clone())), Err(stop));
}
