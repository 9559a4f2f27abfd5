//! The tokens of a piece that is none itself: the lowest rank first, the leftmost of equals.
//!
//! Three ways with one result: cut where no token can span, scan a short part, keep the pairs of a long
//! one in a queue. What it is not: the way a text is split into pieces (`split`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

/// No pair: larger than any rank.
pub(crate) const NONE: u32 = u32::MAX;
/// Up to this many bytes a scan for the lowest rank is faster than a queue.
const SHORT: usize = 100;
/// Bytes of a longer piece that are merged at a time: what that needs stays in a core's cache.
const WINDOW: usize = 1 << 15;
/// Tokens before a window that are merged again with it.
const TOKENS_AGAIN: usize = 4;

/// The tokens and what joins to what.
pub(crate) struct Merges {
    tokens: Vec<Vec<u8>>,
    byte_ids: [u32; 256],
    /// Bytes of each token.
    lengths: Vec<u32>,
    /// (left id, right id) to the id of their joined bytes, for every way to cut a token in two.
    pairs: FxHashMap<(u32, u32), u32>,
    neighbours: Neighbours,
    pub(crate) window: usize,
}

impl Merges {
    /// `ids` is where each token stands in `tokens`; all 256 bytes must.
    pub(crate) fn new(tokens: Vec<Vec<u8>>, ids: &FxHashMap<Vec<u8>, u32>, byte_ids: [u32; 256]) -> Self {
        let mut pairs = FxHashMap::default();
        for (id, token) in (0..).zip(&tokens) {
            for (left, right) in (1..token.len()).map(|cut| token.split_at(cut)) {
                if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                    pairs.insert((left, right), id);
                }
            }
        }
        let lengths = tokens.iter().map(|token| token.len() as u32).collect();
        let neighbours = Neighbours::of(&tokens);
        Self { tokens, byte_ids, lengths, pairs, neighbours, window: WINDOW }
    }

    pub(crate) fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    /// Appends the tokens of `piece`, which is none itself, to `ids`: those of its parts that no token spans.
    pub(crate) fn merge(&self, piece: &[u8], ranks: &mut Vec<u32>, ids: &mut Vec<u32>) {
        for part in piece.chunk_by(|&left, &right| self.neighbours.contain(left, right)) {
            match part.len() {
                1 => ids.push(self.byte_ids[part[0] as usize]),
                2..=SHORT => self.merge_short(part, ranks, ids),
                _ => self.merge_long(part, ids),
            }
        }
    }

    /// Appends the tokens of `piece` to `ids`. Quadratic, and the fastest way for a word.
    /// `ranks` is a buffer: the rank of each pair of adjacent tokens of the piece.
    pub(crate) fn merge_short(&self, piece: &[u8], ranks: &mut Vec<u32>, ids: &mut Vec<u32>) {
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

    /// Appends the tokens of `piece` to `ids`, a window of it after the other. Linear for any text.
    ///
    /// Two encoded texts, joined, are the encoding of both unless a merge reaches across the joint; and the
    /// first that would do so needs no more than the two tokens there. So a window begins a few tokens
    /// back, and if its first token does not stand beside the last one kept, further back.
    fn merge_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let base = ids.len();
        let (mut end, mut again) = (0, TOKENS_AGAIN); // `ids[base..]` encodes `piece[..end]`
        while end < piece.len() {
            let kept = base.max(ids.len().saturating_sub(again));
            let start = end - ids[kept..].iter().map(|&id| self.length(id)).sum::<usize>();
            let stop = piece.len().min(end + self.window.max(end - start));
            let merged = self.merge_window(&piece[start..stop]);
            if kept > base && !self.stand_apart(ids[kept - 1], merged[0]) {
                again *= 2;
                continue;
            }
            ids.truncate(kept);
            ids.extend(merged);
            (end, again) = (stop, TOKENS_AGAIN);
        }
    }

    /// Whether the bytes of both encode to the two of them.
    fn stand_apart(&self, left: u32, right: u32) -> bool {
        let bytes = [self.tokens[left as usize].as_slice(), &self.tokens[right as usize]].concat();
        let mut ids = Vec::with_capacity(bytes.len());
        self.merge_short(&bytes, &mut Vec::new(), &mut ids);
        ids == [left, right]
    }

    /// The tokens of `piece`, in time that grows with its length and hardly faster: the pairs wait by rank,
    /// and those of one rank are joined from left to right.
    fn merge_window(&self, piece: &[u8]) -> Vec<u32> {
        let id = |byte: u8| self.byte_ids[byte as usize];
        let ranks = piece.windows(2).map(|pair| self.rank(id(pair[0]), id(pair[1]))).chain([NONE]);
        let cells = piece.iter().zip(ranks).map(|(&byte, rank)| Cell { id: id(byte), rank }).collect();
        let mut long = Long { cells, queue: Queue::default() };
        for (at, cell) in (0..).zip(&long.cells) {
            long.queue.push(cell.rank, at);
        }
        while let Some((rank, places)) = long.queue.pop() {
            let mut places = places.into_iter();
            while let Some(at) = places.next() {
                // Only a vocabulary that no training gives has a pair that comes before its own parts.
                if long.cells[at as usize].rank == rank && self.join(&mut long, at) < rank {
                    places.by_ref().for_each(|at| long.queue.push(rank, at));
                }
            }
        }
        let mut ids = Vec::with_capacity(piece.len() / 2);
        let mut at = 0;
        while let Some(cell) = long.cells.get(at) {
            ids.push(cell.id);
            at += self.length(cell.id);
        }
        ids
    }

    /// Joins the pair that opens at `at` and returns the lower rank of the two new ones.
    fn join(&self, long: &mut Long, at: u32) -> u32 {
        let start = at as usize;
        let Cell { id: left, rank: id } = long.cells[start];
        let (middle, end) = (start + self.length(left), start + self.length(id));
        long.cells[middle].rank = NONE;
        long.cells[end - 1].id = id;
        let right = long.cells.get(end).map_or(NONE, |next| self.rank(id, next.id));
        long.cells[start] = Cell { id, rank: right };
        long.queue.push(right, at);
        if start == 0 {
            return right;
        }
        let before = long.cells[start - 1].id;
        let (left, opens) = (self.rank(before, id), start - self.length(before));
        long.cells[opens].rank = left;
        long.queue.push(left, opens as u32);
        right.min(left)
    }

    /// The id of the two tokens joined, which is the rank of the pair.
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(&(left, right)).copied().unwrap_or(NONE)
    }

    #[inline]
    fn length(&self, id: u32) -> usize {
        self.lengths[id as usize] as usize
    }
}

/// A long piece, a cell for each byte.
struct Long {
    cells: Vec<Cell>,
    queue: Queue,
}

/// The first and the last cell of a token hold its id, which with the tokens' lengths leads from token to
/// token in both directions; the first one also the rank of the pair that the token opens.
#[derive(Clone, Copy)]
struct Cell {
    id: u32,
    /// NONE also in the middle of a token.
    rank: u32,
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

/// Which two bytes stand side by side in some token. Between any other two, no merge ever reaches across.
struct Neighbours(Vec<bool>);

impl Neighbours {
    fn of(tokens: &[Vec<u8>]) -> Self {
        let mut known = vec![false; 1 << 16];
        for pair in tokens.iter().flat_map(|token| token.windows(2)) {
            known[Self::index(pair[0], pair[1])] = true;
        }
        Self(known)
    }

    #[inline]
    fn contain(&self, left: u8, right: u8) -> bool {
        self.0[Self::index(left, right)]
    }

    #[inline]
    fn index(left: u8, right: u8) -> usize {
        usize::from(left) << 8 | usize::from(right)
    }
}
