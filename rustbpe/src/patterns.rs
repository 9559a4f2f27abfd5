//! The split patterns that have a hand-written splitter, by name and by their text.
//!
//! What it is not: the splitter (`scan`). A pattern that is not here runs on a regex engine (`split`).

/// The default pattern: GPT-4 style, numbers in groups of at most two digits.
pub const GPT4_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
/// GPT-2's, as tiktoken spells it.
pub const GPT2_PATTERN: &str =
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s";
/// GPT-4's own, cl100k, as tiktoken spells it.
pub const CL100K_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
/// GPT-4o's, o200k, as tiktoken spells it.
pub const O200K_PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Other spellings of the same: GPT-2's first release, Llama 3's of GPT-4's, and those of GPT-2's and
/// GPT-4's that every regex engine reads alike (`nanochat/patterns.py`).
const GPT2_FIRST: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2_PORTABLE: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K_PORTABLE: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s";

/// Every spelling of a family that has more than one.
pub const SPELLINGS: [&str; 6] =
    [GPT2_PATTERN, GPT2_FIRST, GPT2_PORTABLE, CL100K_PATTERN, CL100K_PORTABLE, LLAMA3];

/// The patterns by name.
pub const NAMED: [(&str, &str); 4] =
    [("gpt2", GPT2_PATTERN), ("gpt4", GPT4_PATTERN), ("cl100k", CL100K_PATTERN), ("o200k", O200K_PATTERN)];

/// What a hand-written splitter has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Gpt2,
    /// `whole_end`: blanks that end the text are one piece, line ends or not.
    Gpt4 {
        max_digits: usize,
        whole_end: bool,
    },
    O200k,
}

/// The default pattern with numbers in groups of at most `digits` characters.
pub fn pattern_for(digits: usize) -> String {
    GPT4_PATTERN.replace("{1,2}", &format!("{{1,{digits}}}"))
}

/// The family of a pattern, if it is one of those.
pub fn family_of(pattern: &str) -> Option<Family> {
    match pattern {
        GPT2_PATTERN | GPT2_FIRST | GPT2_PORTABLE => Some(Family::Gpt2),
        CL100K_PATTERN | CL100K_PORTABLE => Some(Family::Gpt4 { max_digits: 3, whole_end: true }),
        LLAMA3 => Some(Family::Gpt4 { max_digits: 3, whole_end: false }),
        O200K_PATTERN => Some(Family::O200k),
        _ => (1..=3)
            .find(|&digits| pattern == pattern_for(digits))
            .map(|max_digits| Family::Gpt4 { max_digits, whole_end: false }),
    }
}
