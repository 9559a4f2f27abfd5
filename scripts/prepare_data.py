"""Your own texts as training data: `python -m scripts.prepare_data --source FOLDER`.

Reads .txt and .md files (one document each), .jsonl lines and .parquet rows, and writes shards with their
manifest to `--data-dir`. Which documents are validation depends on their content alone, so a copy of one can
not stand on both sides. The same command on the same files does nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.common import UsageError, base_dir, print0, read_json, resolve, run_main, sha256_file
from nanochat.config_data import PrepareData
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(PrepareData, argv, prog="prepare_data", about=__doc__)

    from nanochat.dataset import load_manifest, source_files, write_shards

    source, target = _places(config)
    files = source_files(source)
    origin = {
        "files": {str(path.relative_to(source)): sha256_file(path) for path in files},
        "val_share": config.val_share, "shard_mb": config.shard_mb, "text_column": config.text_column,
    }  # fmt: skip
    if _is_done(target, origin, config.fresh):
        load_manifest(target)
        print0(f"{target} holds these files already, with the same options: nothing to do")
        return
    threshold, count, blank = _scan(files, config)
    print0(f"{len(files):,} files, {count:,} documents ({blank:,} blank ones left out)")
    held_out: list[str] = []
    manifest = write_shards(
        target,
        _training(files, config, threshold, held_out),
        held_out,
        shard_mb=config.shard_mb,
        origin=origin,
    )
    for split in ("train", "val"):
        shards = manifest.split(split)  # type: ignore[arg-type]
        rows, size = sum(s.rows for s in shards), sum(s.bytes for s in shards)
        print0(f"{split:<5} {rows:>9,} documents in {len(shards)} shard(s), {size / 1e6:.1f} MB on disk")
    print0(f"wrote {target}\nnext: python -m scripts.tok_train --data-dir {target}")


def _places(config: PrepareData) -> tuple[Path, Path]:
    if not config.source:
        raise UsageError("which texts? Set --source to a folder of .txt, .md, .jsonl or .parquet files")
    if not 0 < config.val_share < 1:
        raise UsageError(f"val_share {config.val_share} must lie between 0 and 1, for example 0.01")
    source = Path(config.source).expanduser().absolute()
    target = resolve(base_dir(config.base_dir), config.data_dir)
    if target.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"data_dir {target} lies in the source folder, where it would be read, too; choose another"
        )
    return source, target


def _is_done(target: Path, origin: dict[str, Any], fresh: bool) -> bool:
    from nanochat.dataset import MANIFEST, PREPARING, list_shards

    if (target / MANIFEST).exists() and read_json(target / MANIFEST).get("origin") == origin:
        return True
    own_leftover = (target / PREPARING).exists()
    if fresh or own_leftover or not target.exists() or not any(target.glob("shard_*.parquet")):
        return False
    raise UsageError(
        f"{target} holds {len(list_shards(target))} shards of other files or options; "
        "choose another --data-dir, or replace them with --fresh"
    )


def _documents(files: list[Path], config: PrepareData) -> Iterator[tuple[int, str]]:
    from nanochat.dataset import content_hash, read_documents

    for path in files:
        for text in read_documents(path, config.text_column):
            yield content_hash(text) if text.strip() else -1, text


def _scan(files: list[Path], config: PrepareData) -> tuple[int, int, int]:
    """(hash below which a document is validation, documents, blank ones); faults show before writing."""
    hashes, blank = array("Q"), 0
    for key, _ in _documents(files, config):
        if key < 0:
            blank += 1
        else:
            hashes.append(key)
    if len(set(hashes)) < 2:
        raise UsageError(
            "fewer than two different documents: there must be one to train on and one to validate on"
        )
    # A share of few documents may be none; then the one with the smallest hash is the validation split.
    threshold = max(int(config.val_share * 2**64), min(hashes) + 1)
    if threshold > max(hashes):
        raise UsageError(f"val_share {config.val_share} leaves nothing to train on; choose a smaller one")
    return threshold, len(hashes), blank


def _training(files: list[Path], config: PrepareData, threshold: int, held_out: list[str]) -> Iterator[str]:
    for key, text in _documents(files, config):
        if 0 <= key < threshold:
            held_out.append(text)
        elif key >= threshold:
            yield text


if __name__ == "__main__":
    run_main(main)
