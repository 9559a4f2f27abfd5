"""Hugging Face's `tokenizer.json`, both ways, as JSON data: byte-level BPE with the same ids.

There, ids come from a list of merges; here, from ranks alone, as in tiktoken. Both agree if the list has,
in the order of the ids, the one pair that BPE makes each token of (`ranks.merge_pair`); reading checks it.
What it is not: a reader of other kinds (WordPiece, Unigram, SentencePiece, text that is normalised first),
which are refused by name, or of files (`interchange.py`). The package `tokenizers` is not needed.
How to run it: `python -m scripts.tok_convert --from tok --to tokenizer.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from nanochat.patterns import PATTERNS, portable
from nanochat.ranks import in_order, merge_pairs, specials_behind
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

LEFT_OUT = "special tokens left out"  # a fact of `Tokenizer.training`

# The character that stands for a byte in a vocabulary of text: itself if it prints, else one from U+0100 on.
_PRINTS = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_OTHERS = [byte for byte in range(256) if byte not in _PRINTS]
_CHARACTERS = {byte: chr(byte if byte in _PRINTS else 256 + _OTHERS.index(byte)) for byte in range(256)}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _as_text(token: bytes) -> str:
    return token.decode("latin-1").translate(_CHARACTERS)


def _as_bytes(text: str) -> bytes:
    if not _BYTES.keys() >= set(text):
        raise ValueError(f"its vocabulary is not byte-level: it holds {text!r:.80}")
    return bytes(_BYTES[character] for character in text)


# ----------------------------------------------------------------------------- out


def to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `tokenizer.json` holds for the packages tokenizers and transformers."""
    vocab = {_as_text(token): rank for rank, token in enumerate(tokenizer.tokens)}
    if clash := vocab.keys() & set(tokenizer.specials):
        raise ValueError(f"{clash} is an ordinary and a special token; tokenizer.json can not tell the two")
    regex = {"Regex": portable(tokenizer.pattern)}
    split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": tokenizer.special(name), "content": name, **flags} for name in tokenizer.specials
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL]},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {**_model_options(), "vocab": vocab, "merges": _merges(tokenizer.tokens)},
    }  # fmt: skip


def _model_options() -> dict[str, Any]:
    absent = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    flags = {"fuse_unk": False, "byte_fallback": False}
    # ignore_merges: a piece that is a token is that token, whatever merges would make of it; as in tiktoken.
    return {"type": "BPE", **dict.fromkeys(absent), **flags, "ignore_merges": True}


def _merges(tokens: Sequence[bytes]) -> list[str]:
    return [" ".join(map(_as_text, pair)) for pair in merge_pairs(tokens).values() if pair]


# ----------------------------------------------------------------------------- in


def from_json(stored: Any, specials: Sequence[str] | None = None) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`; a ValueError says what it has that is not byte-level BPE.

    Its own special tokens are kept if <|bos|> is one of them, else ours take their place (or `specials`).
    """
    model, added = stored["model"], stored.get("added_tokens") or []
    if reasons := "; ".join(_refusals(stored, model, added)):
        raise ValueError(reasons)
    pattern = _pattern_of(stored.get("pre_tokenizer"))
    own = {token["content"]: token["id"] for token in added}
    tokens = in_order({_as_bytes(text): rank for text, rank in model["vocab"].items() if text not in own})
    _check_merges(model, tokens)
    if specials is None:
        specials = specials_behind(tokens, own) if "<|bos|>" in own else SPECIAL_TOKENS
    left_out = [name for name in own if name not in specials]
    return Tokenizer(tokens, pattern, specials, {LEFT_OUT: left_out} if left_out else None)


def _refusals(stored: Any, model: Any, added: list[Any]) -> Iterator[str]:
    kind = model.get("type") or ("BPE" if "merges" in model else "unnamed")  # old files do not say
    if kind != "BPE":
        yield f"its model is {kind}, not byte-level BPE"
    if stored.get("normalizer"):
        yield f"it has the normalizer {stored['normalizer']['type']}, which changes text before it is split"
    for option in ("byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            yield f"its model has {option} {model[option]!r}, which byte-level BPE has not"
    if plain := [token["content"] for token in added if not token["special"]]:
        yield f"it adds tokens that are ordinary text ({', '.join(map(repr, plain[:5]))})"


def _pattern_of(pre_tokenizer: Any) -> str:
    """The split pattern that a pre-tokenizer stands for."""
    steps = pre_tokenizer["pretokenizers"] if "pretokenizers" in (pre_tokenizer or ()) else [pre_tokenizer]
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, **options}] if options.get("use_regex", True):
            return PATTERNS["gpt2"]
        case [
            {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": behavior, "invert": invert},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if (behavior, invert) in (("Isolated", False), ("Removed", True)):
            return portable(regex)
    raise ValueError(
        f"its pre-tokenizer is {json.dumps(pre_tokenizer):.300}, not ByteLevel with use_regex, nor an "
        "Isolated Split by Regex before ByteLevel without use_regex, both without add_prefix_space"
    )


def _check_merges(model: Any, tokens: Sequence[bytes]) -> None:
    """ValueError unless the file's merges say the same as the order of its ids."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    listed, before = set(), 0
    for merge in model["merges"]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if len(pair) != 2:
            raise ValueError(f"its merge {merge!r:.80} is not of two tokens")
        left, right = map(_as_bytes, pair)
        if not {left, right, left + right} <= ranks.keys():
            raise ValueError(f"its merge {merge!r} is of tokens that are not in its vocabulary")
        if ranks[left + right] < before:
            raise ValueError(f"its merges are not in the order of the ids they make, from {merge!r} on")
        before = ranks[left + right]
        listed.add((left, right))
    for token, made_of in merge_pairs(tokens).items():
        if made_of not in listed and (made_of or not model.get("ignore_merges")):
            raise ValueError(f"by its ids {token!r:.80} is merged from {made_of}, not one of its merges")
