//! The hand-written splitters: one pass over the text, no backtracking but o200k's one step, no way to fail.
//!
//! Each `*_end` function is a pattern of `patterns`, alternative by alternative. What it is not: a regex
//! engine; `tests/split.rs` holds every family equal to one.

use regex_syntax::hir::{Class, HirKind};

use crate::error::Error;
use crate::patterns::Family;

/// What a character is: one bit each, so that a class is a mask.
type Kind = u8;
const OTHER: Kind = 1;
/// `\p{M}`: accents and signs that modify the character before them.
const MARK: Kind = 1 << 1;
/// `\p{Lu}\p{Lt}`, `\p{Ll}`, and the letters without case, `\p{Lm}\p{Lo}`.
const UPPER: Kind = 1 << 2;
const LOWER: Kind = 1 << 3;
const UNCASED: Kind = 1 << 4;
/// `\p{N}`
const NUMBER: Kind = 1 << 5;
/// `\s` without, and `[\r\n]`.
const BLANK: Kind = 1 << 6;
const NEWLINE: Kind = 1 << 7;

const LETTER: Kind = UPPER | LOWER | UNCASED;
/// `[^\s\p{L}\p{N}]`
const SYMBOL: Kind = OTHER | MARK;
const SPACE: Kind = BLANK | NEWLINE;
/// What may begin a word of o200k, and what may end one.
const HEAD: Kind = UPPER | UNCASED | MARK;
const TAIL: Kind = LOWER | UNCASED | MARK;

/// The kind of every code point.
pub struct Kinds(Box<[Kind]>);

impl Kinds {
    /// The classes come from the tables of the regex engine itself, so the hand-written splitters and the
    /// regex agree whatever Unicode version that is.
    pub fn new() -> Result<Self, Error> {
        let mut kinds = vec![OTHER; char::MAX as usize + 1];
        for (class, kind) in [
            (r"\p{M}", MARK),
            (r"[\p{Lu}\p{Lt}]", UPPER),
            (r"\p{Ll}", LOWER),
            (r"[\p{Lm}\p{Lo}]", UNCASED),
            (r"\p{N}", NUMBER),
            (r"\s", BLANK),
            (r"[\r\n]", NEWLINE),
        ] {
            let hir = regex_syntax::parse(class)
                .map_err(|e| Error::Pattern { pattern: class.into(), reason: e.to_string() })?;
            if let HirKind::Class(Class::Unicode(ranges)) = hir.kind() {
                for range in ranges.iter() {
                    kinds[range.start() as usize..=range.end() as usize].fill(kind);
                }
            }
        }
        Ok(Self(kinds.into_boxed_slice()))
    }
}

/// A text under a family's pattern. Positions are byte offsets at character boundaries.
pub struct Scan<'t, 'k> {
    pub text: &'t str,
    pub kinds: &'k Kinds,
}

