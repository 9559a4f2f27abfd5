"""Tokenizers in other formats keep every id, by the judgement of the packages tiktoken and tokenizers."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from tiktoken_ext import openai_public
from tokenizers import decoders, models, pre_tokenizers, trainers

import rustbpe
from nanochat import interchange
from nanochat.common import read_json, write_json
from nanochat.dataset import iter_texts, split_shards
from nanochat.patterns import PATTERNS, portable
from nanochat.ranks import merge_pair
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer, split_pattern

pytestmark = pytest.mark.rust

TEXT = (
    "The cat sat on the mat, and the cat's hat sat on the mat. We'll see 12345 cats in 2026!\n\n"
    "def area(width, height):\n    return width * height  # metres\n"
    "Größe, naïve café, 東京, 한국어, Привет, 👩‍🚀🎉 <|bos| \t x   y\r\nCamelCase HTTPServer I'LL we'd's http://a/b\n"
) * 20  # fmt: skip
ALPHABET = (
    "abcXYZlLvVsStTdD' \n\r\t0123456789.,!?-()<|>/éßſǅʰ東京한글🎉👩‍\u0301\u0000\u0085\u00a0\u2028\ufeff"
)
BYTES = [bytes([i]) for i in range(256)]


def random_texts(seed: int, count: int, alphabet: str = ALPHABET) -> list[str]:
    rng = random.Random(seed)
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(40))) for _ in range(count)]
    planes = (0x250, 0x3000, 0xD800, 0x20000, 0x110000)
    for i in range(0, count, 4):
        chars = (chr(rng.randrange(rng.choice(planes))) for _ in range(20))
        texts[i] = "".join(c for c in chars if not "\ud800" <= c <= "\udfff")
    return texts


def trained(pattern: str, vocab_size: int = 400) -> Tokenizer:
    return Tokenizer.train([TEXT], vocab_size, pattern)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained(split_pattern())


def check_peer(peer: tokenizers.Tokenizer, ours: Tokenizer, texts: list[str]) -> None:
    """Same ids, and the same text back."""
    theirs = [e.ids for e in peer.encode_batch(texts, add_special_tokens=False)]
    assert theirs == ours.encode(texts)
    assert peer.decode_batch(theirs, skip_special_tokens=False) == texts


# ----------------------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize("name", PATTERNS)
def test_named_patterns_have_a_hand_written_splitter(name: str) -> None:
    # Only with one does a stream know ids before its end.
    assert rustbpe.Encoder(BYTES, PATTERNS[name]).stream().push("ab cd ") == list(b"ab cd")


@pytest.mark.parametrize("name", PATTERNS)
def test_tokenizers_reads_the_same_ids(name: str, tmp_path: Path) -> None:
    ours = trained(PATTERNS[name])
    path = tmp_path / "tokenizer.json"
    interchange.save_huggingface(ours, path)
    peer = tokenizers.Tokenizer.from_file(str(path))
    assert peer.get_vocab_size() == ours.vocab_size
    assert [peer.token_to_id(special) for special in SPECIAL_TOKENS] == list(
        map(ours.special, SPECIAL_TOKENS)
    )
    check_peer(peer, ours, [TEXT, "", *random_texts(1, 2000)])
    broken = [[i, j] for i in range(120, 300, 7) for j in range(128, 256, 5)]  # bytes that are no text alone
    assert peer.decode_batch(broken) == [ours.decode(ids) for ids in broken]
    assert interchange.load_huggingface(path).hash == ours.hash


def test_real_texts(test_data: Path, tmp_path: Path) -> None:
    train, validation = split_shards(test_data / "pretrain")
    ours = Tokenizer.train(islice(iter_texts(train), 500), 8192)
    path = tmp_path / "tokenizer.json"
    interchange.save_huggingface(ours, path)
    check_peer(tokenizers.Tokenizer.from_file(str(path)), ours, list(islice(iter_texts(validation), 250)))
    assert interchange.load_huggingface(path).hash == ours.hash


def test_special_tokens_are_control_there_and_text_here(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    interchange.save_huggingface(tokenizer, path)
    peer = tokenizers.Tokenizer.from_file(str(path))
    text = "<|user_start|>the cat<|user_end|>"
    start, end = tokenizer.special("user_start"), tokenizer.special("user_end")
    ids = [start, *tokenizer.encode("the cat"), end]
    assert peer.encode(text, add_special_tokens=False).ids == ids
    assert peer.decode(ids, skip_special_tokens=False) == text == tokenizer.decode(ids)
    assert peer.decode(ids) == "the cat"
    assert start not in tokenizer.encode(text) and tokenizer.decode(tokenizer.encode(text)) == text


def random_vocabulary(rng: random.Random) -> list[bytes]:
    """Tokens that no BPE training would give, in any order: parts behind wholes, wholes without parts."""
    letters = rng.choice(("ab", "abc", "aé"))
    words = {"".join(rng.choices(letters, k=rng.randrange(2, 7))).encode() for _ in range(rng.randrange(40))}
    tokens = [*BYTES, *sorted(words - set(BYTES))]
    rng.shuffle(tokens)
    return tokens


def test_any_ranks_become_merges_that_mean_the_same(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "tokenizer.json"
    unmade = 0
    for _ in range(40):
        ours = Tokenizer(random_vocabulary(rng), r"\S+|\s+")
        ranks = {token: rank for rank, token in enumerate(ours.tokens)}
        unmade += sum(merge_pair(token, ranks) is None for token in ours.tokens if len(token) > 1)
        interchange.save_huggingface(ours, path)
        check_peer(tokenizers.Tokenizer.from_file(str(path)), ours, random_texts(6, 60, "aabbcé "))
        assert interchange.load_huggingface(path).hash == ours.hash
    assert unmade > 15  # tokens that only whole pieces can be


def peer_trained(regex: str | None, specials: list[str]) -> tokenizers.Tokenizer:
    """A tokenizer as the package trains it: GPT-2's layout, or with a split pattern as of Llama 3."""
    peer = tokenizers.Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)]
    if regex:
        steps.insert(0, pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"))
    peer.pre_tokenizer = pre_tokenizers.Sequence(steps) if regex else steps[0]
    peer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    peer.train_from_iterator([TEXT], trainer)
    return peer


@pytest.mark.parametrize("name", [None, "cl100k", "o200k"])
def test_a_vocabulary_trained_elsewhere(name: str | None, tmp_path: Path) -> None:
    peer = peer_trained(name and PATTERNS[name], [])
    peer.add_special_tokens(["<|endoftext|>"])
    path = tmp_path / "theirs.json"
    peer.save(str(path))
    ours = interchange.load_huggingface(path)
    assert ours.pattern == PATTERNS[name or "gpt2"] and ours.specials == SPECIAL_TOKENS
    assert ours.training == {"special tokens left out": ["<|endoftext|>"]}
    check_peer(peer, ours, [TEXT, *random_texts(7, 1000)])
    kept = interchange.load_huggingface(path, ["<|bos|>", "<|endoftext|>"])
    assert kept.specials == ("<|bos|>", "<|endoftext|>") and not kept.training


def test_special_tokens_in_front_shift_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    peer_trained(None, ["<|endoftext|>"]).save(str(path))
    with pytest.raises(ValueError, match=r"up to the special tokens.*no token has the id 0"):
        interchange.load_huggingface(path)


def test_every_way_to_a_token_may_be_listed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As converters of ranks files do; the pairs beside the one that BPE makes never come up."""
    path = tmp_path / "tokenizer.json"
    interchange.save_huggingface(tokenizer, path)
    stored = read_json(path)
    vocab, merges = stored["model"]["vocab"], []
    for text in vocab:
        ways = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        merges += [list(way) for way in ways if way[0] in vocab and way[1] in vocab]
    assert len(merges) > len(stored["model"]["merges"])
    stored["model"]["merges"] = merges
    write_json(path, stored)
    check_peer(tokenizers.Tokenizer.from_file(str(path)), tokenizer, [TEXT, *random_texts(8, 500)])
    assert interchange.load_huggingface(path).hash == tokenizer.hash


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(stored: dict[str, Any]) -> None:
        for key in keys[:-1]:
            stored = stored[key]
        stored[keys[-1]] = value

    return change


def split(**changes: Any) -> dict[str, Any]:
    facts = {"type": "Split", "pattern": {"Regex": r"\s+|\S+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [{**facts, **changes}, level]}


def swap_merges(stored: dict[str, Any]) -> None:
    merges = stored["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


PLAIN = {"id": 400, "content": "  ", "special": False}
REFUSED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (put("model", "type", value="Unigram"), "its model is Unigram, not byte-level BPE"),
    (put("model", "type", value="WordPiece"), "its model is WordPiece"),
    (put("normalizer", value={"type": "NFC"}), "normalizer NFC, which changes text"),
    (put("model", "byte_fallback", value=True), "byte_fallback True"),
    (put("model", "dropout", value=0.1), "dropout 0.1"),
    (put("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix '</w>'"),
    (put("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix '##'"),
    (put("added_tokens", value=[PLAIN]), "adds tokens that are ordinary text ('  ')"),
    (put("pre_tokenizer", value=None), "its pre-tokenizer is null"),
    (put("pre_tokenizer", value={"type": "Metaspace"}), "Metaspace"),
    (put("pre_tokenizer", value={"type": "ByteLevel", "add_prefix_space": True}), "without add_prefix_space"),
    (put("pre_tokenizer", value=split(behavior="MergedWithNext")), "MergedWithNext"),
    (put("pre_tokenizer", value=split(invert=True)), '"invert": true'),
    (put("pre_tokenizer", value=split(pattern={"String": " "})), '"String"'),
    (
        put("pre_tokenizer", value=split(pattern={"Regex": r"\s+$|\S+|\s"})),
        r"engines differ on what '$|\\S+|\\s' at 3 means",
    ),
    (put("pre_tokenizer", value=split(pattern={"Regex": r"\p{Nonsense}"})), "Nonsense"),
    (put("model", "vocab", "▁the", value=600), "not byte-level: it holds '▁the'"),
    (put("model", "vocab", "a", value=700), "no token has the id 97"),
    (put("model", "vocab", "a", value=98), "no token has the id 97"),
    (put("model", "vocab", "zzzz", value=97), "two tokens have the id 97"),
    (put("model", "vocab", "zzzzz", value=391), "by its ids b'zzzzz' is merged from None"),
    (put("model", "vocab", "a", value="97"), "does not hold what its format asks for"),
    (put("model", "vocab", value=[["a", -1.0]]), "does not hold what its format asks for"),
    (put("model", "merges", value=[]), "not one of its merges"),
    (put("model", "merges", value=["a b c"]), "its merge 'a b c' is not of two tokens"),
    (put("model", "merges", value=["q q"]), "of tokens that are not in its vocabulary"),
    (swap_merges, "merges are not in the order of the ids"),
    (put("model", value=None), "does not hold what its format asks for"),
    (put("added_tokens", value=[{"id": 401, "content": "<|bos|>", "special": True}]), "from 391"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_no_byte_level_bpe_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.json"
    interchange.save_huggingface(tokenizer, path)
    stored = read_json(path)
    stored["model"]["ignore_merges"] = False
    change(stored)
    write_json(path, stored)
    with pytest.raises(ValueError) as caught:
        interchange.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_other_ways_to_write_the_same_are_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    interchange.save_huggingface(tokenizer, path)
    stored = read_json(path)
    stored["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    stored["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    stored["model"] |= {"unk_token": "", "continuing_subword_prefix": "", "ignore_merges": False}
    del stored["model"]["type"]  # as in the oldest files
    for token in tokenizer.specials:
        stored["model"]["vocab"][token] = tokenizer.special(token)
    write_json(path, stored)
    check_peer(tokenizers.Tokenizer.from_file(str(path)), tokenizer, [TEXT, *random_texts(14, 300)])
    assert interchange.load(path)[1].hash == tokenizer.hash


def test_what_tokenizer_json_can_not_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="an ordinary and a special token"):
        interchange.save_huggingface(Tokenizer([*BYTES, b"<|bos|>"], split_pattern()), path)
    with pytest.raises(ValueError, match="engines differ"):
        interchange.save_huggingface(Tokenizer(BYTES, r"\w+|\W"), path)
    assert not path.exists()


# ----------------------------------------------------------------------------- patterns


@pytest.mark.parametrize("name", ["gpt2", "cl100k", "o200k"])
def test_patterns_split_as_tiktoken_spells_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(openai_public, loader, lambda *_, **__: {})  # it would download the ranks
    published = openai_public.ENCODING_CONSTRUCTORS["gpt2" if name == "gpt2" else f"{name}_base"]()["pat_str"]
    for text in (*random_texts(9, 25), "".join(random_texts(10, 2000)), TEXT + " \n ", TEXT + "\r\n\r\n"):
        assert rustbpe.split(text, PATTERNS[name]) == rustbpe.split(text, published)


@pytest.mark.parametrize(
    "pattern",
    [r"\s+$", r"^\s", r"\p{N}{1,3}+", r"\p{N}{2}?", r"\w+", r"\bx", r"(?m:.)", r"(?s).", r"(?x) a",
     r"a{,3}", r"[a&&b]", r"[a--b]", r"[[:alpha:]]", r"(?P<n>a)", r"(a)\1", r"a**", r"\h", r"\R", r"\z",
     r"\p{^L}", r"[]a]", r"(?<=a)b", r"\x{41}", r"(?i)a", r"[\w]", "a\\"],
)  # fmt: skip
def test_patterns_that_engines_read_in_two_ways(pattern: str) -> None:
    with pytest.raises(ValueError, match="engines differ"):
        portable(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(?>a|b)+c", r"[^\r\n\p{L}\-\]/]?+x", r"a{2,}|b{3}|.", "[一-龥]+|\\.", "#&~-", r"((?!a)[a-z])"],
)
def test_patterns_that_engines_read_alike(pattern: str) -> None:
    assert portable(pattern) == pattern


# ----------------------------------------------------------------------------- tiktoken


def test_ranks_are_those_of_tiktoken(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    path = tmp_path / "x.tiktoken"
    interchange.save_tiktoken(tokenizer, path)
    ranks = tiktoken.load.load_tiktoken_bpe(str(path))
    peer = tiktoken.Encoding("x", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={})
    texts = [TEXT, *random_texts(12, 1000)]
    assert [peer.encode_ordinary(text) for text in texts] == tokenizer.encode(texts)
    lines = path.read_bytes().splitlines()
    random.Random(13).shuffle(lines)
    path.write_bytes(b"\r\n".join(lines))
    assert interchange.load_tiktoken(path, "gpt4").hash == tokenizer.hash
    assert interchange.load_tiktoken(path, tokenizer.pattern, ["<|bos|>"]).specials == ("<|bos|>",)


RANKS = [b"%s %d" % (tiktoken.load.base64.b64encode(token), rank) for rank, token in enumerate(BYTES)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "line 100: b'' is not a token"),
        (b"YWI=", "line 100: b'YWI=' is not a token"),
        (b"YWI= 256 7", "line 100: b'YWI= 256 7' is not a token"),
        (b"YWI=  256", "line 100: "),
        (b"YWI= -1", "line 100: "),
        (b"YWI= 1_0", "line 100: "),
        (b"YWI= \xd9\xa1", "line 100: "),  # an Arabic digit one
        (b"YWI= " + b"9" * 5000, "line 100: "),
        (b" 256", "line 100: "),
        (b"YWI 256", "line 100: 'YWI' is not base64"),
        (b"Y!WI= 256", "line 100: 'Y!WI=' is not base64"),
        ("é== 256".encode(), "line 100: 'é==' is not base64"),
        (b"\xff\xfe 256", "line 100 is not UTF-8"),
        (b"YQ== 256", "line 100: b'a' stands in line 98, too"),
        (b"YWI= 5", "line 100: rank 5 stands in line 6, too"),
        (b"YWI= 300", "line 100: rank 300 is there, but no line has rank 256"),
        (b"YWI= 256\n\nYWJj 257", "line 101: b'' is not a token"),
    ],
)
def test_a_faulty_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(b"\n".join([*RANKS[:99], line, *RANKS[99:]]) + b"\n")
    with pytest.raises(ValueError) as caught:
        interchange.load_tiktoken(path, "gpt4")
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_files_without_a_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    for content, message in ((b"", "256 of the 256"), (b"YQ== 0\n", "255 of the 256")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: {message}"):
            interchange.load_tiktoken(path, "gpt4")
    path.write_bytes(b"\n".join(RANKS))
    for pattern, message in (("gpt5", "no split pattern 'gpt5'"), ("(", "pattern")):
        with pytest.raises(ValueError, match=message):
            interchange.load_tiktoken(path, pattern)
    with pytest.raises(ValueError, match="there is no file"):
        interchange.load_tiktoken(tmp_path / "y.tiktoken", "gpt4")
