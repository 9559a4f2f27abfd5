"""Text to token ids and back, conversations to ids and a loss mask (no torch).

Byte-level BPE on the GPT-4-style split pattern, nine special tokens behind the merges. `rustbpe` trains and
encodes; where it is not built, tiktoken encodes (the same ids; only documents with about a million blanks in
a row are beyond it). A tokenizer is one JSON text file, `tokenizer.json`, and nothing in it is executed.

What it is not: a place where text can become control. `encode` treats the *string* "<|bos|>" as plain text;
special ids come from the renderers here and nowhere else. A lone surrogate, which UTF-8 cannot hold, is
encoded as U+FFFD. How to make one: `python -m scripts.tok_train`.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from nanochat.common import read_json, write_json
from nanochat.encoding import Stream, encoder_of, import_rustbpe

SPECIAL_TOKENS = (
    "<|bos|>",  # starts every document and conversation
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",  # the assistant calls the tool ...
    "<|python_end|>",
    "<|output_start|>",  # ... and the tool answers; never trained on
    "<|output_end|>",
)
TOKENIZER_FILE = "tokenizer.json"
FORMAT, VERSION = "nanochat-tokenizer", 1
PART_MARKERS = {"python": "python", "python_output": "output"}  # part type -> its pair of special tokens

Conversation = dict[str, Any]
Rendered = tuple[list[int], list[bool]]


class ConversationTooLong(ValueError):
    """Not even the first question with its answer fits into the tokens allowed."""


def split_pattern(digits: int = 2) -> str:
    """The GPT-4-style split pattern with at most `digits` (1, 2 or 3) digits in a token.

    In order: contractions, words, numbers, punctuation, line ends, trailing blanks, blanks. GPT-4 takes
    three digits; two did best at 32K ids, one is best where a small model must do arithmetic.
    """
    if digits not in (1, 2, 3):
        raise ValueError(f"digits {digits}: choose 1, 2 or 3 digits for the longest number token")
    return (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
        f"{{1,{digits}}}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )


class Tokenizer:
    """Ids 0..len(tokens)-1 are byte strings in merge order, the special tokens follow."""

    def __init__(
        self,
        tokens: Sequence[bytes],
        pattern: str,
        specials: Sequence[str] = SPECIAL_TOKENS,
        training: dict[str, Any] | None = None,
    ) -> None:
        _check_vocabulary(tokens, specials)
        self.tokens = list(tokens)
        self.pattern = pattern
        self.specials = tuple(specials)
        self.training = training or {}  # facts about the training, for people; no part of the hash
        self._special_ids = {name: len(tokens) + i for i, name in enumerate(specials)}
        self._bytes = [*self.tokens, *(name.encode() for name in specials)]
        self._encoder = encoder_of(self.tokens, pattern)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        pattern: str | None = None,
        *,
        max_doc_chars: int = 10_000,
        max_chars: int = 2_000_000_000,
        threads: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> Tokenizer:
        """Learn a vocabulary of `vocab_size` ids, the nine special tokens included.

        Reads at most `max_chars` characters, `max_doc_chars` of each document, with `threads` threads
        (0 = all cores); `progress` gets (ids made, ids wanted). ValueError if `vocab_size` is below
        256 + 9 or above what the text can fill.
        """
        merges_end = vocab_size - len(SPECIAL_TOKENS)
        if merges_end < 256:
            raise ValueError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(SPECIAL_TOKENS)} special tokens "
                f"need at least {256 + len(SPECIAL_TOKENS)}"
            )
        rustbpe = import_rustbpe()
        if rustbpe is None:
            raise ValueError(
                "rustbpe, which trains, is not built: run env/setup.sh or `pip install ./rustbpe`"
            )
        pattern = pattern or split_pattern()
        tokens = rustbpe.train(
            texts, merges_end, pattern, max_doc_chars=max_doc_chars, max_chars=max_chars, threads=threads,
            progress=progress,
        )  # fmt: skip
        if len(tokens) < merges_end:
            most = len(tokens) + len(SPECIAL_TOKENS)
            raise ValueError(
                f"the text gives only {most} ids, not {vocab_size}: train on more text or with a vocab_size "
                f"of at most {most}"
            )
        return cls(tokens, pattern)

    # ------------------------------------------------------------------------- facts

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    @property
    def bos_id(self) -> int:
        return self._special_ids["<|bos|>"]

    def special(self, name: str) -> int:
        """Id of a special token; `assistant_end` and `<|assistant_end|>` are the same."""
        full = _full_name(name)
        if full not in self._special_ids:
            raise ValueError(f"no special token {name!r}; there are {', '.join(self.specials)}")
        return self._special_ids[full]

    @property
    def token_bytes(self) -> np.ndarray:
        """(V,) int32: bytes of text that each id stands for, 0 for special tokens (for bits per byte)."""
        lengths = [len(token) for token in self.tokens]
        return np.array(lengths + [0] * len(self.specials), dtype=np.int32)

    @property
    def hash(self) -> str:
        """sha256 of all that decides ids: pattern, tokens, special tokens."""
        canonical = json.dumps(self._canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    # ------------------------------------------------------------------------- text

    @overload
    def encode(self, text: str) -> list[int]: ...
    @overload
    def encode(self, text: list[str]) -> list[list[int]]: ...
    def encode(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Ids of one text, or of each of a list (faster). Strings of special tokens are plain text."""
        return self._encoder.encode([text])[0] if isinstance(text, str) else self._encoder.encode(text)

    def encode_flat(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids, offsets) of many texts: `ids[offsets[i]:offsets[i + 1]]` are those of text i (fastest)."""
        return self._encoder.encode_flat(texts)

    def encode_with_specials(self, text: str, allowed: Iterable[str]) -> list[int]:
        """Ids of a text in which the names of the `allowed` special tokens, and no others, are control."""
        ids = {_full_name(name): self.special(name) for name in allowed}
        if not ids:
            return self.encode(text)
        longest_first = sorted(ids, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)  # text, name, text, ...
        texts = iter(self.encode(parts[::2]))
        found = next(texts)
        for name in parts[1::2]:
            found += [ids[name], *next(texts)]
        return found

    def stream(self) -> Stream:
        """Encodes a text that arrives bit by bit: `push(text)`, at the end `finish()`."""
        return self._encoder.stream()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`; a special token gives its name. ValueError for an id outside the vocabulary."""
        return b"".join(self._bytes_of(i) for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; what is not valid UTF-8 shows as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """`decode` of each row."""
        return [self.decode(ids) for ids in rows]

    def _bytes_of(self, token_id: int) -> bytes:
        if not 0 <= token_id < len(self._bytes):
            raise ValueError(f"token id {token_id} is outside the vocabulary (0 to {len(self._bytes) - 1})")
        return self._bytes[token_id]

    # ------------------------------------------------------------------------- conversations

    def render_conversation(self, conversation: Conversation, max_tokens: int | None = None) -> Rendered:
        """(ids, mask) of a conversation to train on; `mask[i]` says whether id `i` is a target.

        Targets are what the assistant has to produce: its text, its tool calls, `assistant_end`. Longer
        conversations keep the whole question-and-answer pairs, from the start, that fit `max_tokens`.
        ValueError for roles out of order or no answer at all; ConversationTooLong if no pair fits.
        """
        turns = _turns(conversation)
        if len(turns) < 2:
            raise ValueError("the conversation has no assistant message, so nothing can be learned from it")
        ids, mask = [self.bos_id], [False]
        complete = 0
        for number, (role, parts) in enumerate(turns):
            for part_ids, counts in self._render_turn(role, parts):
                ids += part_ids
                mask += [counts] * len(part_ids)
            if max_tokens is not None and len(ids) > max_tokens:
                break
            if role == "assistant" or number == len(turns) - 1:
                complete = len(ids)
        if not complete:
            raise ConversationTooLong(f"the first question and answer do not fit into {max_tokens} tokens")
        return ids[:complete], mask[:complete]

    def render_for_completion(self, conversation: Conversation) -> list[int]:
        """Ids up to and with `assistant_start`: what the model answers to. Must end with a user message."""
        turns = _turns(conversation)
        if turns[-1][0] != "user":
            raise ValueError("the conversation must end with a user message for the assistant to answer")
        ids = [self.bos_id]
        for role, parts in turns:
            for part_ids, _ in self._render_turn(role, parts):
                ids += part_ids
        return [*ids, self.special("assistant_start")]

    def _render_turn(self, role: str, parts: list[tuple[str, str]]) -> Iterator[tuple[list[int], bool]]:
        answer = role == "assistant"
        yield [self.special(f"{role}_start")], False
        for (kind, _), ids in zip(parts, self.encode([text for _, text in parts]), strict=True):
            if kind == "text":
                yield ids, answer
            else:
                name = PART_MARKERS[kind]
                yield [self.special(f"{name}_start"), *ids, self.special(f"{name}_end")], kind == "python"
        yield [self.special(f"{role}_end")], answer

    # ------------------------------------------------------------------------- files

    def _canonical(self) -> dict[str, Any]:
        tokens = [base64.b64encode(token).decode() for token in self.tokens]
        facts = {"pattern": self.pattern, "specials": list(self.specials), "tokens": tokens}
        return {"format": FORMAT, "version": VERSION, **facts}

    def save(self, directory: Path | str) -> None:
        """Write `directory/tokenizer.json`."""
        facts = {**self._canonical(), "training": self.training, "hash": self.hash}
        write_json(Path(directory) / TOKENIZER_FILE, facts)

    @classmethod
    def load(cls, directory: Path | str) -> Tokenizer:
        """Read `directory/tokenizer.json`. ValueError if it is absent, foreign or damaged."""
        path = Path(directory) / TOKENIZER_FILE
        if not path.exists():
            raise ValueError(
                f"no tokenizer at {path}; make one (python -m scripts.tok_train) or set --tok-dir"
            )
        stored = read_json(path)
        if not isinstance(stored, dict) or (stored.get("format"), stored.get("version")) != (FORMAT, VERSION):
            raise ValueError(f"{path} is not a {FORMAT} file of version {VERSION}")
        try:
            tokens = [base64.b64decode(token, validate=True) for token in stored["tokens"]]
            tokenizer = cls(tokens, stored["pattern"], stored["specials"], stored["training"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error!r}); restore it or train again") from error
        if tokenizer.hash != stored["hash"]:
            raise ValueError(f"{path} is damaged (its hash does not match); restore it or train again")
        return tokenizer


class StreamDecoder:
    """Ids to text one at a time: `push` gives what has become certain, `flush` the rest.

    The pieces together are exactly `Tokenizer.decode` of all ids; a character split over several tokens
    appears with its last one, an unfinished one as U+FFFD on `flush`. Work per token is constant.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._tokenizer.decode_bytes([token_id]))

    def flush(self) -> str:
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


# ----------------------------------------------------------------------------- helpers


def _full_name(name: str) -> str:
    return name if name.startswith("<|") else f"<|{name}|>"


def _check_vocabulary(tokens: Sequence[bytes], specials: Sequence[str]) -> None:
    missing = 256 - len({token for token in tokens if len(token) == 1})
    if missing:
        raise ValueError(
            f"{missing} of the 256 single bytes are not in the vocabulary, which must have them all"
        )
    if len(set(tokens)) != len(tokens) or len(set(specials)) != len(specials):
        raise ValueError("the vocabulary names a token twice")
    if "<|bos|>" not in specials:
        raise ValueError("the special tokens lack <|bos|>")


def without_answer(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A conversation without the assistant's answer at its end, if it has one: what a model is asked."""
    return list(messages[:-1] if messages[-1]["role"] == "assistant" else messages)


def _turns(conversation: Conversation) -> list[tuple[str, list[tuple[str, str]]]]:
    """(role, parts) of each message, the system message merged into the first user message."""
    messages = list(conversation["messages"])
    for index, message in enumerate(messages):
        if not (isinstance(message, dict) and "role" in message and "content" in message):
            raise ValueError(f"message {index} is {message!r}; it must have a 'role' and a 'content'")
    system = ""
    first = 0
    if messages and messages[0]["role"] == "system":
        system, first = _plain_text(messages[0]["content"], 0), 1
    turns = []
    for index, message in enumerate(messages[first:], first):
        expected = "assistant" if (index - first) % 2 else "user"
        if message["role"] != expected:
            raise ValueError(
                f"message {index} has the role {message['role']!r} where {expected!r} is due: after an "
                "optional system message, user and assistant take turns, the user first"
            )
        if expected == "user":
            text = _plain_text(message["content"], index)
            turns.append(("user", [("text", f"{system}\n\n{text}" if system and index == first else text)]))
        else:
            turns.append(("assistant", _parts(message["content"], index)))
    if not turns:
        raise ValueError("the conversation has no user message")
    return turns


def _parts(content: str | list[dict[str, str]], index: int) -> list[tuple[str, str]]:
    """(type, text) of each part of a message; a string is one part of text."""
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, list):
        kind = type(content).__name__
        raise ValueError(f"message {index} has content of type {kind}; use a string or a list of parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", *PART_MARKERS) or not isinstance(part.get("text"), str):
            raise ValueError(
                f"message {index} has the part {part!r}; a part is "
                "{'type': 'text' | 'python' | 'python_output', 'text': str}"
            )
    return [(part["type"], part["text"]) for part in content]


def _plain_text(content: str | list[dict[str, str]], index: int) -> str:
    parts = _parts(content, index)
    if any(kind != "text" for kind, _ in parts):
        raise ValueError(f"message {index} is not the assistant's, so it may hold text only, no tool parts")
    return "".join(text for _, text in parts)
