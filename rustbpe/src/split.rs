//! Splits text into pieces that BPE merges never cross.
//!
//! The family's pattern ([`pattern_for`] 1, 2 or 3 digits) has a hand-written splitter: linear time
//! on any text, no way to fail. Any other pattern runs on `fancy-regex`, where a backtracking limit
//! or a gap between two matches is an error: text is never dropped. What it is not: a normaliser;
//! the pieces, joined, are the text.

use fancy_regex::Regex;
use regex_syntax::hir::{Class, HirKind};

use crate::error::Error;

/// The default pattern: GPT-4 style, numbers in groups of at most two digits.
pub const GPT4_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

/// The family's pattern with numbers in groups of at most `digits` characters.
pub fn pattern_for(digits: usize) -> String {
    GPT4_PATTERN.replace("{1,2}", &format!("{{1,{digits}}}"))
}

/// What a character is to the pattern. The five kinds are disjoint and cover all characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Other,
    Letter,
    Number,
    Space,
    Newline,
}

pub struct Splitter(Engine);

enum Engine {
    Family { kinds: Box<[Kind]>, max_digits: usize },
    Regex(Box<Regex>),
}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Self, Error> {
        if let Some(max_digits) = (1..=3).find(|&digits| pattern == pattern_for(digits)) {
            return Ok(Self(Engine::Family { kinds: kind_table()?, max_digits }));
        }
        match Regex::new(pattern) {
            Ok(regex) => Ok(Self(Engine::Regex(Box::new(regex)))),
            Err(e) => Err(Error::Pattern { pattern: pattern.into(), reason: e.to_string() }),
        }
    }

    /// Calls `visit` with each piece in order. On an error the pieces seen so far are a prefix.
    pub fn for_each<'t>(&self, text: &'t str, mut visit: impl FnMut(&'t str)) -> Result<(), Error> {
        match &self.0 {
            Engine::Family { kinds, max_digits } => {
                let scan = Scan { text, kinds, max_digits: *max_digits };
                let mut start = 0;
                while start < text.len() {
                    let end = scan.piece_end(start);
                    visit(&text[start..end]);
                    start = end;
                }
                Ok(())
            }
            Engine::Regex(regex) => split_by_regex(regex, text, visit),
        }
    }

    pub fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, Error> {
        let mut pieces = Vec::new();
        self.for_each(text, |piece| pieces.push(piece))?;
        Ok(pieces)
    }
}

fn split_by_regex<'t>(regex: &Regex, text: &'t str, mut visit: impl FnMut(&'t str)) -> Result<(), Error> {
    let mut done = 0;
    for found in regex.find_iter(text) {
        let found = found.map_err(|e| Error::Split { at: done, reason: e.to_string() })?;
        if found.range().is_empty() {
            continue;
        }
        if found.start() != done {
            return Err(Error::Uncovered { start: done, end: found.start() });
        }
        visit(found.as_str());
        done = found.end();
    }
    if done < text.len() {
        return Err(Error::Uncovered { start: done, end: text.len() });
    }
    Ok(())
}

/// One entry for each code point. The classes come from the tables of the regex engine itself, so
/// the hand-written splitter and the regex agree whatever Unicode version that is.
fn kind_table() -> Result<Box<[Kind]>, Error> {
    let mut kinds = vec![Kind::Other; char::MAX as usize + 1];
    for (class, kind) in
        [(r"\p{L}", Kind::Letter), (r"\p{N}", Kind::Number), (r"\s", Kind::Space), (r"[\r\n]", Kind::Newline)]
    {
        let hir = regex_syntax::parse(class)
            .map_err(|e| Error::Pattern { pattern: class.into(), reason: e.to_string() })?;
        if let HirKind::Class(Class::Unicode(ranges)) = hir.kind() {
            for range in ranges.iter() {
                kinds[range.start() as usize..=range.end() as usize].fill(kind);
            }
        }
    }
    Ok(kinds.into_boxed_slice())
}

/// A text under the family's pattern. Positions are byte offsets at character boundaries.
struct Scan<'a> {
    text: &'a str,
    kinds: &'a [Kind],
    max_digits: usize,
}

impl Scan<'_> {
    /// The kind of the character at `at` and the offset after it; `None` at the end of the text.
    #[inline]
    fn at(&self, at: usize) -> Option<(Kind, usize)> {
        let byte = *self.text.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((self.kinds[byte as usize], at + 1));
        }
        let character = self.text[at..].chars().next()?;
        Some((self.kinds[character as usize], at + character.len_utf8()))
    }

    /// The end of the run of `kind` from `at`, at most `limit` characters long.
    #[inline]
    fn run(&self, mut at: usize, kind: Kind, limit: usize) -> usize {
        for _ in 0..limit {
            match self.at(at) {
                Some((found, next)) if found == kind => at = next,
                _ => break,
            }
        }
        at
    }

    /// The end of the piece that starts at `start`: the pattern's alternatives, in their order.
    fn piece_end(&self, start: usize) -> usize {
        let Some((kind, after)) = self.at(start) else { return start };
        let first = self.text.as_bytes()[start];
        if first == b'\'' {
            if let Some(end) = self.contraction_end(after) {
                return end;
            }
        }
        let next = self.at(after).map(|(kind, _)| kind);
        match kind {
            Kind::Letter => self.run(after, Kind::Letter, usize::MAX),
            Kind::Number => self.run(start, Kind::Number, self.max_digits),
            Kind::Space | Kind::Other if next == Some(Kind::Letter) => {
                self.run(after, Kind::Letter, usize::MAX)
            }
            Kind::Other => self.symbols_end(after),
            Kind::Space if first == b' ' && next == Some(Kind::Other) => self.symbols_end(after),
            Kind::Space | Kind::Newline => self.whitespace_end(start),
        }
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

    /// `[^\s\p{L}\p{N}]++[\r\n]*`, the first character already taken.
    fn symbols_end(&self, at: usize) -> usize {
        self.run(self.run(at, Kind::Other, usize::MAX), Kind::Newline, usize::MAX)
    }

    /// `\s*[\r\n]|\s+(?!\S)|\s+`: up to the last newline of the run; else the run, less its last
    /// character if text follows (that one then opens the next piece); else the one character.
    fn whitespace_end(&self, start: usize) -> usize {
        let (mut end, mut last, mut after_newline) = (start, start, None);
        while let Some((kind @ (Kind::Space | Kind::Newline), next)) = self.at(end) {
            (last, end) = (end, next);
            if kind == Kind::Newline {
                after_newline = Some(end);
            }
        }
        match after_newline {
            Some(newline) => newline,
            None if end < self.text.len() && last > start => last,
            None => end,
        }
    }
}
