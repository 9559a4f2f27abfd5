//! The hand-written splitter against the regex engine, and the ways a pattern can fail.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Rng, NASTY};
use rustbpe::error::Error;
use rustbpe::patterns::{pattern_for, GPT4_PATTERN, NAMED, SPELLINGS};
use rustbpe::split::Splitter;

fn split(text: &str) -> Vec<&str> {
    Splitter::new(GPT4_PATTERN).unwrap().split(text).unwrap()
}

#[test]
fn known_pieces() {
    assert_eq!(split("Hello, world's 1234!"), ["Hello", ",", " world", "'s", " ", "12", "34", "!"]);
    assert_eq!(split("a  b \n\n c  "), ["a", " ", " b", " \n\n", " c", "  "]);
    assert_eq!(split("x =\t{\r\n}"), ["x", " =", "\t", "{\r\n", "}"]);
    assert_eq!(split("'Sam 'LLve 'ſx"), ["'S", "am", " '", "LLve", " '", "ſx"]);
    assert_eq!(split(""), [""; 0]);
}

#[test]
fn equals_the_regex_on_random_text() {
    let mut rng = Rng(1);
    let named = NAMED.iter().map(|&(_, pattern)| pattern).chain(SPELLINGS).map(str::to_owned);
    for family in (1..=3).map(pattern_for).chain(named) {
        let fast = Splitter::new(&family).unwrap();
        assert!(fast.cuts_at_blanks());
        // The group changes nothing but the path: only the bare pattern has the fast one.
        let slow = Splitter::new(&format!("(?:{family})")).unwrap();
        assert!(!slow.cuts_at_blanks());
        for _ in 0..3000 {
            let text = rng.text(NASTY, 20);
            let pieces = fast.split(&text).unwrap();
            assert_eq!(pieces, slow.split(&text).unwrap(), "{text:?} by {family}");
            assert_eq!(pieces.concat(), text);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}

#[test]
fn a_megabyte_of_anything_is_fast() {
    for unit in ["a", " ", "\n", " \n", "'", "'s", "1", "!", "é", "\u{3000}"] {
        let text = unit.repeat(1_000_000);
        assert_eq!(split(&text).concat().len(), text.len());
    }
}

#[test]
fn other_patterns_fail_aloud_and_lose_nothing() {
    let error =
        |pattern: &str, text: &str| Splitter::new(pattern).and_then(|s| s.split(text).map(drop)).err();
    assert!(matches!(error("(", ""), Some(Error::Pattern { .. })));
    assert_eq!(error("a+", "aab"), Some(Error::Uncovered { start: 2, end: 3 }));
    assert_eq!(error("a+", "baa"), Some(Error::Uncovered { start: 0, end: 1 }));
    assert_eq!(error("a*", "aaba"), Some(Error::Uncovered { start: 2, end: 3 }));
    assert_eq!(error("x*", "ab"), Some(Error::Uncovered { start: 0, end: 2 }));
    assert!(matches!(error(r"(?:(?=a)(a|aa)+)+$|.", &("a".repeat(3000) + "b")), Some(Error::Split { .. })));
    assert_eq!(error(r"\w+|\W+", "any text, gone through"), None);
}
