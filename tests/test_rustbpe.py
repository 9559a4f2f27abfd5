"""`rustbpe` against a slow twin and against tiktoken; what it must not depend on; its errors.

What it is not: a benchmark. How to run it: `python -m pytest tests/test_rustbpe.py`.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from nanochat.bench.hostile import HOSTILE
from nanochat.dataset import read_documents
from tests import reference_bpe as twin

try:
    import rustbpe
except ImportError:
    if "rust" in os.environ.get("NANOCHAT_REQUIRE", "").split(","):
        raise
    pytest.skip("rustbpe is not installed", allow_module_level=True)

pytestmark = pytest.mark.rust
PATTERN = rustbpe.GPT4_PATTERN
BYTES = [bytes([byte]) for byte in range(256)]
# Each sort of character that the pattern tells apart, and the neighbours of the sorts.
NASTY = "aAzsSdmtlLvVrReE\u017féßж中\u0301019²Ⅷ٣'\u2019!_-.,§\u200d😀 \t\n\r\x0b\x85\xa0\u2028\u3000"
MEGABYTE = 1_000_000


def random_text(rng: random.Random, alphabet: str, max_chars: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(0, max_chars)))


def any_unicode(rng: random.Random, n_chars: int) -> str:
    """Characters from all planes; the low ones, where the interesting classes are, more often."""
    points = (rng.randrange(rng.choice((0x80, 0x250, 0x3100, 0x20000, 0x110000))) for _ in range(n_chars))
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def tiktoken_of(tokens: list[bytes], pattern: str = PATTERN) -> tiktoken.Encoding:
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="module")
def nasty_tokens() -> list[bytes]:
    rng = random.Random(0)
    documents = [random_text(rng, NASTY, 60) for _ in range(300)]
    documents += ["the rain, the wind's 1234 ways\n  don't WE'LL they've " * 3, any_unicode(rng, 20_000)]
    return rustbpe.train(documents, 700, max_doc_chars=30_000)


# ----------------------------------------------------------------------------- training


@pytest.mark.parametrize("alphabet", ["a", "ab", "ab ", "abcdef  ", "a1 '\n", "aé中😀 "])
def test_train_equals_the_twin(alphabet: str) -> None:
    for seed in range(6):
        rng = random.Random(seed)
        documents = [random_text(rng, alphabet, 50) for _ in range(2 * seed + 1)]
        assert rustbpe.train(documents, 310) == twin.train(documents, 310, PATTERN)


def test_train_is_independent_of_order_and_threads() -> None:
    rng = random.Random(1)
    documents = [random_text(rng, "abcd 'é\n1", 200) for _ in range(500)]
    tokens = rustbpe.train(documents, 600, threads=1)
    assert len(tokens) == len(set(tokens)) == 600
    assert tokens[:256] == BYTES
    for threads in (0, 2, 3):
        rng.shuffle(documents)
        assert rustbpe.train(iter(documents), 600, threads=threads) == tokens


def test_train_counts_all_chunks_of_a_long_stream() -> None:
    # 40 MB, counted in chunks of 16 MiB: were one lost, a word would be missing or another would lead.
    megabytes = {"ab ": 12, "cd ": 20, "gh ": 3, "ef ": 5}
    stream = (word * (MEGABYTE // 3) for word, n in megabytes.items() for _ in range(n))
    tokens = rustbpe.train(stream, 264, max_doc_chars=MEGABYTE)
    assert tokens[256:] == [b"cd", b" cd", b"ab", b" ab", b"ef", b" ef", b"gh", b" gh"]


def test_train_reads_no_more_than_it_is_told() -> None:
    assert rustbpe.train(["é" * 10 + "ab" * 100], 300, max_doc_chars=10)[256] == "é".encode()
    assert b"ab" not in rustbpe.train(["é" * 10 + "ab" * 100], 300, max_doc_chars=10)

    def endless() -> Iterator[str]:
        while True:
            yield "abcd" * 10

    assert rustbpe.train(endless(), 258, max_chars=1_234) == [*BYTES, b"ab", b"cd"]


def test_train_with_little_or_no_text_gives_fewer_tokens() -> None:
    assert rustbpe.train([], 1_000) == rustbpe.train(["", "a"], 1_000) == BYTES
    assert rustbpe.train(["ab a b"], 1_000) == [*BYTES, b" a", b" b", b"ab"]


def test_ctrl_c_stops_training() -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        rustbpe.train(itertools.repeat("no Python code runs between two of these"), 300, max_chars=10**12)


def test_an_error_of_the_iterator_comes_through() -> None:
    def broken() -> Iterator[str]:
        yield "text"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        rustbpe.train(broken(), 300)


# ----------------------------------------------------------------------------- splitting


def test_split_pieces() -> None:
    assert rustbpe.split("Hello, world's 1234!") == ["Hello", ",", " world", "'s", " ", "12", "34", "!"]
    assert rustbpe.split("123456", PATTERN.replace("{1,2}", "{1,3}")) == ["123", "456"]
    assert rustbpe.split("123", PATTERN.replace("{1,2}", "{1,1}")) == ["1", "2", "3"]
    assert rustbpe.split("") == []


def test_classes_of_characters_equal_those_of_tiktoken() -> None:
    # With these tokens the ids show where "x", "1", "!" and " " hold together with a character.
    rng = random.Random(2)
    characters = sorted(set(any_unicode(rng, 6_000)))
    texts = [left + character for left in "x1! '" for character in characters]
    tokens = BYTES + sorted({text.encode() for text in texts} - set(BYTES))
    theirs = tiktoken_of(tokens)
    assert rustbpe.Encoder(tokens).encode_batch(texts) == [theirs.encode_ordinary(text) for text in texts]


# ----------------------------------------------------------------------------- encoding


FAMILY = {digits: PATTERN.replace("{1,2}", digits) for digits in ("{1,1}", "{1,3}")}
REGEX = {"regex": PATTERN.replace("{1,2}", "{1,4}")}  # runs on the regex engine


@pytest.mark.parametrize("pattern", (named := {**rustbpe.PATTERNS, **FAMILY, **REGEX}).values(), ids=named)
def test_encode_equals_tiktoken_and_the_twin(nasty_tokens: list[bytes], pattern: str) -> None:
    ours, theirs = rustbpe.Encoder(nasty_tokens, pattern), tiktoken_of(nasty_tokens, pattern)
    rng = random.Random(3)
    for _ in range(300):
        for text in (random_text(rng, NASTY, 40), any_unicode(rng, 30), random_text(rng, "ab' \n", 300)):
            ids = ours.encode(text)
            assert ids == theirs.encode_ordinary(text), text
            assert ours.decode_bytes(ids) == text.encode()
    for _ in range(20):
        text = random_text(rng, NASTY, 100)
        assert ours.encode(text) == twin.encode(nasty_tokens, text, pattern)


def test_encode_equals_tiktoken_for_ranks_that_no_training_gives() -> None:
    rng = random.Random(4)
    for _ in range(30):
        tokens = BYTES + sorted({random_text(rng, "abc", 6).encode() for _ in range(60)} - {*BYTES, b""})
        rng.shuffle(tokens)
        ours, theirs = rustbpe.Encoder(tokens), tiktoken_of(tokens)
        for size in (10, 90, 600):
            text = random_text(rng, "abc", size)
            assert ours.encode(text) == theirs.encode_ordinary(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_keeps_its_ids_its_bytes_and_a_bounded_time(name: str) -> None:
    runs = [letter * (1 << power) for letter in (b"a", b" ", b"\n", b"AC") for power in range(1, 8)]
    words = [b"AC", b"GT", b"CG", b"\t ", b"ab", b"aba", b"ba", b"'s", "\u3000".encode() * 2]
    tokens = list(dict.fromkeys([*BYTES, *words, *runs[:-7]]))
    encoder, text = rustbpe.Encoder(tokens), HOSTILE[name](MEGABYTE // 16)
    assert len(text) == MEGABYTE // 16
    assert encoder.encode(text) == tiktoken_of(tokens).encode_ordinary(text)
    text = HOSTILE[name](MEGABYTE)
    start = time.process_time()
    ids = encoder.encode(text)
    assert time.process_time() - start < 2  # quadratic would be minutes; `scripts.bench tokenize` has figures
    assert encoder.decode_bytes(ids) == text.encode()


@pytest.mark.slow
def test_a_million_strings_equal_tiktoken(test_data: Path) -> None:
    """Seed 11: half of nasty characters, half from all planes, and all the real text in cuts of 16 to 200."""
    shards = sorted((test_data / "pretrain").glob("*.parquet"))
    documents = [text for shard in shards for text in read_documents(shard)]
    tokens = rustbpe.train(documents, 32_768)
    ours, theirs = rustbpe.Encoder(tokens), tiktoken_of(tokens)
    rng = random.Random(11)
    real = "".join(documents)
    texts = [real[at : at + rng.randint(16, 200)] for at in range(0, len(real), 200)]
    nasty = "".join(rng.choices(NASTY, k=8 * MEGABYTE)), any_unicode(rng, 4 * MEGABYTE)
    texts += [text[at : at + rng.randint(1, 16)] for text in nasty for at in range(0, len(text), 16)]
    assert len(texts) >= MEGABYTE
    for start in range(0, len(texts), 100_000):
        part = texts[start : start + 100_000]
        assert ours.encode_batch(part) == [theirs.encode_ordinary(text) for text in part]


def test_surrogates_become_what_tiktoken_makes_of_them(nasty_tokens: list[bytes]) -> None:
    ours, theirs = rustbpe.Encoder(nasty_tokens), tiktoken_of(nasty_tokens)
    assert ours.decode_bytes(ours.encode("a\ud800b")) == "a\ufffdb".encode()
    assert ours.decode_bytes(ours.encode("\ud83d\ude00")) == "\U0001f600".encode()
    rng = random.Random(7)
    for _ in range(300):
        text = random_text(rng, "a \ud800\udbff\udc00\udfff😀", 8)
        assert ours.encode(text) == theirs.encode_ordinary(text), ascii(text)
    assert rustbpe.train(["\ud800"], 300) == rustbpe.train(["\ufffd"], 300)


def test_batches_equal_their_texts_one_by_one(nasty_tokens: list[bytes]) -> None:
    encoder, rng = rustbpe.Encoder(nasty_tokens), random.Random(8)
    texts = [any_unicode(rng, rng.randint(0, 60)) for _ in range(1_500)]
    rows = [encoder.encode(text) for text in texts]
    for threads in (0, 1, 3):
        assert encoder.encode_batch(texts, threads=threads) == rows
        ids, offsets = encoder.encode_batch_flat(texts, threads=threads)
        parts = np.split(np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64)[1:-1].astype(int))
        assert [part.tolist() for part in parts] == rows
        ids16, offsets16 = encoder.encode_batch_flat(texts, threads=threads, itemsize=2)
        assert offsets16 == offsets
        np.testing.assert_array_equal(np.frombuffer(ids16, np.uint16), np.frombuffer(ids, np.uint32))
    assert encoder.decode_batch(rows) == [text.encode() for text in texts]
    assert encoder.encode_batch([]) == []
    assert encoder.encode_batch_flat([]) == (bytearray(), bytearray(8))


def test_threads_work_after_a_fork() -> None:
    program = (
        "import os, rustbpe\n"
        "encoder = rustbpe.Encoder([bytes([b]) for b in range(256)])\n"
        "work = lambda: encoder.encode_batch(['some text ' * 5_000] * 4, threads=2)\n"
        "rows = work()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if work() == rows else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0


def test_decode_takes_any_ids(nasty_tokens: list[bytes]) -> None:
    encoder, rng = rustbpe.Encoder(nasty_tokens), random.Random(9)
    ids = [rng.randrange(encoder.n_tokens) for _ in range(1_000)]
    expected = b"".join(nasty_tokens[id] for id in ids)
    assert encoder.decode_bytes(ids) == encoder.decode_bytes(np.array(ids)) == expected


# ----------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a"], 255), {}, "vocab_size = 255: must be at least 256"),
        ((["a"], -1), {}, "vocab_size = -1"),
        ((["a"], 300, "("), {}, "not a valid regex"),
        ((["ab"], 300, "a"), {}, r"matches nothing in bytes 1\.\.2"),
        (("one string", 300), {}, "iterable of strings"),
        ((["a"], 300), {"max_doc_chars": 0}, "max_doc_chars = 0"),
        ((["a"], 300), {"max_chars": 0}, "max_chars = 0"),
        ((["a"], 300), {"threads": -1}, "threads = -1"),
        ((["a"], 300), {"threads": 10**6}, "threads = 1000000: must be 0"),
    ],
)
def test_train_refuses(arguments: tuple, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rustbpe.train(*arguments, **options)


def test_a_batch_is_no_string() -> None:
    encoder = rustbpe.Encoder(BYTES)
    for call in (encoder.encode_batch, encoder.encode_batch_flat):
        with pytest.raises(ValueError, match="texts is one string: pass an iterable"):
            call("one string")


def test_flat_ids_of_two_bytes_need_a_vocabulary_that_fits() -> None:
    many = [*BYTES, *sorted({f"{n:05}".encode() for n in range(65_281)})]
    for tokens, itemsize in ((BYTES, 3), (BYTES, 8), (many, 2)):
        with pytest.raises(ValueError, match=f"itemsize = {itemsize}: must be 4, or 2"):
            rustbpe.Encoder(tokens).encode_batch_flat(["a"], itemsize=itemsize)


def test_training_tells_its_progress_and_passes_errors_on() -> None:
    documents = [any_unicode(random.Random(10), 4_000)]
    seen: list[tuple[int, int]] = []
    tokens = rustbpe.train(documents, 1_100, progress=lambda done, of: seen.append((done, of)))
    assert tokens == rustbpe.train(documents, 1_100) and len(tokens) == 1_100
    assert seen == [(512, 1_100), (768, 1_100), (1_024, 1_100)]

    def broken(done: int, of: int) -> None:
        raise OSError("terminal gone")

    with pytest.raises(OSError, match="terminal gone"):
        rustbpe.train(documents, 1_100, progress=broken)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (BYTES[1:], "single byte 0 is missing"),
        ([*BYTES, b"a"], "are the same"),
        ([*BYTES, b""], "256 is empty"),
    ],
)
def test_encoder_refuses_a_bad_vocabulary(tokens: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rustbpe.Encoder(tokens)


@pytest.mark.parametrize("id", [-1, 256, 2**31, 2**63, -(2**70)])
def test_decode_refuses_an_unknown_id(id: int) -> None:
    with pytest.raises(ValueError, match="unknown token id"):
        rustbpe.Encoder(BYTES).decode_bytes([65, id])


def test_a_pattern_that_cannot_cope_is_an_error_and_not_a_loss() -> None:
    with pytest.raises(ValueError, match="failed at byte 0"):
        rustbpe.split("a" * 3_000 + "b", r"(?:(?=a)(a|aa)+)+$|.")
    with pytest.raises(ValueError, match="would be lost"):
        rustbpe.Encoder(BYTES, r"\w+").encode("two words")


def test_wrong_types_are_type_errors() -> None:
    encoder = rustbpe.Encoder(BYTES)
    for call in (
        lambda: rustbpe.train([b"a"], 300),
        lambda: encoder.encode(b"a"),
        lambda: encoder.encode_batch(["a", b"a"]),
    ):
        with pytest.raises(TypeError):
            call()
