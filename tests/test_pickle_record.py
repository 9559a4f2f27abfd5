"""Upstream's tokenizer.pkl is read without unpickling, and nothing hostile in such a file ever happens."""

from __future__ import annotations

import os
import pickle
import pickletools
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from nanochat import interchange
from nanochat.pickle_record import read_record
from nanochat.tokenizer import SPECIAL_TOKENS, split_pattern

BYTES = [bytes([i]) for i in range(256)]
RANKS = {token: rank for rank, token in enumerate([*BYTES, b"th", b"the", b" the", b"in", "ö".encode()])}
SPECIALS = {name: len(RANKS) + i for i, name in enumerate(SPECIAL_TOKENS)}
NAMED = b"\x8c\x0dtiktoken.core\x8c\x08Encoding\x93"  # pushes the one class that may be named


def upstream(**changes: Any) -> tiktoken.Encoding:
    facts = {"pat_str": split_pattern(), "mergeable_ranks": RANKS, "special_tokens": SPECIALS, **changes}
    return tiktoken.Encoding("rustbpe", **facts)


def record(data: bytes) -> dict[Any, Any]:
    return read_record(data, "tiktoken.core", "Encoding")


GOOD = pickle.dumps(upstream(), protocol=4)


@pytest.mark.parametrize("protocol", [4, 5])
def test_an_upstream_tokenizer_keeps_every_id(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    encoding = upstream()
    path.write_bytes(pickle.dumps(encoding, protocol=protocol))
    tokenizer = interchange.load_pickled(path)
    text = "the other thing, in the Größe of 1234567 \r\n <|bos|> \U0001f389"
    assert tokenizer.encode(text) == encoding.encode_ordinary(text)
    assert tokenizer.pattern == split_pattern() and tokenizer.vocab_size == encoding.n_vocab
    assert {name: tokenizer.special(name) for name in tokenizer.specials} == SPECIALS
    assert interchange.load(path)[1].hash == tokenizer.hash


def test_a_vocabulary_of_usual_size(tmp_path: Path) -> None:
    """More than the 1,000 items of one SETITEMS and than the 64 KB of one frame."""
    tokens = [*BYTES, *(b"%d" % i for i in range(10, 20_000))]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    specials = {name: len(tokens) + i for i, name in enumerate(SPECIAL_TOKENS)}
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(upstream(mergeable_ranks=ranks, special_tokens=specials)))
    assert interchange.load_pickled(path).tokens == tokens


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"special_tokens": {**SPECIALS, "<|extra|>": 400}}, "must go on behind the last token's, from 261"),
    ({"special_tokens": {name: i + 1 for name, i in SPECIALS.items()}}, "<|bos|> 262"),
    ({"special_tokens": {"<|endoftext|>": len(RANKS)}}, "lack <|bos|>"),
    ({"mergeable_ranks": {**RANKS, b"he": 265}, "special_tokens": {}}, "no token has the id 261"),
    ({"mergeable_ranks": {t: r for t, r in RANKS.items() if t != b"a"}}, "no token has the id 97"),
    ({"pat_str": r"\p{nonsense}+"}, "nonsense"),
    ({"mergeable_ranks": ["a"]}, "the instruction EMPTY_LIST is not allowed"),
    ({"mergeable_ranks": "a"}, "does not hold what its format asks for"),
    ({"pat_str": 7}, "does not hold what its format asks for"),
    ({"mergeable_ranks": {"a": 1}}, "not bytes with whole numbers"),
    ({"special_tokens": {"<|bos|>": "261"}}, "not str with whole numbers"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_ids_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    encoding = upstream()
    encoding.__dict__ |= {f"_{name}": value for name, value in changes.items()}
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(encoding))
    with pytest.raises(ValueError) as caught:
        interchange.load_pickled(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_reference_to_a_published_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = upstream()
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "rustbpe", encoding)  # then only its name is pickled
    with pytest.raises(ValueError, match="does not hold the state"):
        record(pickle.dumps(encoding))


# ----------------------------------------------------------------------------- hostile files


class Makes:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("within", ["alone", "mergeable_ranks", "special_tokens", "pat_str"])
def test_a_call_in_a_pickle_never_happens(protocol: int, within: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    bait: Any = Makes(made)
    if within != "alone":
        encoding = upstream()
        setattr(encoding, f"_{within}", bait)
        bait = encoding
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(bait, protocol=protocol))
    with pytest.raises(ValueError, match="nothing was executed"):
        interchange.load(path)
    assert not made.exists()
    try:
        pickle.loads(path.read_bytes())
    except (TypeError, ValueError, AttributeError):
        assert within != "alone"  # the Encoding around it minds what mkdir returns, too late
    assert made.exists()  # so the bait is alive: unpickling does bite


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


