"""Shards and manifests: what is listed is what is read, and every fault names its file and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataset import (
    MANIFEST,
    PREPARING,
    content_hash,
    iter_texts,
    list_shards,
    load_manifest,
    read_documents,
    read_row_group,
    source_files,
    split_shards,
    write_shards,
)
from scripts import prepare_data


def documents(n: int, tag: str = "doc") -> list[str]:
    return [f"{tag} {i}: " + "word " * (i % 17) for i in range(n)]


def write_plain(path: Path, texts: list[str | None], column: str = "text") -> None:
    """A shard as others write it: no manifest, small row groups."""
    pq.write_table(pa.table({column: pa.array(texts, pa.string())}), path, row_group_size=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        write_plain(tmp_path / f"shard_{i:05d}.parquet", documents(25, f"shard{i}"))
    return tmp_path


def fingerprint(directory: Path) -> str:
    return load_manifest(directory, verify=False).fingerprint


def everything(directory: Path, split: str) -> list[str]:
    return list(iter_texts(load_manifest(directory).split(split)))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- manifests


def test_manifest_is_made_on_first_use(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a shard")
    (folder / "shard_00009.parquet.tmp").write_text("not a shard either")
    assert [p.name for p in list_shards(folder)] == [f"shard_{i:05d}.parquet" for i in range(3)]
    made = load_manifest(folder)
    assert [s.split for s in made.shards] == ["train", "train", "val"]
    assert [s.row_groups for s in made.shards] == [(10, 10, 5)] * 3 and made.shards[0].rows == 25
    assert load_manifest(folder) == made and (folder / MANIFEST).exists()
    assert json.loads((folder / MANIFEST).read_text())["shards"][0]["name"] == "shard_00000.parquet"
    train, val = split_shards(folder)
    assert (train, val) == (list(made.shards[:2]), list(made.shards[2:]))


def test_a_read_only_folder_works_and_stays_as_it_is(folder: Path) -> None:
    folder.chmod(0o555)
    assert len(load_manifest(folder).shards) == 3 and not (folder / MANIFEST).exists()
    folder.chmod(0o755)


def test_shards_that_come_later_do_not_change_the_data(folder: Path) -> None:
    before = fingerprint(folder)
    write_plain(folder / "shard_00003.parquet", documents(5))
    assert fingerprint(folder) == before
    assert load_manifest(folder).unlisted() == ["shard_00003.parquet"]


def test_fingerprint_is_of_the_content(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for path in list_shards(folder):
        (other / path.name).write_bytes(path.read_bytes())
    assert fingerprint(folder) == fingerprint(other)
    write_plain(other / "shard_00001.parquet", documents(25, "changed"))
    (other / MANIFEST).unlink()
    assert fingerprint(folder) != fingerprint(other)


def test_manifest_names_the_validation_split(folder: Path) -> None:
    load_manifest(folder)
    stored = json.loads((folder / MANIFEST).read_text())
    for shard, split in zip(stored["shards"], ("val", "train", "train"), strict=True):
        shard["split"] = split
    (folder / MANIFEST).write_text(json.dumps(stored))
    assert [s.name for s in split_shards(folder)[1]] == ["shard_00000.parquet"]


# ----------------------------------------------------------------------------- faults


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"no shard_00000\.parquet.* in .*scripts\.prepare_data"):
            load_manifest(place)


def test_one_shard_is_too_few(tmp_path: Path) -> None:
    write_plain(tmp_path / "shard_00000.parquet", documents(5))
    with pytest.raises(ValueError, match=r"0 training and 1 validation shards .*two or more"):
        load_manifest(tmp_path)


def test_missing_shard(folder: Path) -> None:
    load_manifest(folder)
    (folder / "shard_00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"shard_00001\.parquet is missing.*fetch it again"):
        load_manifest(folder, verify=False)


def test_truncated_and_flipped_shards(folder: Path) -> None:
    load_manifest(folder)
    path = folder / "shard_00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"shard_00001\.parquet is damaged .*bytes instead of"):
        load_manifest(folder, verify=False)
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    load_manifest(folder, verify=False)
    with pytest.raises(ValueError, match=r"shard_00001\.parquet is damaged .its sha256"):
        load_manifest(folder)


def test_damaged_parquet_on_first_use_and_on_reading(folder: Path) -> None:
    path = folder / "shard_00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"PAR1 is all that is right here")
    with pytest.raises(ValueError, match=r"shard_00001\.parquet is damaged"):
        load_manifest(folder)
    path.write_bytes(whole[:8] + bytes(len(whole) // 3) + whole[8 + len(whole) // 3 :])
    with pytest.raises(ValueError, match=r"shard_00001\.parquet is damaged"):
        read_row_group(path, 0)


def test_every_damaged_byte_is_an_error_or_text(folder: Path) -> None:
    path = folder / "shard_00000.parquet"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            texts = read_row_group(path, 0)
        except ValueError as error:
            assert "shard_00000.parquet" in str(error)
        else:
            assert all(isinstance(t, str) for t in texts)


def test_no_text_column(tmp_path: Path) -> None:
    for i in range(2):
        write_plain(tmp_path / f"shard_{i:05d}.parquet", documents(5), column="content")
    message = r"no text column 'text'; its columns: content \(string\).*--text-column"
    with pytest.raises(ValueError, match=message):
        load_manifest(tmp_path)


def test_broken_manifest(folder: Path) -> None:
    for content in ("{", "[]", '{"shards": [{"name": "x"}], "origin": {}}'):
        (folder / MANIFEST).write_text(content)
        with pytest.raises(ValueError, match=r"manifest\.json cannot be read .*delete it"):
            load_manifest(folder)


# ----------------------------------------------------------------------------- reading and writing


def test_a_null_is_an_empty_document(tmp_path: Path) -> None:
    path = tmp_path / "shard_00000.parquet"
    write_plain(path, ["a", None, "b"])
    assert read_row_group(path, 0) == ["a", "", "b"]


def test_write_shards_keeps_every_document(tmp_path: Path) -> None:
    texts = documents(3000)
    made = write_shards(tmp_path, texts, ["held out"], shard_mb=0.05, origin={"seed": 1})
    assert len(made.split("train")) > 2 and made.origin == {"seed": 1}
    assert sorted(everything(tmp_path, "train")) == sorted(texts) and everything(tmp_path, "val") == [
        "held out"
    ]
    assert load_manifest(tmp_path) == made
    assert everything(tmp_path, "train")[:20] != texts[:20]  # neighbours are mixed
    assert max(max(s.row_groups) for s in made.shards) <= 1024


def test_write_shards_twice_gives_the_same_bytes_and_no_leftover(tmp_path: Path) -> None:
    many = write_shards(tmp_path, documents(2000), ["v"], shard_mb=0.02)
    few = write_shards(tmp_path, documents(200), ["v"], shard_mb=0.02)
    again = write_shards(tmp_path, documents(200), ["v"], shard_mb=0.02)
    assert few == again and len(few.shards) < len(many.shards) and not few.unlisted()


def test_an_interrupted_write_is_noticed(tmp_path: Path) -> None:
    write_shards(tmp_path, documents(100), ["v"])

    def breaks() -> object:
        yield "one"
        raise RuntimeError("power is gone")

    with pytest.raises(RuntimeError):
        write_shards(tmp_path, breaks(), ["v"])  # type: ignore[arg-type]
    assert (tmp_path / PREPARING).exists()
    with pytest.raises(ValueError, match="unfinished data set"):
        load_manifest(tmp_path)
    write_shards(tmp_path, documents(100), ["v"])
    assert len(everything(tmp_path, "train")) == 100


def test_documents_of_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("\ufeffone\nfile\n", encoding="utf-8")
    (tmp_path / "sub" / "b.MD").write_text("# two")
    (tmp_path / "c.jsonl").write_text('{"text": "three"}\n\n{"text": "four", "id": 1}\n')
    (tmp_path / "skipped.bin").write_bytes(b"\x00")
    write_plain(tmp_path / "d.parquet", ["five", "six"])
    files = source_files(tmp_path)
    assert [t for f in files for t in read_documents(f)] == [
        "one\nfile\n", "three", "four", "five", "six", "# two"
    ]  # fmt: skip


def test_source_faults(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.jsonl, \.md, \.parquet, \.txt file below"):
        source_files(tmp_path)
    bad = {
        "latin.txt": (b"caf\xe9", "is not UTF-8 text"),
        "broken.jsonl": (b'{"text": "ok"}\n{"text": ', "line 2 is not JSON"),
        "other.jsonl": (b'{"body": "ok"}\n', "line 1 has no string under 'text'; name the right key"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} .*{message}|{message}"):
            list(read_documents(tmp_path / name))


# ----------------------------------------------------------------------------- scripts.prepare_data


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in [*documents(300), "", "doc 7: " + "word " * 7]]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder


def prepare(notes: Path, *flags: str) -> Path:
    target = notes.parent / "data"
    prepare_data.main(["--source", str(notes), "--data-dir", str(target), *flags])
    return target


def test_prepare_data_splits_by_content(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = prepare(notes, "--val-share", "0.1")
    train, val = everything(target, "train"), everything(target, "val")
    assert sorted(train + val) == sorted([*documents(300), "doc 7: " + "word " * 7])
    assert 15 <= len(val) <= 45 and not set(train) & set(val)
    assert "301 documents (1 blank ones left out)" in capsys.readouterr().out
    first = (target / MANIFEST).read_bytes()
    prepare(notes, "--val-share", "0.1")
    assert "nothing to do" in capsys.readouterr().out and (target / MANIFEST).read_bytes() == first
    (target / MANIFEST).unlink()
    (target / PREPARING).write_text("{}")  # as after an interruption
    prepare(notes, "--val-share", "0.1")
    assert (target / MANIFEST).read_bytes() == first


def test_prepare_data_refuses_to_replace_other_data(notes: Path) -> None:
    before = fingerprint(prepare(notes))
    (notes / "b.txt").write_text("one more document")
    with pytest.raises(ValueError, match=r"shards of other files or options; .*--fresh"):
        prepare(notes)
    assert fingerprint(prepare(notes, "--fresh")) != before


def test_prepare_data_always_holds_something_out(notes: Path) -> None:
    target = prepare(notes, "--val-share", "0.0001")
    assert len(everything(target, "val")) == 1


def test_prepare_data_faults(notes: Path) -> None:
    with pytest.raises(ValueError, match=r"val_share 1\.5 must lie between 0 and 1"):
        prepare(notes, "--val-share", "1.5")
    with pytest.raises(ValueError, match="lies in the source folder"):
        prepare_data.main(["--source", str(notes), "--data-dir", str(notes / "shards")])
    with pytest.raises(ValueError, match="no string under 'body'"):
        prepare(notes, "--text-column", "body")
    (notes / "a.jsonl").write_text('{"text": "same"}\n{"text": "same"}\n')
    with pytest.raises(ValueError, match="fewer than two different documents"):
        prepare(notes)
    assert not (notes.parent / "data").exists()  # every fault shows before anything is written
    with pytest.raises(ValueError, match="which texts"):
        prepare_data.main([])


def test_content_hash_is_the_same_everywhere() -> None:
    assert content_hash("") == 0xE3B0C44298FC1C14  # the head of the well-known sha256 of nothing


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import nanochat.dataset, nanochat.tokenizer, nanochat.packing, nanochat.sources"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
