//! Trains a byte-level BPE vocabulary.
//!
//! [`WordCounts`] takes text in chunks and keeps only the distinct pieces and how often each occurs;
//! [`merge`] then makes the tokens. The rule: merge the pair of adjacent tokens that occurs most
//! often (overlapping occurrences count; `aaa` holds `aa` twice), of equally frequent pairs the one
//! with the smallest (left id, right id), everywhere, left to right. So the result depends on the
//! counts alone: not on threads, chunks or the order of documents. What it is not: a reader of files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use rayon::ThreadPool;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::error::Error;
use crate::short::{pack, unpack, Table};
use crate::split::Splitter;

/// Text counted at once; bounds what training holds besides the distinct words.
const CHUNK_BYTES: usize = 16 << 20;
/// What a document in a chunk takes besides its text.
const DOCUMENT_BYTES: usize = 64;
/// Merges between two calls of the interruption check (some milliseconds).
const MERGES_PER_POLL: usize = 256;
/// A cell that is neither the first nor the last byte of a token.
const INSIDE: u32 = u32::MAX;
/// A cell between two words.
const GAP: u32 = u32::MAX - 1;
/// Ids stay well below the two marks.
const MAX_TOKENS: usize = 1 << 31;

/// How much text to use, in characters.
pub struct Limits {
    pub of_document: usize,
    pub in_all: usize,
}

/// How often each distinct piece occurs.
#[derive(Default)]
pub struct Words {
    short: Table<u64>,
    long: FxHashMap<Box<[u8]>, u64>,
}

impl Words {
    #[inline]
    pub fn add(&mut self, word: &[u8], count: u64) {
        match pack(word) {
            Some(key) => *self.short.entry(key) += count,
            None => match self.long.get_mut(word) {
                Some(total) => *total += count,
                None => drop(self.long.insert(word.into(), count)),
            },
        }
    }

    fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        self.short.iter().for_each(|(key, count)| visit(unpack(key).bytes(), count));
        self.long.iter().for_each(|(word, &count)| visit(word, count));
    }
}

/// Words and the documents that wait to be counted; `D` is whatever holds the text of one.
pub struct WordCounts<D> {
    splitter: Splitter,
    limits: Limits,
    /// One for each thread.
    words: Vec<Words>,
    /// Documents and how much of each to read.
    chunk: Vec<(D, usize)>,
    chunk_bytes: usize,
}

impl<D: AsRef<str> + Sync> WordCounts<D> {
    pub fn new(splitter: Splitter, limits: Limits) -> Self {
        Self { splitter, limits, words: Vec::new(), chunk: Vec::new(), chunk_bytes: 0 }
    }

    /// Takes a document, cut to the limits. Call [`Self::count`] when it returns true.
    pub fn push(&mut self, document: D) -> bool {
        let text = document.as_ref();
        let n = self.limits.of_document.min(self.limits.in_all);
        let end = match text.len() <= n {
            true => text.len(),
            false => text.char_indices().nth(n).map_or(text.len(), |(end, _)| end),
        };
        self.limits.in_all -= text[..end].chars().count();
        self.chunk_bytes += text.len() + DOCUMENT_BYTES; // the whole document waits, however little is read
        self.chunk.push((document, end));
        self.chunk_bytes >= CHUNK_BYTES
    }

    /// Whether the limit of all text is reached.
    pub fn is_full(&self) -> bool {
        self.limits.in_all == 0
    }