HOSTILE = {
    "global": b"cos\nsystem\n(S'touch made'\ntR.",
    "stack global": b"\x80\x04" + short("os") + short("system") + b"\x93" + short("touch made") + b"\x85R.",
    "eval": b"\x80\x04" + short("builtins") + short("eval") + b"\x93" + short("1/0") + b"\x85R.",
    "inst": b"(S'touch made'\nios\nsystem\n.",
    "obj": b"\x80\x04(" + short("os") + short("system") + b"\x93" + short("touch made") + b"o.",
    "obj of the class": b"\x80\x04(" + NAMED + b"o.",
    "reduce of the class": b"\x80\x04" + NAMED + b")R.",
    "newobj_ex": b"\x80\x04" + NAMED + b")}\x92.",
    "newobj of text": b"\x80\x04" + short("os") + b")\x81.",
    "newobj without a tuple": b"\x80\x04" + NAMED + b"}\x81.",
    "a dotted name": b"\x80\x04" + short("tiktoken.core") + short("Encoding.__init__") + b"\x93.",
    "a dotted module": b"\x80\x04" + short("tiktoken") + short("core.Encoding") + b"\x93.",
    "a name of numbers": b"\x80\x04K\x01K\x02\x93.",
    "persistent id": b"Pos.system\n.",
    "binary persistent id": b"\x80\x04" + short("os.system") + b"Q.",
    "extension 1": b"\x80\x04\x82\x01.",
    "extension 2": b"\x80\x04\x83\x01\x00.",
    "extension 4": b"\x80\x04\x84\x01\x00\x00\x00.",
    "build on a dict": b"\x80\x04}}b.",
    "build on the class": b"\x80\x04" + NAMED + b"}b.",
    "set on the object": b"\x80\x04" + NAMED + b")\x81" + short("a") + b"K\x01s.",
    "set by a number": b"\x80\x04}K\x01K\x01s.",
    "set by a dict": b"\x80\x04}}K\x01s.",
    "a key without value": b"\x80\x04}(" + short("a") + b"u.",
    "memo from nowhere": b"\x80\x04h\x07.",
    "memo far away": b"\x80\x04j\xff\xff\xff\xff.",
    "put far away": b"\x80\x04}r\xff\xff\xff\xff.",  # unpickling takes memory for 2**32 memo entries
    "empty stack": b"\x80\x04s.",
    "no mark": b"\x80\x04}u.",
    "only the class": b"\x80\x04" + NAMED + b".",
    "no state": b"\x80\x04" + NAMED + b")\x81.",
    "state of numbers": b"\x80\x04" + NAMED + b")\x81K\x07b.",
    "two objects": GOOD[:-1] + NAMED + b")\x81.",
    "another class": GOOD.replace(b"tiktoken.core", b"tiktoken.cor3"),
    "a text as class": GOOD.replace(
        b"\x8c\x0dtiktoken.core\x94\x8c\x08Encoding\x94\x93", b"\x8c\x08Encoding"
    ),
    "a dict as arguments": GOOD.replace(b")\x81", b"}\x81"),
    "more behind": GOOD + b"cos\nsystem\n.",
    "unknown instruction": b"\x80\x04\xff.",
    "nothing": b"",
    "text": b"the cat sat on the mat",
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "bytes of 2**64-1": b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"abc.",
    "bytes of 2**32-1": b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"abc.",
    "text of 2**62": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "text of 2**32-1": b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"abc.",
    "bytearray of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "number of 2**31-1 bytes": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",
    "frame of 2**64-1": b"\x80\x04\x95" + struct.pack("<Q", 2**64 - 1) + b"}.",
    "deep": b"\x80\x04" + (b"}" + short("a")) * 20_000 + b"}" + b"s" * 20_000 + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"tokenizer\.pkl"):
        interchange.load_pickled(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # what a file declares is not what it gets
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.pkl"]


def test_a_state_within_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    state = b"}\x94(" + short("mergeable_ranks") + b"h\x00" + short("special_tokens") + b"h\x00u"
    path.write_bytes(b"\x80\x04" + NAMED + b")\x81" + state + b"b.")
    with pytest.raises(ValueError, match="whole numbers"):
        interchange.load_pickled(path)


def test_every_truncation_is_refused() -> None:
    assert record(GOOD)["mergeable_ranks"] == RANKS
    for end in range(len(GOOD)):
        with pytest.raises(ValueError):
            record(GOOD[:end])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pickletools on a damaged protocol 0 string
def test_damaged_files_are_refused_or_plain_data() -> None:
    rng = random.Random(11)
    refused = 0
    for _ in range(1500):
        data = bytearray(GOOD)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            state = record(bytes(data))
        except ValueError:
            refused += 1
            continue
        assert type(state) is dict
        for part in (v for v in state.values() if type(v) is dict):
            assert all(type(key) in (str, bytes) for key in part)
    assert 250 < refused < 1500


def test_only_these_instructions_have_code() -> None:
    """Every instruction of the pickle language is tried; what calls or names is not among those known."""
    known = set()
    for opcode in pickletools.opcodes:
        try:
            record(b"\x80\x04" + opcode.code.encode("latin-1") + b"1\n1\n.")
        except ValueError as error:
            if "is not allowed" not in str(error):
                known.add(opcode.name)
    assert not known & {"REDUCE", "INST", "OBJ", "GLOBAL", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "DUP"}
    assert {"NEWOBJ", "STACK_GLOBAL", "BUILD", "SETITEMS"} <= known
