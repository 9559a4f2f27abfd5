//! Text to token ids and back, with the ids that tiktoken gives for the same ranks.
//!
//! A token's id is its rank: its index in the list. A piece that is a token becomes that token;
//! in any other piece, of all adjacent tokens whose bytes together are a token, the pair with the
//! lowest rank is joined, the leftmost first, until none is left. What it is not: a place for special
//! tokens; their strings are ordinary text here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::split::Splitter;
use crate::{thread_count, thread_pool};

/// No pair: larger than any rank.
const NONE: u32 = u32::MAX;
/// Up to this many bytes a scan for the lowest rank is faster than a heap.
const SHORT: usize = 100;
/// A thread is not worth starting for less text than this.
const BYTES_PER_THREAD: usize = 1 << 15;

pub struct Encoder {
    splitter: Splitter,
    tokens: Vec<Vec<u8>>,
    ids: FxHashMap<Vec<u8>, u32>,
    byte_ids: [u32; 256],
    /// (left id, right id) to the id of their joined bytes, for every way to cut a token in two.
    pairs: FxHashMap<(u32, u32), u32>,
}

impl Encoder {
    /// Fails unless the tokens are distinct, not empty, and hold all 256 bytes (in any order).
    pub fn new(tokens: Vec<Vec<u8>>, pattern: &str) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::Tokens { reason });
        if tokens.len() >= NONE as usize {
            return bad(format!("{} tokens are too many", tokens.len()));
        }
        let mut ids = FxHashMap::default();
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return bad(format!("token {id} is empty"));
            }
            if let Some(earlier) = ids.insert(token.clone(), id as u32) {
                let bytes = token.escape_ascii();
                return bad(format!("tokens {earlier} and {id} are the same: b\"{bytes}\""));
            }
        }
        let mut byte_ids = [NONE; 256];
        for byte in 0..=u8::MAX {
            match ids.get([byte].as_slice()) {
                Some(&id) => byte_ids[byte as usize] = id,
                None => return bad(format!("the single byte {byte} is missing; all 256 are needed")),
            }
        }
        let pairs = all_pairs(&tokens, &ids);
        Ok(Self { splitter: Splitter::new(pattern)?, tokens, ids, byte_ids, pairs })
    }

    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The ids of `text`, which must be shorter than 4 GiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if text.len() >= NONE as usize {
            return Err(Error::TooLarge { bytes: text.len() });
        }
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut ranks = Vec::new();
        self.splitter.for_each(text, |piece| match self.ids.get(piece.as_bytes()) {
            Some(&id) => ids.push(id),
            None if piece.len() <= SHORT => self.merge_short(piece.as_bytes(), &mut ranks, &mut ids),
            None => self.merge_long(piece.as_bytes(), &mut ids),
        })?;
        Ok(ids)
    }

    /// Encodes each text, on `threads` threads (0: all cores) or as many as pay.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        threads: usize,
    ) -> Result<Vec<Vec<u32>>, Error> {
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let threads = thread_count(threads).min(texts.len()).min(bytes / BYTES_PER_THREAD);
        if threads < 2 {
            return texts.iter().map(|text| self.encode(text.as_ref())).collect();
        }
        thread_pool(threads)?.install(|| texts.par_iter().map(|text| self.encode(text.as_ref())).collect())
    }

    pub fn decode(&self, ids: &[i64]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let token = usize::try_from(id).ok().and_then(|index| self.tokens.get(index));
            let token = token.ok_or(Error::UnknownId { id, n_tokens: self.tokens.len() })?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// The id of the two tokens joined, which is the rank of the pair.
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(&(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the tokens of `piece` to `ids`. Quadratic, and the fastest way for a word.
    /// `ranks` is a buffer: the rank of each pair of adjacent tokens of the piece.
    fn merge_short(&self, piece: &[u8], ranks: &mut Vec<u32>, ids: &mut Vec<u32>) {
        let base = ids.len();
        ids.extend(piece.iter().map(|&byte| self.byte_ids[byte as usize]));
        ranks.clear();
        ranks.extend(ids[base..].windows(2).map(|pair| self.rank(pair[0], pair[1])));
        while let Some((at, &rank)) = ranks.iter().enumerate().min_by_key(|&(_, &rank)| rank) {
            if rank == NONE {
                break;
            }
            ids[base + at] = rank;
            ids.remove(base + at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.rank(ids[base + at - 1], rank);
            }
            if at < ranks.len() {
                ranks[at] = self.rank(rank, ids[base + at + 1]);
            }
        }
    }

    /// Appends the tokens of `piece` to `ids` in n log n: a heap of pairs over a linked list.
    fn merge_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let n = piece.len();
        // Token i begins at byte i; `rank[i]` is that of the pair it opens, NONE also once it is gone.
        let mut id: Vec<u32> = piece.iter().map(|&byte| self.byte_ids[byte as usize]).collect();
        let mut rank: Vec<u32> =
            id.windows(2).map(|pair| self.rank(pair[0], pair[1])).chain([NONE]).collect();
        let mut next: Vec<u32> = (1..=n as u32).collect();
        let mut previous: Vec<u32> = (0..n as u32).map(|at| at.saturating_sub(1)).collect();
        let entry = |rank: u32, at: u32| (rank != NONE).then_some(Reverse((rank, at)));
        let mut heap: BinaryHeap<_> =
            rank.iter().zip(0..).filter_map(|(&rank, at)| entry(rank, at)).collect();
        while let Some(Reverse((lowest, start))) = heap.pop() {
            let at = start as usize;
            if rank[at] != lowest {
                continue;
            }
            let gone = next[at] as usize;
            let after = next[gone] as usize;
            (id[at], next[at]) = (lowest, after as u32);
            (rank[at], rank[gone]) = (NONE, NONE);
            if after < n {
                previous[after] = start;
                rank[at] = self.rank(lowest, id[after]);
                heap.extend(entry(rank[at], start));
            }
            if at > 0 {
                let before = previous[at];
                rank[before as usize] = self.rank(id[before as usize], lowest);
                heap.extend(entry(rank[before as usize], before));
            }
        }
        let starts = std::iter::successors(Some(0), |&at| Some(next[at] as usize).filter(|&at| at < n));
        ids.extend(starts.map(|at| id[at]));
    }
}

/// The rows one after another, and where each begins, with the end of the last.
pub fn flatten(rows: &[Vec<u32>]) -> (Vec<u32>, Vec<u64>) {
    let mut offsets = vec![0];
    let mut ids = Vec::with_capacity(rows.iter().map(Vec::len).sum());
    for row in rows {
        ids.extend_from_slice(row);
        offsets.push(ids.len() as u64);
    }
    (ids, offsets)
}

fn all_pairs(tokens: &[Vec<u8>], ids: &FxHashMap<Vec<u8>, u32>) -> FxHashMap<(u32, u32), u32> {
    let mut pairs = FxHashMap::default();
    for (id, token) in tokens.iter().enumerate() {
        for cut in 1..token.len() {
            if let (Some(&left), Some(&right)) = (ids.get(&token[..cut]), ids.get(&token[cut..])) {
                pairs.insert((left, right), id as u32);
            }
        }
    }
    pairs
}
