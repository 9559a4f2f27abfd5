"""`scripts.tok_train` and `scripts.tok_eval` on small folders, and the shares of several sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat import compression
from nanochat.dataset import write_shards
from nanochat.tokenizer import Tokenizer, split_pattern
from scripts import tok_eval, tok_train

pytestmark = pytest.mark.rust

TEXT = (
    "The cat sat on the mat, and the cat's hat sat on the mat. We'll see 12345 cats in 2026!\n\n"
    "def area(width, height):\n    return width * height  # metres\n"
    "Größe, naïve café, 東京, 한국어, Привет, 👩‍🚀🎉 <|bos|> \t x   y\r\nA quick brown fox jumps over it.\n"
) * 40


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    write_shards(tmp_path / "data", [f"{i}: {TEXT}" for i in range(5)], ["unseen zebra quartz " + TEXT])
    return ["--base-dir", str(tmp_path), "--data-dir", "data", "--tok-dir", "tok"]


def test_tok_train_once(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tok_train.main([*places, "--vocab-size", "400", "--digits", "1"])
    made = Tokenizer.load(tmp_path / "tok")
    assert made.vocab_size == 400 and made.pattern == split_pattern(1)
    assert made.training["documents"] == 5 and b" zebra" not in made.tokens
    assert "read 100 %  document 5/5" in capsys.readouterr().out
    tok_train.main([*places, "--vocab-size", "400", "--digits", "1"])
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"holds another tokenizer .vocab_size 400 there, 401 asked.*--fresh"
    ):
        tok_train.main([*places, "--vocab-size", "401", "--digits", "1"])
    tok_train.main([*places, "--vocab-size", "401", "--fresh"])
    assert Tokenizer.load(tmp_path / "tok").vocab_size == 401


def test_tok_train_from_folders_with_shares(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three folders of three kinds; the text that is read keeps to the shares until the first has no more."""
    letters = {"data": "wx", "books": "yz", "forum": "pq"}
    write_shards(tmp_path / "data", [f"{'wx' * 50}"] * 80, ["unseen"])
    for name in ("books", "forum"):
        (tmp_path / name).mkdir()
    for number in range(20):
        (tmp_path / "books" / f"{number}.txt").write_text("yz" * 80)
    lines = [json.dumps({"text": "pq" * 30}) for _ in range(100)]
    (tmp_path / "forum" / "posts.jsonl").write_text("\n".join(lines))
    sources = ["--sources", "data=45,books=40,forum=15"]
    tok_train.main([*places, *sources, "--vocab-size", "272"])
    out = capsys.readouterr().out
    training = Tokenizer.load(tmp_path / "tok").training
    chars = training["chars_of"]
    assert sum(chars.values()) == training["chars"] and set(chars) == set(letters)
    assert chars["books"] == 20 * 160 and "books: 3,200 characters, 40." in out  # the first that has no more
    for name, share in (("data", 0.45), ("books", 0.40), ("forum", 0.15)):
        assert chars[name] / training["chars"] == pytest.approx(share, abs=0.02)
    assert {b"wx", b"yz", b"pq"} <= set(Tokenizer.load(tmp_path / "tok").tokens)
    tok_train.main([*places, *sources, "--vocab-size", "272"])
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds another tokenizer"):
        tok_train.main([*places, "--sources", "data=1,books=1", "--vocab-size", "272"])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ("data", "sources 'data': write FOLDER=SHARE"),
        ("data=0", "shares above 0"),
        ("data=nan", "shares above 0"),
        ("data=1,data=2", "each folder once"),
        (",", "name at least one"),
        ("nowhere=1", "there is no folder"),
        ("empty=1", r"no .jsonl, .md, .parquet, .txt file"),
        ("latin=1", "is not UTF-8 text"),
    ],
)
def test_tok_train_refuses_sources(places: list[str], tmp_path: Path, sources: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "image.png").write_bytes(b"")
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "old.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        tok_train.main([*places, "--sources", sources])


def test_tok_eval(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tok_train.main([*places, "--vocab-size", "400"])
    tok_eval.main([*places, "--no-references"])
    facts = json.loads((tmp_path / "tok" / "eval.json").read_text())
    ratios = facts["bytes_per_token"]["this one"]
    assert facts["hash"] == Tokenizer.load(tmp_path / "tok").hash
    assert set(ratios) == {*compression.TEXTS, "train", "val"} and ratios["train"] > ratios["korean"] >= 1
    assert f"{ratios['news']:.2f}" in capsys.readouterr().out
    plot = (tmp_path / "tok" / "compression.svg").read_text()
    assert f">{ratios['news']:.2f}<" in plot and ">korean<" in plot
