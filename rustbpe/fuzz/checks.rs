//! What must hold for any bytes: one function a fuzz target, used by the targets and by `tests/fuzz.rs`, which
//! replays the corpora without a fuzzer. What it is not: a way to make texts; the fuzzer does that.

#![allow(dead_code)]

use std::cell::OnceCell;

use rustbpe::batch::Stream;
use rustbpe::encode::Encoder;
use rustbpe::error::Error;
use rustbpe::patterns::{GPT4_PATTERN, NAMED};
use rustbpe::split::Splitter;
use rustbpe::thread_pool;
use rustbpe::train::{Limits, WordCounts};

use crate::common::{slow_encode, slow_train, Rng, NASTY};

/// Larger inputs would only make the slow twins slow.
const MAX_BYTES: usize = 400;

/// The first byte, which chooses, and the rest as text, what is not UTF-8 replaced.
fn choice_and_text(data: &[u8]) -> Option<(usize, String)> {
    let (&choice, text) = data.split_first()?;
    Some((choice as usize, String::from_utf8_lossy(&text[..text.len().min(MAX_BYTES)]).into_owned()))
}

/// Every hand-written splitter gives the pieces of the regex.
pub fn split(data: &[u8]) {
    thread_local!(static PAIRS: OnceCell<Vec<(Splitter, Splitter)>> = const { OnceCell::new() });
    let make = |&(_, pattern): &(&str, &str)| {
        (Splitter::new(pattern).unwrap(), Splitter::new(&format!("(?:{pattern})")).unwrap())
    };
    let Some((choice, text)) = choice_and_text(data) else { return };
    PAIRS.with(|pairs| {
        let (fast, slow) = &pairs.get_or_init(|| NAMED.iter().map(make).collect())[choice % NAMED.len()];
        let pieces = fast.split(&text).unwrap();
        assert_eq!(pieces, slow.split(&text).unwrap());
        assert_eq!(pieces.concat(), text);
    });
}

/// Encoding equals the twin's, in one go and as a stream cut anywhere, and decodes to the text.
pub fn encode(data: &[u8]) {
    thread_local!(static MADE: OnceCell<(Vec<Vec<u8>>, Encoder, Encoder, Splitter)> = const { OnceCell::new() });
    let make = || {
        let splitter = Splitter::new(GPT4_PATTERN).unwrap();
        let mut rng = Rng(12);
        let documents: Vec<String> = (0..40).map(|_| rng.text(NASTY, 60) + &rng.text("abc ", 60)).collect();
        let tokens = slow_train(&documents, &splitter, 600);
        let encoder = || Encoder::new(tokens.clone(), GPT4_PATTERN).unwrap();
        (tokens.clone(), encoder(), encoder().with_window(9), splitter)
    };
    let Some((choice, text)) = choice_and_text(data) else { return };
    MADE.with(|made| {
        let (tokens, encoder, windowed, splitter) = made.get_or_init(make);
        let ids = encoder.encode(&text).unwrap();
        assert_eq!(ids, slow_encode(tokens, &splitter.split(&text).unwrap()));
        assert_eq!(ids, windowed.encode(&text).unwrap());
        assert_eq!(
            encoder.decode(&ids.iter().map(|&id| id.into()).collect::<Vec<_>>()).unwrap(),
            text.as_bytes()
        );
        let characters: Vec<char> = text.chars().collect();
        let mut stream = Stream::default();
        let mut streamed = Vec::new();
        for part in characters.chunks(1 + choice) {
            streamed.extend(stream.push(encoder, &part.iter().collect::<String>()).unwrap());
        }
        streamed.extend(stream.finish(encoder).unwrap());
        assert_eq!(ids, streamed);
    });
}

/// Training equals the twin's, whatever the threads and the order; lines are documents.
pub fn train(data: &[u8]) {
    let Some((choice, text)) = choice_and_text(data) else { return };
    let mut documents: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let (vocab_size, threads) = (256 + choice / 2, 1 + choice % 2);
    let splitter = || Splitter::new(GPT4_PATTERN).unwrap();
    let expected = slow_train(&documents, &splitter(), vocab_size);
    documents.reverse();
    let mut counts = WordCounts::new(splitter(), Limits { of_document: usize::MAX, in_all: usize::MAX });
    for document in &documents {
        counts.push(document);
    }
    let tokens = counts.into_tokens::<Error>(vocab_size, &thread_pool(threads).unwrap(), |_| Ok(()));
    assert_eq!(tokens.unwrap(), expected);
}
