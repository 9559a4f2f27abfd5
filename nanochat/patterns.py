"""The split patterns of tokenizers in use, by name, spelled so that every regex engine reads them alike.

What it is: `PATTERNS`, and `portable`, which tells whether a pattern means the same to Rust's engine
(rustbpe, tiktoken) and to Oniguruma (Hugging Face's). What it is not: a splitter (rustbpe), or tiktoken's own
spelling, which splits the same in its engine but not in the other.
How to look at it: `python -c "from nanochat.patterns import PATTERNS; print(PATTERNS)"`.
"""

from __future__ import annotations

import re

from nanochat.tokenizer import split_pattern

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE, _AFTER = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s++(?![\s\S])|\s*[\r\n]|\s+(?!\S)|\s",  # first: all blanks and line ends at the end of the text
)
_O200K = (
    f"{_BEFORE}{_UPPER}*{_LOWER}+{_AFTER}",
    f"{_BEFORE}{_UPPER}+{_LOWER}*{_AFTER}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)
PATTERNS = {
    "gpt4": split_pattern(2),  # this kit's default: GPT-4's, with at most two digits in a token
    "gpt4-1digit": split_pattern(1),
    "gpt4-3digits": split_pattern(3),
    "cl100k": "|".join(_CL100K),  # GPT-4 itself, as tiktoken has it
    "o200k": "|".join(_O200K),
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}

# What both engines read alike. Not among it: `^` and `$` (of a line or of the text), `{1,3}+` (possessive or
# repeated), flags other than `i`, `\w` and `\b` (other tables), `[a&&b]`.
_CLASS = r"\\(?:[pP]\{\w+\}|[sSdDrnt]|[^\w\s])"
_PORTABLE = re.compile(
    rf"""(?: {_CLASS}
        | \[\^?(?:{_CLASS}|(?!--)[^\]\[\\&~])+\]
        | \((?:\?(?:i?:|=|!|>)|(?!\?)) | [)|.]
        | (?:[?*+][?+]?|\{{\d+(?:,\d*)?\}})(?![?*+{{])
        | [^\\\[\](){{}}^$.?*+|] )*""",
    re.VERBOSE,
)


def named(pattern: str) -> str:
    """The pattern of that name, or the regular expression itself."""
    if re.fullmatch(r"[\w-]+", pattern) and pattern not in PATTERNS:
        raise ValueError(f"no split pattern {pattern!r}: use {', '.join(PATTERNS)} or a regular expression")
    return PATTERNS.get(pattern, pattern)


def portable(pattern: str) -> str:
    """`pattern`, if both engines read it alike; else a ValueError."""
    match = _PORTABLE.match(pattern)
    end = match.end() if match else 0
    if end < len(pattern):
        raise ValueError(
            f"in its split pattern, engines differ on what {pattern[end : end + 12]!r} at {end} means "
            "(such are ^, $, possessive {1,3}+, \\w, \\b and flags): write it in another way; "
            f"{', '.join(PATTERNS)} are written so ({pattern})"
        )
    return pattern
