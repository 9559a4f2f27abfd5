"""scripts.tok_convert: from every format to every other with the same ids, or a message and no file."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import ROOT, commands
from test_pickle_record import GOOD

from nanochat import interchange
from nanochat.common import UsageError, sha256_file
from nanochat.dataset import write_shards
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer, split_pattern
from scripts import tok_convert

pytestmark = pytest.mark.rust
TEXT = (
    "The cat sat on the mat, and the cat's hat sat on the mat. We'll see 12345 cats in 2026!\n\nGröße 東京 "
    * 9
)


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """A tokenizer, saved as `tok` in the working directory."""
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train([TEXT], 300)
    tokenizer.save(tmp_path / "tok")
    return tokenizer


def convert(*args: str) -> None:
    tok_convert.main(list(args))


def test_round_trips(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    convert("--from", "tok", "--to", "out/deep/tokenizer.json")
    report = capsys.readouterr().out
    assert "by this kit and tokenizers 0." in report and f"hash {tokenizer.hash}" in report
    assert f"wrote out/deep/tokenizer.json, sha256 {sha256_file('out/deep/tokenizer.json')}" in report
    assert "300 ids: 291 tokens, then <|bos|>, <|user_start|>" in report
    convert("--from", "out/deep/tokenizer.json", "--to", "mine.tiktoken")
    convert("--from", "mine.tiktoken", "--to", "back", "--pattern", "gpt4")
    assert Tokenizer.load("back").hash == tokenizer.hash
    Path("x.pkl").write_bytes(GOOD)
    convert("source=x.pkl", "target=upstream")
    assert Tokenizer.load("upstream").specials == SPECIAL_TOKENS
    assert not list(Path(".").rglob(".tok_convert*"))


def test_a_folder_may_hold_either_tokenizer_json(tokenizer: Tokenizer) -> None:
    convert("--from", "tok", "--to", "theirs/tokenizer.json")
    convert("--from", "theirs", "--to", "ours")
    assert sha256_file("ours/tokenizer.json") == sha256_file("tok/tokenizer.json")
    convert("--from", "ours/tokenizer.json", "--to", "theirs", "--fresh")
    assert Tokenizer.load("theirs").hash == tokenizer.hash


def test_foreign_special_tokens_are_named(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    stored = Path("theirs.json")
    interchange.save_huggingface(tokenizer, stored)
    stored.write_text(stored.read_text(encoding="utf-8").replace("<|bos|>", "<|eot|>"), encoding="utf-8")
    convert("--from", "theirs.json", "--to", "ours")
    assert "left out, as this kit's take their place: <|eot|>\n" in capsys.readouterr().out
    assert Tokenizer.load("ours").training == {"special tokens left out": ["<|eot|>"]}


def test_nothing_is_overwritten_unasked(tokenizer: Tokenizer) -> None:
    Path("x.tiktoken").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"x\.tiktoken is there already; .* --fresh"):
        convert("--from", "tok", "--to", "x.tiktoken")
    assert Path("x.tiktoken").read_text(encoding="utf-8") == "mine"
    convert("--from", "tok", "--to", "x.tiktoken", "--fresh")
    assert len(Path("x.tiktoken").read_bytes().splitlines()) == 291
    with pytest.raises(UsageError, match=r"tok/tokenizer\.json is there already"):
        convert("--from", "x.tiktoken", "--to", "tok", "--pattern", "gpt4")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Set --from and --to"),
        (["--from", "tok"], "Set --from and --to"),
        (["--from", "none", "--to", "x"], "--from none: there is no such file"),
        (["--from", "tok", "--to", "x.pkl"], r"--to x.pkl: use a folder, NAME.tiktoken or NAME.json"),
        (["--from", "tok", "--to", "file"], "--to file: use a folder"),
        (["--from", "tok", "--to", "folder.json"], "folder.json is a folder with the name of a file"),
        (["--from", "empty", "--to", "x"], "no file empty/tokenizer.json"),
        (["--from", "tok", "--to", "x", "--pattern", "gpt4"], "leave --pattern out"),
        (["--from", "x.tiktoken", "--to", "x"], "set --pattern to one of gpt4, .*gpt2, or to a regular"),
        (["--from", "x.tiktoken", "--to", "x", "--pattern", "gpt3"], "no split pattern 'gpt3': use gpt4"),
        (["--from", "x.tiktoken", "--to", "x", "--pattern", "a(b"], "pattern"),
        (["--from", "x.tiktoken", "--to", "x", "--pattern", r"\p{L}+"], "matches nothing"),
        (["--from", "x.tiktoken", "--to", "x.json", "--pattern", r"\s+$|.|\s"], "engines differ"),
        (["--from", "file", "--to", "x"], "neither tiktoken ranks"),
        (["--from", "array.json", "--to", "x"], "neither tiktoken ranks"),
        (["--from", "broken.json", "--to", "x"], "broken.json is not valid JSON"),
        (["--from", "renamed.json", "--to", "x"], "must be named tokenizer.json"),
        (["--from", "evil.pkl", "--to", "x"], "GLOBAL is not allowed in it"),
    ],
)
def test_faults_are_named_and_leave_nothing(args: list[str], message: str, tokenizer: Tokenizer) -> None:
    Path("folder.json").mkdir()
    Path("empty").mkdir()
    Path("file").write_text("some text", encoding="utf-8")
    Path("array.json").write_text("[1]", encoding="utf-8")
    Path("broken.json").write_text('{"a": ', encoding="utf-8")
    Path("renamed.json").write_bytes(Path("tok/tokenizer.json").read_bytes())
    Path("evil.pkl").write_bytes(b"cos\nsystem\n(S'touch made'\ntR.")
    interchange.save_tiktoken(tokenizer, "x.tiktoken")
    before = sorted(Path(".").rglob("*"))
    with pytest.raises(ValueError, match=message):
        convert(*args)
    assert sorted(Path(".").rglob("*")) == before


def test_what_reads_back_otherwise_is_not_kept(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Tokenizer(tokenizer.tokens[::-1], split_pattern())
    write = interchange.save_huggingface
    monkeypatch.setattr(
        interchange, "save_huggingface", lambda _, path: write(other, path)
    )  # a faulty writer
    with pytest.raises(ValueError, match="this kit reads other ids from what was written"):
        convert("--from", "tok", "--to", "out/x.json")
    assert [path.name for path in Path(".").rglob("*")] == ["tok", "tokenizer.json"]


def test_without_rustbpe_a_pattern_with_holes_is_refused_too(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    interchange.save_tiktoken(tokenizer, "x.tiktoken")
    monkeypatch.setitem(sys.modules, "rustbpe", None)
    with pytest.raises(ValueError, match="leaves out some text"):
        convert("--from", "x.tiktoken", "--to", "x", "--pattern", r"\p{L}+")
    convert("--from", "x.tiktoken", "--to", "x", "--pattern", "gpt4")
    assert Tokenizer.load("x").hash == tokenizer.hash


@pytest.mark.slow
def test_the_how_to_guide(base: Path, tmp_path: Path) -> None:
    """Its commands, in order, as they stand."""
    Tokenizer.train([TEXT], 300).save(base / "tok")
    write_shards(base / "data", [TEXT] * 9, [TEXT])
    (base / "tokenizer").mkdir()
    (base / "tokenizer" / "tokenizer.pkl").write_bytes(GOOD)
    lines = commands("docs/how-to/convert-a-tokenizer.md")
    assert len(lines) >= 7
    for line in lines:
        line = line.replace(".venv/bin/python", shlex.quote(sys.executable))
        command = ["bash", "-euc", line.replace("~/.cache/nanochat", shlex.quote(str(base)))]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0 and run.stdout.strip(), f"{line}\n{run.stdout}\n{run.stderr}"
    hashes = {name: Tokenizer.load(base / name).hash for name in ("tok", "tok_back", "tok_hf")}
    assert len(set(hashes.values())) == 1
