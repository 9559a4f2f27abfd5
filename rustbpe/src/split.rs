//! Splits text into pieces that BPE merges never cross.
//!
//! The patterns of `patterns` have a hand-written splitter (`scan`): linear time on any text, no way to
//! fail. Any other pattern runs on `fancy-regex`, where a backtracking limit or a gap between two
//! matches is an error: text is never dropped. What it is not: a normaliser; the pieces, joined, are
//! the text.

use fancy_regex::Regex;

use crate::error::Error;
use crate::patterns::{family_of, Family};
use crate::scan::{Kinds, Scan};

pub struct Splitter(Engine);

enum Engine {
    Family(Family, Kinds),
    Regex(Box<Regex>),
}

impl Splitter {
    pub fn new(pattern: &str) -> Result<Self, Error> {
        if let Some(family) = family_of(pattern) {
            return Ok(Self(Engine::Family(family, Kinds::new()?)));
        }
        match Regex::new(pattern) {
            Ok(regex) => Ok(Self(Engine::Regex(Box::new(regex)))),
            Err(e) => Err(Error::Pattern { pattern: pattern.into(), reason: e.to_string() }),
        }
    }

    /// Whether what stands before a blank that follows a non-blank never depends on what comes after: true
    /// for the patterns of `patterns`, unknown of any other.
    pub fn cuts_at_blanks(&self) -> bool {
        matches!(self.0, Engine::Family(..))
    }

    /// Calls `visit` with each piece in order. On an error the pieces seen so far are a prefix.
    pub fn for_each<'t>(&self, text: &'t str, visit: impl FnMut(&'t str)) -> Result<(), Error> {
        match &self.0 {
            Engine::Family(family, kinds) => {
                Scan { text, kinds }.for_each(*family, visit);
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
