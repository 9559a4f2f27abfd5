//! Text to token ids and back, with the ids that tiktoken gives for the same ranks.
//!
//! A token's id is its rank: its index in the list. A piece that is a token becomes that token;
//! in any other piece, of all adjacent tokens whose bytes together are a token, the pair with the
//! lowest rank is joined, the leftmost first, until none is left. What it is not: a place for special
//! tokens; their strings are ordinary text here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;

use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::short::{hash, pack, Table};
use crate::split::Splitter;

/// No pair: larger than any rank.
const NONE: u32 = u32::MAX;
/// Up to this many bytes a scan for the lowest rank is faster than a heap.
const SHORT: usize = 100;
/// Merged pieces that a call remembers (a power of two), if they have at most so many tokens.
const RECENT_PIECES: usize = 1 << 13;
const RECENT_IDS: usize = 7;
/// Scratch memories kept for later calls.
const MAX_IDLE: usize = 64;

pub struct Encoder {
    splitter: Splitter,
    tokens: Vec<Vec<u8>>,
    /// Ids of the tokens of up to `short::MAX_BYTES` bytes, and of the others.
    short_ids: Table<u32>,
    long_ids: FxHashMap<Vec<u8>, u32>,
    byte_ids: [u32; 256],
    /// Bytes of each token.
    lengths: Vec<u32>,
    /// (left id, right id) to the id of their joined bytes, for every way to cut a token in two.
    pairs: FxHashMap<(u32, u32), u32>,
    /// Scratch memory of calls that have ended.
    idle: Mutex<Vec<Scratch>>,
}

/// What a call needs besides its output: a buffer, and the tokens of pieces it has lately merged.
pub(crate) struct Scratch {
    ranks: Vec<u32>,
    recent: Vec<Recent>,
}

/// A merged piece and its tokens.
#[derive(Clone, Copy, Default)]
struct Recent {
    key: u128,
    n: u32,
    ids: [u32; RECENT_IDS],
}

