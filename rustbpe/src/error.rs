//! The one error type of the crate. Every variant is a fault of the caller's input.

use std::fmt;
use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A numeric argument outside its legal range.
    Argument { name: &'static str, value: i64, legal: &'static str },
    /// The split pattern is not a valid regular expression.
    Pattern { pattern: String, reason: String },
    /// The regular expression engine gave up on a text (backtracking limit).
    Split { at: usize, reason: String },
    /// The split pattern leaves bytes uncovered; encoding would lose them.
    Uncovered { start: usize, end: usize },
    /// The token list cannot serve as a vocabulary.
    Tokens { reason: String },
    /// An id that no token has.
    UnknownId { id: i64, n_tokens: usize },
    /// More than 4 GiB of distinct words in training, or in one piece when encoding.
    TooLarge { bytes: usize },
    /// The operating system refused to start threads.
    Threads { reason: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument { name, value, legal } => write!(f, "{name} = {value}: must be {legal}"),
            Self::Pattern { pattern, reason } => write!(f, "split pattern {pattern:?} is not a valid regex: {reason}"),
            Self::Split { at, reason } => write!(
                f,
                "the split pattern failed at byte {at}: {reason}; use the built-in pattern, which cannot fail, or shorter texts"
            ),
            Self::Uncovered { start, end } => write!(
                f,
                "the split pattern matches nothing in bytes {start}..{end} of the text, which would be lost; \
                 add a catch-all alternative such as |[\\s\\S]"
            ),
            Self::Tokens { reason } => write!(f, "bad token list: {reason}"),
            Self::UnknownId { id, n_tokens } => write!(f, "unknown token id {id}: legal ids are 0 to {}", n_tokens - 1),
            Self::TooLarge { bytes } => {
                write!(f, "{bytes} bytes are more than the limit of 4 GiB; use less text (max_chars) or shorter texts")
            }
            Self::Threads { reason } => write!(f, "cannot start threads: {reason}; use threads=1"),
        }
    }
}

impl std::error::Error for Error {}

/// The argument as a size, if it is in `range`; `legal` says in words what that is.
pub fn checked(
    name: &'static str,
    value: i64,
    range: Range<usize>,
    legal: &'static str,
) -> Result<usize, Error> {
    let size = usize::try_from(value).ok().filter(|size| range.contains(size));
    size.ok_or(Error::Argument { name, value, legal })
}