impl<'t> Scan<'t, '_> {
    /// Calls `visit` with each piece in order.
    pub fn for_each(&self, family: Family, visit: impl FnMut(&'t str)) {
        match family {
            Family::Gpt2 => self.pieces(|start| self.gpt2_end(start), visit),
            Family::Gpt4 { max_digits, whole_end } => {
                self.pieces(|start| self.gpt4_end(start, max_digits, whole_end), visit)
            }
            Family::O200k => self.pieces(|start| self.o200k_end(start), visit),
        }
    }

    #[inline]
    fn pieces(&self, piece_end: impl Fn(usize) -> usize, mut visit: impl FnMut(&'t str)) {
        let mut start = 0;
        while start < self.text.len() {
            let end = piece_end(start);
            visit(&self.text[start..end]);
            start = end;
        }
    }

    /// `'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s`
    #[inline]
    fn gpt2_end(&self, start: usize) -> usize {
        let (kind, after) = self.at(start);
        let first = self.text.as_bytes()[start];
        if first == b'\'' {
            if let Some(end) = self.contraction_end(after).filter(|&end| self.is_lowercase(after, end)) {
                return end;
            }
        }
        let (run, from) = match first {
            b' ' => (self.at(after).0, after),
            _ => (kind, start),
        };
        match [LETTER, NUMBER, SYMBOL].into_iter().find(|class| run & class != 0) {
            Some(class) => self.run(from, class),
            None => self.blank_end(start, false, false),
        }
    }

    /// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`,
    /// with `\s++$|` before the fifth alternative if `whole_end`.
    #[inline]
    fn gpt4_end(&self, start: usize, max_digits: usize, whole_end: bool) -> usize {
        let (kind, after) = self.at(start);
        if kind & LETTER != 0 {
            return self.run(after, LETTER);
        }
        let first = self.text.as_bytes()[start];
        if first == b'\'' {
            if let Some(end) = self.contraction_end(after) {
                return end;
            }
        }
        let next = self.at(after).0;
        if kind & (BLANK | SYMBOL) != 0 && next & LETTER != 0 {
            return self.run(after, LETTER);
        }
        match kind {
            NUMBER => self.number_end(start, max_digits),
            BLANK if first == b' ' && next & SYMBOL != 0 => self.run(self.run(after, SYMBOL), NEWLINE),
            BLANK | NEWLINE => self.blank_end(start, true, whole_end),
            _ => self.run(self.run(after, SYMBOL), NEWLINE),
        }
    }

    /// The two kinds of words, then `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    #[inline]
    fn o200k_end(&self, start: usize) -> usize {
        let (kind, after) = self.at(start);
        if let Some(end) = self.cased_word_end(start, kind, after) {
            return match self.text.as_bytes().get(end) {
                Some(b'\'') => self.contraction_end(end + 1).unwrap_or(end),
                _ => end,
            };
        }
        match kind {
            NUMBER => self.number_end(start, 3),
            BLANK if self.text.as_bytes()[start] == b' ' && self.at(after).0 & SYMBOL != 0 => {
                self.symbols_with_slashes_end(after)
            }
            BLANK | NEWLINE => self.blank_end(start, true, false),
            _ => self.symbols_with_slashes_end(start),
        }
    }

    /// `p?U*L+` or else `p?U+L*`: U is HEAD, L is TAIL, p any character but a newline, letter or number.
    #[inline]
    fn cased_word_end(&self, start: usize, kind: Kind, after: usize) -> Option<usize> {
        let prefixed = (kind & (BLANK | SYMBOL) != 0).then_some(after);
        let bare = (kind & (HEAD | TAIL) != 0).then_some(start);
        let tailed = |from: Option<usize>| from.and_then(|from| self.tailed_end(from));
        let headed = |from: usize| Some(self.run(from, HEAD)).filter(|&end| end > from);
        tailed(prefixed)
            .or_else(|| tailed(bare))
            .or_else(|| prefixed.and_then(headed))
            .or_else(|| bare.and_then(headed))
    }

    /// `U*L+`. Without an L after the run of Us, the run is given back up to its last character that is also an L.
    #[inline]
    fn tailed_end(&self, from: usize) -> Option<usize> {
        let (mut at, mut last_both) = (from, None);
        loop {
            let (kind, next) = self.at(at);
            if kind & HEAD == 0 {
                return if kind == LOWER { Some(self.run(next, TAIL)) } else { last_both };
            }
            if kind & TAIL != 0 {
                last_both = Some(next);
            }
            at = next;
        }
    }

    /// The kind of the character at `at` and the offset after it; no kind at the end of the text.
    #[inline]
    fn at(&self, at: usize) -> (Kind, usize) {
        match self.text.as_bytes().get(at) {
            None => (0, at),
            Some(&byte) if byte < 0x80 => (self.kinds.0[byte as usize], at + 1),
            Some(_) => self.wide_at(at),
        }
    }

    #[inline]
    fn wide_at(&self, at: usize) -> (Kind, usize) {
        let character = self.text[at..].chars().next().unwrap_or_default();
        (self.kinds.0[character as usize], at + character.len_utf8())
    }

    /// The end of the run of `class` from `at`.
    #[inline]
    fn run(&self, mut at: usize, class: Kind) -> usize {
        loop {
            match self.at(at) {
                (kind, next) if kind & class != 0 => at = next,
                _ => return at,
            }
        }
    }

    #[inline]
    fn number_end(&self, mut at: usize, max_digits: usize) -> usize {
        for _ in 0..max_digits {
            match self.at(at) {
                (NUMBER, next) => at = next,
                _ => break,
            }
        }
        at
    }

    /// `(?i:[sdmt]|ll|ve|re)`. Unicode case folding adds one letter to ASCII: U+017F, a long s.
    fn contraction_end(&self, at: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[at..];
        let length = match (rest.first()?.to_ascii_lowercase(), rest.get(1).map(u8::to_ascii_lowercase)) {
            (b's' | b'd' | b'm' | b't', _) => 1,
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) | (0xC5, Some(0xBF)) => 2,
            _ => return None,
        };
        Some(at + length)
    }

    fn is_lowercase(&self, start: usize, end: usize) -> bool {
        self.text.as_bytes()[start..end].iter().all(u8::is_ascii_lowercase)
    }

    /// `[^\s\p{L}\p{N}]+[\r\n/]*`
    fn symbols_with_slashes_end(&self, start: usize) -> usize {
        let mut end = self.run(start, SYMBOL);
        while matches!(self.text.as_bytes().get(end), Some(b'\r' | b'\n' | b'/')) {
            end += 1;
        }
        end
    }

    /// `\s*[\r\n]|\s+(?!\S)|\s+`: up to the last newline of the run; else the run, less its last
    /// character if text follows (that one then opens the next piece); else the one character.
    /// Without the first alternative if not `newlines`; with `\s++$|` before it if `whole_end`.
    fn blank_end(&self, start: usize, newlines: bool, whole_end: bool) -> usize {
        let (mut end, mut last, mut after_newline) = (start, start, None);
        loop {
            let (kind, next) = self.at(end);
            if kind & SPACE == 0 {
                break;
            }
            (last, end) = (end, next);
            if kind == NEWLINE {
                after_newline = Some(end);
            }
        }
        let ends_text = end == self.text.len();
        match after_newline {
            Some(newline) if newlines && !(whole_end && ends_text) => newline,
            _ if !ends_text && last > start => last,
            _ => end,
        }
    }
}
