//! A seeded generator of random text and the slow, obvious twins of training and encoding.

use rustbpe::split::Splitter;

/// SplitMix64 (Steele et al. 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// A character of any plane; the low ones, where the classes of the patterns meet, more often.
    #[allow(dead_code)]
    pub fn character(&mut self) -> char {
        let planes = [0x80, 0x250, 0x3100, 0x20000, 0x110000];
        let plane = planes[self.below(planes.len())];
        std::iter::repeat_with(|| char::from_u32(self.below(plane) as u32)).flatten().next().unwrap()
    }

    #[allow(dead_code)]
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).rev().for_each(|last| items.swap(last, self.below(last + 1)));
    }

    pub fn text(&mut self, alphabet: &str, max_chars: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..self.below(max_chars + 1)).map(|_| letters[self.below(letters.len())]).collect()
    }
}

/// One character of each sort the split pattern tells apart, and the neighbours of the sorts.
#[allow(dead_code)]
pub const NASTY: &str =
    "aAzsSdDmMtTlLvVrReEſéßʰǅжम中\u{301}0129²Ⅷ٣'’!_-.,/§\u{200d}😀 \t\n\r\u{b}\u{85}\u{a0}\u{2028}\u{3000}";

/// The tokens by recounting every pair after every merge.
#[allow(dead_code)]
pub fn slow_train(documents: &[String], splitter: &Splitter, vocab_size: usize) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut words: Vec<Vec<usize>> = Vec::new();
    for document in documents {
        words.extend(splitter.split(document).unwrap().iter().map(|w| w.bytes().map(usize::from).collect()));
    }
    while tokens.len() < vocab_size {
        let mut counts = std::collections::HashMap::new();
        for pair in words.iter().flat_map(|word| word.windows(2)) {
            *counts.entry((pair[0], pair[1])).or_insert(0u64) += 1;
        }
        let most = counts.into_iter().max_by_key(|&(pair, count)| (count, std::cmp::Reverse(pair)));
        let Some(((left, right), _)) = most else { break };
        let id = tokens.len();
        tokens.push([tokens[left].clone(), tokens[right].clone()].concat());
        words.iter_mut().for_each(|word| join(word, left, right, id));
    }
    tokens
}

fn join(word: &mut Vec<usize>, left: usize, right: usize, id: usize) {
    let mut at = 0;
    while at + 1 < word.len() {
        if (word[at], word[at + 1]) == (left, right) {
            word.splice(at..at + 2, [id]);
        }
        at += 1;
    }
}

/// The ids by looking up the bytes of every pair of neighbours again and again.
#[allow(dead_code)]
pub fn slow_encode(tokens: &[Vec<u8>], pieces: &[&str]) -> Vec<u32> {
    let rank = |bytes: &[u8]| tokens.iter().position(|token| token == bytes);
    let mut ids = Vec::new();
    for piece in pieces {
        let mut parts: Vec<Vec<u8>> = match rank(piece.as_bytes()) {
            Some(_) => vec![piece.as_bytes().to_vec()],
            None => piece.bytes().map(|byte| vec![byte]).collect(),
        };
        let lowest = |parts: &[Vec<u8>]| {
            let pairs = parts.windows(2).enumerate();
            pairs.filter_map(|(at, pair)| Some((rank(&pair.concat())?, at))).min()
        };
        while let Some((id, at)) = lowest(&parts) {
            parts.splice(at..at + 2, [tokens[id].clone()]);
        }
        ids.extend(parts.iter().filter_map(|part| rank(part)).map(|id| id as u32));
    }
    ids
}