impl Scratch {
    fn new() -> Self {
        Self { ranks: Vec::new(), recent: vec![Recent::default(); RECENT_PIECES] }
    }
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
        let mut short_ids = Table::with_capacity(ids.len());
        let mut long_ids = FxHashMap::default();
        for (token, id) in ids {
            match pack(&token) {
                Some(key) => *short_ids.entry(key) = id,
                None => drop(long_ids.insert(token, id)),
            }
        }
        let idle = Mutex::new(Vec::new());
        let lengths = tokens.iter().map(|token| token.len() as u32).collect();
        Ok(Self {
            splitter: Splitter::new(pattern)?,
            tokens,
            short_ids,
            long_ids,
            byte_ids,
            lengths,
            pairs,
            idle,
        })
    }

    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// See [`Splitter::cuts_at_blanks`].
    pub fn cuts_at_blanks(&self) -> bool {
        self.splitter.cuts_at_blanks()
    }

    /// The ids of `text`, which must be shorter than 4 GiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.with_scratch(|scratch| self.encode_into(text, scratch, &mut ids)).map(|()| ids)
    }

    /// Appends the ids of `text` to `ids`.
    pub(crate) fn encode_into(
        &self,
        text: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        if text.len() >= NONE as usize {
            return Err(Error::TooLarge { bytes: text.len() });
        }
        self.splitter.for_each(text, |piece| self.encode_piece(piece.as_bytes(), scratch, ids))
    }

    /// Calls `work` with scratch memory, that of an earlier call if some is idle.
    pub(crate) fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut scratch = kept.unwrap_or_else(Scratch::new);
        let result = work(&mut scratch);
        if let Ok(mut idle) = self.idle.lock() {
            if idle.len() < MAX_IDLE {
                idle.push(scratch);
            }
        }
        result
    }

    #[inline]
    fn encode_piece(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Some(key) = pack(piece) else {
            return match self.long_ids.get(piece) {
                Some(&id) => ids.push(id),
                None if piece.len() <= SHORT => self.merge_short(piece, &mut scratch.ranks, ids),
                None => self.merge_long(piece, ids),
            };
        };
        if let Some(id) = self.short_ids.get(key) {
            return ids.push(id);
        }
        let recent = &mut scratch.recent[hash(key) as usize & (RECENT_PIECES - 1)];
        if recent.key == key {
            return ids.extend_from_slice(&recent.ids[..recent.n as usize]);
        }
        let start = ids.len();
        self.merge_short(piece, &mut scratch.ranks, ids);
        let merged = &ids[start..];
        if merged.len() <= RECENT_IDS {
            (recent.key, recent.n) = (key, merged.len() as u32);
            recent.ids[..merged.len()].copy_from_slice(merged);
        }
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

    /// Appends the tokens of `piece` to `ids`, in time that grows with its length and hardly faster: the
    /// pairs wait by rank, and those of one rank are joined from left to right.
    fn merge_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let cells: Vec<u32> = piece.iter().map(|&byte| self.byte_ids[byte as usize]).collect();
        let ranks = cells.windows(2).map(|pair| self.rank(pair[0], pair[1])).chain([NONE]).collect();
        let mut long = Long { cells, ranks, queue: Queue::default() };
        for (at, &rank) in (0..).zip(&long.ranks) {
            long.queue.push(rank, at);
        }
        while let Some((rank, places)) = long.queue.pop() {
            let mut places = places.into_iter();
            while let Some(at) = places.next() {
                // Only a vocabulary that no training gives has a pair that comes before its own parts.
                if long.ranks[at as usize] == rank && self.join(&mut long, at) < rank {
                    places.by_ref().for_each(|at| long.queue.push(rank, at));
                }
            }
        }
        let mut at = 0;
        while let Some(&id) = long.cells.get(at) {
            ids.push(id);
            at += self.length(id);
        }
    }

    /// Joins the pair that opens at `at` and returns the lower rank of the two new ones.
    fn join(&self, long: &mut Long, at: u32) -> u32 {
        let start = at as usize;
        let id = long.ranks[start];
        let (middle, end) = (start + self.length(long.cells[start]), start + self.length(id));
        long.ranks[middle] = NONE;
        (long.cells[start], long.cells[end - 1]) = (id, id);
        let right = long.cells.get(end).map_or(NONE, |&next| self.rank(id, next));
        long.ranks[start] = right;
        long.queue.push(right, at);
        if start == 0 {
            return right;
        }
        let before = long.cells[start - 1];
        let (left, opens) = (self.rank(before, id), start - self.length(before));
        long.ranks[opens] = left;
        long.queue.push(left, opens as u32);
        right.min(left)
    }

    #[inline]
    fn length(&self, id: u32) -> usize {
        self.lengths[id as usize] as usize
    }
}

/// A long piece, a cell for each byte. The first and the last cell of a token hold its id, which with the
/// tokens' lengths leads from token to token in both directions.
struct Long {
    cells: Vec<u32>,
    /// At a token's first byte the rank of the pair it opens; NONE also once it is gone.
    ranks: Vec<u32>,
    queue: Queue,
}

/// Places to join, the lowest rank first. To sort places by rank costs less than a heap of places.
#[derive(Default)]
struct Queue {
    ranks: BinaryHeap<Reverse<u32>>,
    places: FxHashMap<u32, Vec<u32>>,
}

impl Queue {
    #[inline]
    fn push(&mut self, rank: u32, at: u32) {
        if rank != NONE {
            let places = self.places.entry(rank).or_insert_with(|| {
                self.ranks.push(Reverse(rank));
                Vec::new()
            });
            places.push(at);
        }
    }

    /// The lowest rank and its places, in order; some are outdated.
    fn pop(&mut self) -> Option<(u32, Vec<u32>)> {
        let Reverse(rank) = self.ranks.pop()?;
        let mut places = self.places.remove(&rank)?;
        places.sort_unstable();
        Some((rank, places))
    }
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
