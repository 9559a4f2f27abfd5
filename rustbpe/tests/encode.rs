//! Encoding against a slow twin, round trips, and the vocabularies that are refused.

#![allow(clippy::unwrap_used)]

mod common;

use common::{slow_encode, slow_train, Rng, NASTY};
use rustbpe::batch::{Block, Stream};
use rustbpe::encode::Encoder;
use rustbpe::error::Error;
use rustbpe::patterns::{GPT4_PATTERN, NAMED};
use rustbpe::split::Splitter;

fn bytes() -> Vec<Vec<u8>> {
    (0..=255).map(|byte| vec![byte]).collect()
}

fn encoder(tokens: &[Vec<u8>]) -> Encoder {
    Encoder::new(tokens.to_vec(), GPT4_PATTERN).unwrap()
}

fn round_trips(encoder: &Encoder, text: &str) -> bool {
    let ids: Vec<i64> = encoder.encode(text).unwrap().into_iter().map(i64::from).collect();
    encoder.decode(&ids).unwrap() == text.as_bytes()
}

#[test]
fn equals_the_twin_on_short_and_long_pieces() {
    let splitter = Splitter::new(GPT4_PATTERN).unwrap();
    let mut rng = Rng(6);
    for alphabet in ["ab", "abc ", NASTY] {
        let documents: Vec<String> = (0..20).map(|_| rng.text(alphabet, 60)).collect();
        let tokens = slow_train(&documents, &splitter, 400);
        let fast = encoder(&tokens);
        for max_chars in [10, 30, 400] {
            let text = rng.text(alphabet, max_chars);
            let pieces = splitter.split(&text).unwrap();
            assert_eq!(fast.encode(&text).unwrap(), slow_encode(&tokens, &pieces), "{text:?}");
            assert!(round_trips(&fast, &text));
        }
    }
}

#[test]
fn any_token_list_works_even_one_no_training_would_give() {
    // Bytes in another order, tokens that no chain of merges reaches, several cuts of one token.
    let mut rng = Rng(7);
    for _ in 0..30 {
        let mut tokens = bytes();
        for _ in 0..60 {
            let token = rng.text("abc", 6).into_bytes();
            if !token.is_empty() && !tokens.contains(&token) {
                tokens.insert(rng.below(tokens.len()), token);
            }
        }
        let text = rng.text("abc", 300);
        assert_eq!(encoder(&tokens).encode(&text).unwrap(), slow_encode(&tokens, &[&text]), "{text:?}");
    }
}

#[test]
fn ids_do_not_depend_on_the_window() {
    let mut rng = Rng(14);
    for _ in 0..60 {
        let mut tokens = bytes();
        for _ in 0..40 {
            let token = rng.text("abc", 8).into_bytes();
            if !token.is_empty() && !tokens.contains(&token) {
                tokens.insert(rng.below(tokens.len()), token);
            }
        }
        tokens.extend((2..9).map(|n| vec![b'd'; 1 << n]));
        let windows = [1, 7, 40, 200].map(|bytes| encoder(&tokens).with_window(bytes));
        for alphabet in ["ab", "abc", "ad", "d"] {
            let text: String = std::iter::once('x').chain(rng.text(alphabet, 600).chars()).collect();
            let expected = slow_encode(&tokens, &[&text]);
            for encoder in &windows {
                assert_eq!(encoder.encode(&text).unwrap(), expected, "{text:?}");
            }
        }
    }
}

#[test]
fn a_megabyte_in_one_piece() {
    let mut tokens = bytes();
    tokens.extend((1..8).map(|power| vec![b'a'; 1 << power]));
    tokens.extend((1..8).map(|power| vec![b' '; 1 << power]));
    let encoder = encoder(&tokens);
    for text in ["a".repeat(1 << 20), " ".repeat(1 << 20), Rng(8).text("ab", 1 << 20)] {
        assert!(round_trips(&encoder, &text));
    }
    assert_eq!(encoder.encode(&"a".repeat(1 << 20)).unwrap().len(), 1 << 13);
}

#[test]
fn a_batch_equals_its_texts_one_by_one() {
    let mut rng = Rng(9);
    let encoder = encoder(&slow_train(&[rng.text("abc ", 300)], &Splitter::new(GPT4_PATTERN).unwrap(), 300));
    let texts: Vec<String> = (0..400).map(|_| rng.text("abc '\né", 400)).collect();
    let one_by_one: Vec<_> = texts.iter().map(|text| encoder.encode(text).unwrap()).collect();
    for threads in 0..4 {
        assert_eq!(rows(&encoder, &texts, threads), one_by_one);
    }
}

