//! Text to token ids and back, with the ids that tiktoken gives for the same ranks.
//!
//! A token's id is its rank: its index in the list. A piece that is a token becomes that token;
//! in any other piece, of all adjacent tokens whose bytes together are a token, the pair with the
//! lowest rank is joined, the leftmost first, until none is left. What it is not: a place for special
//! tokens; their strings are ordinary text here.

use std::sync::Mutex;

use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::merge::{Merges, NONE};
use crate::short::{hash, pack, Table};
use crate::split::Splitter;

/// Merged pieces that a call remembers (a power of two), if they have at most so many tokens.
const RECENT_PIECES: usize = 1 << 13;
const RECENT_IDS: usize = 7;
/// Scratch memories kept for later calls.
const MAX_IDLE: usize = 64;

pub struct Encoder {
    splitter: Splitter,
    /// Ids of the tokens of up to `short::MAX_BYTES` bytes, and of the others.
    short_ids: Table<u32>,
    long_ids: FxHashMap<Vec<u8>, u32>,
    merges: Merges,
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
        let merges = Merges::new(tokens, &ids, byte_ids);
        let mut short_ids = Table::with_capacity(ids.len());
        let mut long_ids = FxHashMap::default();
        for (token, id) in ids {
            match pack(&token) {
                Some(key) => *short_ids.entry(key) = id,
                None => drop(long_ids.insert(token, id)),
            }
        }
        Ok(Self { splitter: Splitter::new(pattern)?, short_ids, long_ids, merges, idle: Mutex::default() })
    }

    /// The same encoder with another size of window, at least 1 byte; for tests, since ids do not depend on it.
    pub fn with_window(mut self, bytes: usize) -> Self {
        self.merges.window = bytes.max(1);
        self
    }

    pub fn n_tokens(&self) -> usize {
        self.merges.tokens().len()
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
                None => self.merges.merge(piece, &mut scratch.ranks, ids),
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
        self.merges.merge_short(piece, &mut scratch.ranks, ids);
        let merged = &ids[start..];
        if merged.len() <= RECENT_IDS {
            (recent.key, recent.n) = (key, merged.len() as u32);
            recent.ids[..merged.len()].copy_from_slice(merged);
        }
    }

    pub fn decode(&self, ids: &[i64]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let token = usize::try_from(id).ok().and_then(|index| self.merges.tokens().get(index));
            let token = token.ok_or(Error::UnknownId { id, n_tokens: self.merges.tokens().len() })?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }
}
