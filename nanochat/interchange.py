"""Tokenizers from and to the files of other software: tiktoken ranks, `tokenizer.json`, upstream's pickle.

What it is: readers and writers that keep every id, or raise a ValueError that says why they can not. Split
pattern and special tokens come from the file where it holds them; ranks files hold neither. What it is not: a
reader of other kinds of tokenizers, or of pickles (what they record is read, nothing is unpickled). No torch.
How to run it: `python -m scripts.tok_convert --from FILE --to FILE`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanochat import hf_tokenizer, patterns
from nanochat.common import atomic_path, read_json, write_json
from nanochat.pickle_record import read_record
from nanochat.ranks import in_order, specials_behind
from nanochat.tokenizer import FORMAT, SPECIAL_TOKENS, TOKENIZER_FILE, Tokenizer


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Faults of a file name the file."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold what its format asks for ({error!r:.200})") from error
    except ValueError as error:
        named = str(path) in str(error)
        raise ValueError(str(error) if named else f"{path}: {error}") from error


def load(path: Path | str, pattern: str | None = None) -> tuple[str, Tokenizer]:
    """(format, tokenizer) of a file of any of these formats.

    `pattern` is for ranks files, which hold none: a name in `patterns.PATTERNS` or a regular expression.
    """
    path = Path(path)
    with _reading(path), path.open("rb") as file:
        head = file.read(256)
    if path.suffix == ".tiktoken" or re.match(rb"[\w+/=]+ \d+\r?\n", head):
        if pattern is None:
            raise ValueError(
                f"{path} holds ranks, but not how text is split: set --pattern to one of "
                f"{', '.join(patterns.PATTERNS)}, or to a regular expression"
            )
        return "tiktoken ranks", load_tiktoken(path, pattern)
    if pattern is not None:
        raise ValueError(f"{path} is no ranks file and has its own split pattern: leave --pattern out")
    if path.suffix == ".pkl" or head[:1] == b"\x80":
        return "a pickled tiktoken.Encoding", load_pickled(path)
    if not head.lstrip().startswith(b"{"):
        raise ValueError(f"{path} is neither tiktoken ranks, nor a tokenizer.json, nor a pickle")
    return _load_json(path)


def _load_json(path: Path) -> tuple[str, Tokenizer]:
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        return "Hugging Face tokenizer.json", load_huggingface(path)
    if path.name != TOKENIZER_FILE:
        raise ValueError(f"{path} is a tokenizer of this kit, whose file must be named {TOKENIZER_FILE}")
    return "this kit's tokenizer.json", Tokenizer.load(path.parent)


# ----------------------------------------------------------------------------- tiktoken


def load_tiktoken(path: Path | str, pattern: str, specials: Sequence[str] = SPECIAL_TOKENS) -> Tokenizer:
    """The vocabulary of a ranks file (lines "base64 rank" in any order), `specials` behind it."""
    ranks: dict[bytes, int] = {}
    lines: dict[int, int] = {}  # rank -> number of its line
    with _reading(Path(path)):
        for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
            token, rank = _ranks_line(line, number)
            if token in ranks:
                raise ValueError(f"line {number}: {token!r:.80} stands in line {lines[ranks[token]]}, too")
            if rank in lines:
                raise ValueError(f"line {number}: rank {rank} stands in line {lines[rank]}, too")
            ranks[token], lines[rank] = rank, number
        for expected, rank in enumerate(sorted(lines)):
            if rank != expected:
                raise ValueError(f"line {lines[rank]}: rank {rank} is there, but no line has rank {expected}")
        return Tokenizer(in_order(ranks), patterns.named(pattern), specials)


def _ranks_line(line: bytes, number: int) -> tuple[bytes, int]:
    try:
        encoded, _, rank = line.decode("utf-8").partition(" ")
        token = base64.b64decode(encoded.encode(), validate=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number} is not UTF-8 text") from error
    except binascii.Error as error:
        raise ValueError(f"line {number}: {encoded!r:.80} is not base64 ({error})") from error
    if not token or not re.fullmatch(r"[0-9]{1,9}", rank):
        raise ValueError(f"line {number}: {line!r:.80} is not a token in base64, a blank and its rank")
    return token, int(rank)


def save_tiktoken(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write the ranks. Split pattern and special tokens have no place in such a file."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokenizer.tokens))
    with atomic_path(path) as temp:
        temp.write_bytes(b"".join(lines))


# ----------------------------------------------------------------------------- Hugging Face


def load_huggingface(path: Path | str, specials: Sequence[str] | None = None) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`. What is refused, and `specials`: see `hf_tokenizer.from_json`."""
    with _reading(Path(path)):
        return hf_tokenizer.from_json(read_json(path), specials)


def save_huggingface(tokenizer: Tokenizer, path: Path | str) -> None:
    """Write a `tokenizer.json`. Who reads it takes the names of special tokens in a text for the tokens."""
    write_json(path, hf_tokenizer.to_json(tokenizer))


# ----------------------------------------------------------------------------- upstream's pickle


def load_pickled(path: Path | str) -> Tokenizer:
    """Upstream nanochat's `tokenizer.pkl`, a pickled `tiktoken.Encoding`, with its special tokens."""
    with _reading(Path(path)):
        state = read_record(Path(path).read_bytes(), "tiktoken.core", "Encoding")
        ranks = _numbered(state["mergeable_ranks"], bytes)
        specials = _numbered(state["special_tokens"], str)
        tokens = in_order(ranks)
        return Tokenizer(tokens, state["pat_str"], specials_behind(tokens, specials))


def _numbered(mapping: Any, kind: type) -> Any:
    if any(type(key) is not kind or type(number) is not int for key, number in mapping.items()):
        raise ValueError(f"its ranks or special tokens are not {kind.__name__} with whole numbers")
    return mapping
