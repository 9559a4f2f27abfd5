//! Many texts at once, on several threads; a text that arrives bit by bit.
//!
//! What it is not: the encoding of a text (`encode`).

use std::ops::Range;

use rayon::prelude::*;

use crate::encode::Encoder;
use crate::error::Error;
use crate::{thread_count, thread_pool};

/// A thread is not worth starting for less text than this.
const BYTES_PER_THREAD: usize = 1 << 15;
/// Text that a thread takes at a time: small enough to share evenly, large enough not to ask often.
const BLOCK_BYTES: usize = 1 << 15;

/// The ids of many texts, in the order of the texts.
#[derive(Default)]
pub struct Batch(Vec<Block>);

/// The ids of some texts in a row, and where those of each text end.
#[derive(Default)]
struct Block {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Batch {
    /// The ids of each text.
    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.0.iter().flat_map(|block| {
            let starts = std::iter::once(0).chain(block.ends.iter().copied());
            starts.zip(&block.ends).map(|(start, &end)| &block.ids[start..end])
        })
    }

    /// All ids, in pieces.
    pub fn ids(&self) -> impl Iterator<Item = &[u32]> {
        self.0.iter().map(|block| block.ids.as_slice())
    }

    pub fn n_rows(&self) -> usize {
        self.0.iter().map(|block| block.ends.len()).sum()
    }

    pub fn n_ids(&self) -> usize {
        self.0.iter().map(|block| block.ids.len()).sum()
    }
}

impl Encoder {
    /// Encodes each text, on `threads` threads (0: all cores) or as many as pay.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T], threads: usize) -> Result<Batch, Error> {
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let most = texts.len().min(bytes / BYTES_PER_THREAD);
        let threads = if most < 2 { 1 } else { thread_count(threads).min(most) };
        if threads < 2 {
            return Ok(Batch(vec![self.encode_block(texts)?]));
        }
        let blocks = blocks_of(texts);
        let encode = |block: Range<usize>| self.encode_block(&texts[block]);
        // One block at a time: the work of the last ones is what the threads share evenly.
        let encoded = || blocks.into_par_iter().with_max_len(1).map(encode).collect::<Result<_, _>>();
        thread_pool(threads)?.install(encoded).map(Batch)
    }

    fn encode_block<T: AsRef<str>>(&self, texts: &[T]) -> Result<Block, Error> {
        let mut block = Block::default();
        self.with_scratch(|scratch| {
            for text in texts {
                self.encode_into(text.as_ref(), scratch, &mut block.ids)?;
                block.ends.push(block.ids.len());
            }
            Ok(block)
        })
    }
}

/// Neighbouring texts of at least `BLOCK_BYTES` together, or the rest.
fn blocks_of<T: AsRef<str>>(texts: &[T]) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, text) in texts.iter().enumerate() {
        bytes += text.as_ref().len();
        if bytes >= BLOCK_BYTES || index + 1 == texts.len() {
            blocks.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    blocks
}

/// A text that arrives in pieces; its ids as soon as no later piece can change them.
///
/// The ids are those of the whole text. What waits is the text from the last blank that follows a
/// non-blank on: no hand-written pattern looks across that place. With another pattern all of it waits.
#[derive(Default)]
pub struct Stream {
    waiting: String,
    /// Where the search for a blank goes on.
    searched: usize,
}

impl Stream {
    /// The ids that `text`, at the end of what came before, has made certain.
    pub fn push(&mut self, encoder: &Encoder, text: &str) -> Result<Vec<u32>, Error> {
        self.waiting.push_str(text);
        if !encoder.cuts_at_blanks() {
            return Ok(Vec::new());
        }
        let cut = self.last_cut();
        self.searched = self.waiting.len();
        let Some(cut) = cut else { return Ok(Vec::new()) };
        let ids = encoder.encode(&self.waiting[..cut])?;
        self.waiting.drain(..cut);
        self.searched -= cut;
        Ok(ids)
    }

    /// The ids of the rest; the stream is then as new.
    pub fn finish(&mut self, encoder: &Encoder) -> Result<Vec<u32>, Error> {
        let rest = std::mem::take(self);
        encoder.encode(&rest.waiting)
    }

    /// The last blank after a non-blank, in what has not been searched yet.
    fn last_cut(&self) -> Option<usize> {
        let mut blanks = self.waiting[self.searched..].rmatch_indices(' ').map(|(at, _)| self.searched + at);
        blanks
            .find(|&at| self.waiting[..at].chars().next_back().is_some_and(|before| !before.is_whitespace()))
    }
}