#[test]
fn threads_share_a_long_text() {
    let mut rng = Rng(13);
    let tokens = slow_train(&[rng.text("abc '\n", 600)], &Splitter::new(GPT4_PATTERN).unwrap(), 400);
    let long = rng.text("abc '\n", 300_000);
    let texts = [long.clone(), String::new(), "a".repeat(200_000), " ".repeat(200_000) + &long];
    for pattern in [GPT4_PATTERN.to_owned(), format!("(?:{GPT4_PATTERN})")] {
        let encoder = Encoder::new(tokens.clone(), &pattern).unwrap();
        let one_by_one: Vec<_> = texts.iter().map(|text| encoder.encode(text).unwrap()).collect();
        for threads in 1..4 {
            assert!(rows(&encoder, &texts, threads) == one_by_one);
        }
    }
}

#[test]
fn an_error_ends_a_batch() {
    let encoder = encoder(&bytes());
    let texts = vec!["word ".repeat(1 << 14); 20];
    let mut blocks = 0;
    let ended = encoder.encode_batch(&texts, 2, |_| {
        blocks += 1;
        Err(Error::TooLarge { bytes: 0 })
    });
    assert_eq!((ended, blocks), (Err(Error::TooLarge { bytes: 0 }), 1));
}

/// The ids of each text, by `encode_batch`.
fn rows(encoder: &Encoder, texts: &[String], threads: usize) -> Vec<Vec<u32>> {
    let (mut ids, mut ends) = (Vec::new(), vec![0]);
    let each = |block: &Block| {
        ends.extend(block.ends.iter().map(|end| ids.len() + end));
        ids.extend(&block.ids);
        Ok::<_, Error>(())
    };
    encoder.encode_batch(texts, threads, each).unwrap();
    assert_eq!(ends.last(), Some(&ids.len()));
    ends.windows(2).map(|pair| ids[pair[0]..pair[1]].to_vec()).collect()
}

#[test]
fn a_stream_gives_the_ids_of_the_whole_text_however_it_is_cut() {
    let mut rng = Rng(10);
    let tokens = slow_train(&[rng.text(NASTY, 600)], &Splitter::new(GPT4_PATTERN).unwrap(), 400);
    let patterns = NAMED.map(|(_, pattern)| pattern.to_owned());
    for pattern in patterns.into_iter().chain([format!("(?:{GPT4_PATTERN})")]) {
        let encoder = Encoder::new(tokens.clone(), &pattern).unwrap();
        let mut stream = Stream::default();
        for _ in 0..300 {
            let text = rng.text(&(NASTY.to_owned() + "      "), 40);
            let mut ids = Vec::new();
            for character in text.chars() {
                ids.extend(stream.push(&encoder, &character.to_string()).unwrap());
            }
            ids.extend(stream.finish(&encoder).unwrap());
            assert_eq!(ids, encoder.encode(&text).unwrap(), "{text:?} by {pattern}");
        }
    }
}

#[test]
fn a_stream_holds_little_back() {
    let encoder = encoder(&bytes());
    let mut stream = Stream::default();
    assert_eq!(stream.push(&encoder, "two wor").unwrap().len(), 3);
    assert_eq!(stream.push(&encoder, "ds  ").unwrap().len(), 6);
    assert_eq!(stream.push(&encoder, "").unwrap(), [0; 0]);
    assert_eq!(stream.finish(&encoder).unwrap().len(), 2);
}

#[test]
fn bad_vocabularies_and_ids_are_refused() {
    let refused = |tokens| matches!(Encoder::new(tokens, GPT4_PATTERN), Err(Error::Tokens { .. }));
    assert!(refused(bytes()[1..].to_vec()));
    assert!(refused([bytes(), vec![vec![7]]].concat()));
    assert!(refused([bytes(), vec![vec![]]].concat()));
    let encoder = encoder(&bytes());
    for id in [-1, 256, i64::MAX, i64::MIN] {
        assert_eq!(encoder.decode(&[65, id]), Err(Error::UnknownId { id, n_tokens: 256 }));
    }
    assert_eq!(encoder.decode(&[]), Ok(vec![]));
}
