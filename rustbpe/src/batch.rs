//! Many texts at once, on several threads; a text that arrives bit by bit.
//!
//! What it is not: the encoding of a text (`encode`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Mutex};
use std::{iter, thread};

use crate::encode::{Encoder, Scratch};
use crate::error::Error;
use crate::thread_count;

/// Text that a thread takes at a time: small enough to share evenly, large enough to be worth a thread.
const BLOCK_BYTES: usize = 1 << 15;

/// Some ids of a batch, in the order of the texts. A long text may begin in an earlier block or go on in the
/// next one.
#[derive(Default)]
pub struct Block {
    pub ids: Vec<u32>,
    /// Where in `ids` those of each text end that ends here.
    pub ends: Vec<usize>,
}

/// A text, or as much of it as goes to one thread, and whether it is the last of its text.
type Part<'t> = (&'t str, bool);

impl Encoder {
    /// Encodes the texts and calls `each` with the blocks in order, while other threads encode the next
    /// ones, on `threads` threads (0: all cores), this one included, or as many as pay.
    pub fn encode_batch<T: AsRef<str>, E: From<Error>>(
        &self,
        texts: &[T],
        threads: usize,
        mut each: impl FnMut(&Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let parts = self.parts_of(texts);
        let blocks = blocks_of(&parts);
        let threads = if blocks.len() < 2 { 1 } else { thread_count(threads).min(blocks.len()) };
        let next = AtomicUsize::new(0);
        // To fill the same memory again spares the system the giving, taking and clearing of pages.
        let spent = Mutex::new(Vec::new());
        let encode = |scratch: &mut Scratch| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let block = spent.lock().ok().and_then(|mut spent| spent.pop()).unwrap_or_default();
            blocks.get(index).map(|range| (index, self.encode_block(&parts[range.clone()], scratch, block)))
        };
        thread::scope(|scope| {
            let (done, arriving) = mpsc::channel();
            for _ in 1..threads {
                let done = done.clone();
                let work = move |scratch: &mut Scratch| {
                    iter::from_fn(|| encode(scratch)).try_for_each(|block| done.send(block))
                };
                // What a thread that the system refuses would have done, this one does.
                let _refused = thread::Builder::new().spawn_scoped(scope, || self.with_scratch(work));
            }
            drop(done);
            self.with_scratch(|scratch| {
                let mut ready = BTreeMap::new();
                for wanted in 0..blocks.len() {
                    let block = loop {
                        ready.extend(arriving.try_iter());
                        if let Some(block) = ready.remove(&wanted) {
                            break block;
                        }
                        match encode(scratch).or_else(|| arriving.recv().ok()) {
                            Some((index, block)) => drop(ready.insert(index, block)),
                            None => return Ok(()), // a thread has panicked: the scope passes that on
                        }
                    };
                    let block = block?;
                    each(&block)?;
                    if let Ok(mut spent) = spent.lock() {
                        spent.push(block);
                    }
                }
                Ok(())
            })
        })
    }

    fn parts_of<'t, T: AsRef<str>>(&self, texts: &'t [T]) -> Vec<Part<'t>> {
        let mut parts = Vec::with_capacity(texts.len());
        for text in texts {
            let mut rest = text.as_ref();
            while rest.len() > 2 * BLOCK_BYTES && self.cuts_at_blanks() {
                let Some(cut) = first_cut(rest, BLOCK_BYTES) else { break };
                parts.push((&rest[..cut], false));
                rest = &rest[cut..];
            }
            parts.push((rest, true));
        }
        parts
    }

    /// Fills `block`, whose old content goes.
    fn encode_block(&self, parts: &[Part], scratch: &mut Scratch, mut block: Block) -> Result<Block, Error> {
        block.ids.clear();
        block.ends.clear();
        for &(text, is_last) in parts {
            self.encode_into(text, scratch, &mut block.ids)?;
            block.ends.extend(is_last.then_some(block.ids.len()));
        }
        Ok(block)
    }
}

/// Neighbouring parts of at least `BLOCK_BYTES` together, or the rest.
fn blocks_of(parts: &[Part]) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, part) in parts.iter().enumerate() {
        bytes += part.0.len();
        if bytes >= BLOCK_BYTES || index + 1 == parts.len() {
            blocks.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    blocks
}

/// The first place from byte `from` on where `text` may be cut: before a blank that follows a non-blank.
fn first_cut(text: &str, from: usize) -> Option<usize> {
    let blanks = text.as_bytes()[from..].iter().enumerate().filter(|&(_, &byte)| byte == b' ');
    blanks.map(|(at, _)| from + at).find(|&at| is_cut(text, at))
}

/// Whether no hand-written pattern looks across the blank at byte `at`: a non-blank stands before it.
fn is_cut(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(|before| !before.is_whitespace())
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
        blanks.find(|&at| is_cut(&self.waiting, at))
    }
}