    /// Counts the waiting text on the threads of `pool`.
    pub fn count(&mut self, pool: &ThreadPool) -> Result<(), Error> {
        self.words.resize_with(pool.current_num_threads(), Words::default);
        let (splitter, chunk, next) = (&self.splitter, &self.chunk, AtomicUsize::new(0));
        let count_some = |words: &mut Words| {
            while let Some((document, end)) = chunk.get(next.fetch_add(1, Ordering::Relaxed)) {
                splitter.for_each(&document.as_ref()[..*end], |word| words.add(word.as_bytes(), 1))?;
            }
            Ok(())
        };
        pool.install(|| self.words.par_iter_mut().try_for_each(count_some))?;
        self.chunk.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    /// Counts what still waits and makes the vocabulary: see [`merge`].
    pub fn into_tokens<E: From<Error>>(
        mut self,
        vocab_size: usize,
        pool: &ThreadPool,
        poll: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Vec<u8>>, E> {
        self.count(pool)?;
        let mut all = self.words.pop().unwrap_or_default();
        for words in self.words.drain(..) {
            words.for_each(|word, count| all.add(word, count));
        }
        merge(all, vocab_size, poll)
    }
}

/// The tokens in the order of their ids: the 256 bytes, then one for each merge, `vocab_size` in all
/// or fewer if no pair is left. `poll` is called now and then with the number of tokens made; its error
/// ends the work.
///
/// Linear in the text but for a logarithm: each merge visits only the places where its pair stands.
pub fn merge<E: From<Error>>(
    words: Words,
    vocab_size: usize,
    mut poll: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Vec<u8>>, E> {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let mut text = Text::new(&words)?;
    drop(words);
    let mut pairs = text.byte_pairs();
    let mut heap: BinaryHeap<_> = pairs.iter().map(|(&pair, entry)| (entry.count, Reverse(pair))).collect();
    let mut fresh = Vec::new();
    while tokens.len() < vocab_size.min(MAX_TOKENS) {
        let Some((count, Reverse(pair))) = heap.pop() else { break };
        let Some(entry) = pairs.get(&pair) else { continue };
        // Counts only ever fall once a pair is in the heap: put a stale one back where it belongs.
        if entry.count != count || count == 0 {
            match entry.count {
                0 => drop(pairs.remove(&pair)),
                now => heap.push((now, Reverse(pair))),
            }
            continue;
        }
        let Some(entry) = pairs.remove(&pair) else { continue };
        let id = tokens.len() as u32;
        let joined = [tokens[pair.0 as usize].as_slice(), tokens[pair.1 as usize].as_slice()].concat();
        text.lengths.push(joined.len() as u32);
        tokens.push(joined);
        for &at in &entry.places {
            text.join(at as usize, pair, id, &mut pairs, &mut fresh);
        }
        heap.extend(fresh.drain(..).filter_map(|pair| Some((pairs.get(&pair)?.count, Reverse(pair)))));
        if tokens.len() % MERGES_PER_POLL == 0 {
            poll(tokens.len())?;
        }
    }
    Ok(tokens)
}

type Pair = (u32, u32);
type Pairs = FxHashMap<Pair, Entry>;

#[derive(Default, Clone)]
struct Entry {
    /// Occurrences in the text, each word as often as it occurs.
    count: u64,
    /// Ascending offsets of the left tokens, some of them outdated. All are known when the pair is
    /// new: each pair but those of bytes holds a token that one merge has just made.
    /// Most pairs stand in few places: those need no memory of their own.
    places: SmallVec<[u32; 4]>,
}

/// All distinct words, one cell a byte, a gap before, between and after them.
///
/// The first and the last cell of a token hold its id. With the tokens' lengths that makes a list
/// linked in both directions: the next token begins `len` cells on, the previous one ends one back.
struct Text {
    cells: Vec<u32>,
    /// For each cell the index of its word.
    word_of: Vec<u32>,
    counts: Vec<u64>,
    /// Bytes of each token.
    lengths: Vec<u32>,
}

impl Text {
    fn new(words: &Words) -> Result<Self, Error> {
        let (mut bytes, mut n) = (1, 0);
        words.for_each(|word, _| (bytes, n) = (bytes + word.len() + 1, n + 1));
        if bytes >= u32::MAX as usize {
            return Err(Error::TooLarge { bytes });
        }
        let mut text = Self {
            cells: Vec::with_capacity(bytes),
            word_of: Vec::with_capacity(bytes),
            counts: Vec::with_capacity(n),
            lengths: vec![1; 256],
        };
        text.cells.push(GAP);
        words.for_each(|word, count| {
            text.cells.extend(word.iter().copied().map(u32::from));
            text.cells.push(GAP);
            text.word_of.resize(text.cells.len(), text.counts.len() as u32);
            text.counts.push(count);
        });
        Ok(text)
    }

    fn byte_pairs(&self) -> Pairs {
        let mut table = vec![Entry::default(); 1 << 16];
        for (at, cells) in self.cells.windows(2).enumerate() {
            if cells[0] != GAP && cells[1] != GAP {
                let entry = &mut table[(cells[0] << 8 | cells[1]) as usize];
                entry.count += self.counts[self.word_of[at] as usize];
                entry.places.push(at as u32);
            }
        }
        let pairs =
            table.into_iter().enumerate().map(|(key, entry)| ((key as u32 >> 8, key as u32 & 255), entry));
        pairs.filter(|(_, entry)| entry.count > 0).collect()
    }

    /// Makes the pair that stands at `at` the token `id`, if it still stands there, and keeps the
    /// counts of the pairs around it. New pairs are added to `fresh`.
    fn join(&mut self, at: usize, pair: Pair, id: u32, pairs: &mut Pairs, fresh: &mut Vec<Pair>) {
        let (left, right) = pair;
        let middle = at + self.lengths[left as usize] as usize;
        if self.cells[at] != left || self.cells[middle] != right {
            return;
        }
        let end = middle + self.lengths[right as usize] as usize;
        let count = self.counts[self.word_of[at] as usize];
        let (before, after) = (self.cells[at - 1], self.cells[end]);
        // The inner ends first: one-byte tokens have both ends in one cell.
        (self.cells[middle - 1], self.cells[middle]) = (INSIDE, INSIDE);
        (self.cells[at], self.cells[end - 1]) = (id, id);
        let mut replace = |old: Pair, new: Pair, place: usize| {
            if let Some(entry) = pairs.get_mut(&old) {
                entry.count -= count;
            }
            let entry = pairs.entry(new).or_insert_with(|| {
                fresh.push(new);
                Entry::default()
            });
            entry.count += count;
            entry.places.push(place as u32);
        };
        if before != GAP {
            replace((before, left), (before, id), at - self.lengths[before as usize] as usize);
        }
        if after != GAP {
            replace((right, after), (id, after), at);
        }
    }
}
