"""Train the tokenizer: `python -m scripts.tok_train --vocab-size 65536`.

Reads the training shards of `--data-dir`, never the validation ones, and writes `tokenizer.json` to
`--tok-dir`. A second run with the same options and data finds it and does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from nanochat.common import UsageError, base_dir, print0, resolve, run_main
from nanochat.config import TokTrain
from nanochat.configurator import parse

SAMPLE_DOCUMENTS = 1024
PROGRESS_S = 5.0


def main(argv: list[str]) -> None:
    config = parse(TokTrain, argv, prog="tok_train", about=__doc__)

    from nanochat.dataset import iter_texts, load_manifest
    from nanochat.tokenizer import TOKENIZER_FILE, Tokenizer, split_pattern

    root = base_dir(config.base_dir)
    place = resolve(root, config.tok_dir)
    manifest = load_manifest(resolve(root, config.data_dir), verify=False)
    wanted = {
        "vocab_size": config.vocab_size, "digits": config.digits, "max_chars": config.max_chars,
        "max_doc_chars": config.max_doc_chars, "data": manifest.fingerprint,
    }  # fmt: skip
    if (place / TOKENIZER_FILE).exists() and not config.fresh:
        _check_same(place, Tokenizer.load(place).training, wanted)
        print0(f"{place / TOKENIZER_FILE} is there, from the same options and data: nothing to do")
        return
    if ignored := manifest.unlisted():
        print0(f"note: {len(ignored)} shards are not in the manifest and are not read, from {ignored[0]} on")
    shards = manifest.split("train")
    started = time.perf_counter()
    seen = {"documents": 0, "chars": 0}
    texts = _watched(iter_texts(shards), config, seen)
    tokenizer = Tokenizer.train(
        texts, config.vocab_size, split_pattern(config.digits),
        max_doc_chars=config.max_doc_chars, max_chars=config.max_chars, threads=config.threads,
    )  # fmt: skip
    tokenizer.training = {**wanted, **seen}
    tokenizer.save(place)
    seconds = time.perf_counter() - started
    sample = list(islice(iter_texts(manifest.split("val")), SAMPLE_DOCUMENTS))
    ratio = sum(len(text.encode()) for text in sample) / max(1, sum(map(len, tokenizer.encode(sample))))
    print0(
        f"{tokenizer.vocab_size:,} ids from {seen['documents']:,} documents ({seen['chars']:,} characters) "
        f"in {seconds:.1f} s; {ratio:.3f} bytes per token on validation text\nwrote {place / TOKENIZER_FILE}"
    )


def _check_same(place: object, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    other = [
        f"{name} {found.get(name)} there, {value} asked"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if other:
        raise UsageError(
            f"{place} holds another tokenizer ({'; '.join(other)}). Models trained with it need it: choose "
            "another --tok-dir, or replace it with --fresh"
        )


def _watched(texts: Iterator[str], config: TokTrain, seen: dict[str, int]) -> Iterator[str]:
    """The texts, counted as the training counts them, with a progress line now and then."""
    last = time.perf_counter()
    for text in texts:
        seen["documents"] += 1
        seen["chars"] = min(seen["chars"] + min(len(text), config.max_doc_chars), config.max_chars)
        yield text
        if time.perf_counter() - last > PROGRESS_S:
            last = time.perf_counter()
            print0(f"read {seen['documents']:,} documents, {seen['chars'] / 1e6:,.0f} M characters")


if __name__ == "__main__":
    run_main(main)
