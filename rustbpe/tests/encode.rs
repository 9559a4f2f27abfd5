//! Encoding against a slow twin, round trips, and the vocabularies that are refused.

#![allow(clippy::unwrap_used)]

mod common;

use common::{slow_encode, slow_train, Rng, NASTY};
use rustbpe::batch::Stream;
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
        let batch = encoder.encode_batch(&texts, threads).unwrap();
        assert_eq!(batch.rows().map(<[u32]>::to_vec).collect::<Vec<_>>(), one_by_one);
        assert_eq!((batch.n_rows(), batch.ids().map(<[u32]>::len).sum()), (texts.len(), batch.n_ids()));
    }
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
