"""Train the tokenizer: `python -m scripts.tok_train --vocab-size 65536`.

Reads the training shards of `--data-dir`, never the validation ones, or several folders with shares of the
text (`--sources wiki=45,books=40,forum=15`), and writes `tokenizer.json` to `--tok-dir`. A second run with
the same options and data finds it and does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.common import UsageError, base_dir, print0, resolve, run_main
from nanochat.config_data import TokTrain
from nanochat.configurator import parse

if TYPE_CHECKING:
    from nanochat.corpus import TextSource


def main(argv: list[str]) -> None:
    config = parse(TokTrain, argv, prog="tok_train", about=__doc__)

    from nanochat.corpus import open_source, parse_shares
    from nanochat.metrics import Progress
    from nanochat.tokenizer import TOKENIZER_FILE, Tokenizer, split_pattern

    root = base_dir(config.base_dir)
    place = resolve(root, config.tok_dir)
    shares = parse_shares(config.sources) if config.sources else {config.data_dir: 1.0}
    sources = [open_source(root, name, share) for name, share in shares.items()]
    wanted = {
        "vocab_size": config.vocab_size, "digits": config.digits, "max_chars": config.max_chars,
        "max_doc_chars": config.max_doc_chars, "data": _data(sources),
    }  # fmt: skip
    if (place / TOKENIZER_FILE).exists() and not config.fresh:
        _check_same(place, Tokenizer.load(place).training, wanted)
        print0(f"{place / TOKENIZER_FILE} is there, from the same options and data: nothing to do")
        return
    if not config.sources:
        _tell_unlisted(resolve(root, config.data_dir))
    started = time.perf_counter()
    seen = dict.fromkeys(shares, 0)
    counts = {"documents": 0, "chars": 0}
    with Progress(config.vocab_size, "merge", unit="token") as progress:
        tokenizer = Tokenizer.train(
            _watched(sources, config, seen, counts), config.vocab_size, split_pattern(config.digits),
            max_doc_chars=config.max_doc_chars, max_chars=config.max_chars, threads=config.threads,
            progress=lambda done, _: progress.update(done),
        )  # fmt: skip
    tokenizer.training = {**wanted, **counts, **({"chars_of": seen} if config.sources else {})}
    tokenizer.save(place)
    for name, chars in seen.items() if config.sources else ():
        share = f"{100 * chars / counts['chars']:.1f} % of the text"
        print0(f"{name}: {chars:,} characters, {share} ({100 * shares[name]:.1f} % asked)")
    print0(
        f"{tokenizer.vocab_size:,} ids from {counts['documents']:,} documents, {counts['chars']:,} characters"
        f" in {time.perf_counter() - started:.1f} s\nwrote {place / TOKENIZER_FILE}\n"
        "how it compresses: python -m scripts.tok_eval"
    )


def _data(sources: Sequence[TextSource]) -> Any:
    """What decides which text is read, for the tokenizer's file."""
    if len(sources) == 1:
        return sources[0].fingerprint
    return {source.name: [round(source.share, 9), source.fingerprint] for source in sources}


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


def _tell_unlisted(folder: Path) -> None:
    from nanochat.dataset import load_manifest

    if ignored := load_manifest(folder, verify=False).unlisted():
        print0(f"note: {len(ignored)} shards are not in the manifest and are not read, from {ignored[0]} on")


def _watched(
    sources: Sequence[TextSource], config: TokTrain, seen: dict[str, int], counts: dict[str, int]
) -> Iterator[str]:
    """The texts in the sources' shares, counted as the training counts them, with progress."""
    from nanochat.corpus import mixed
    from nanochat.metrics import Progress

    with Progress(sum(source.documents for source in sources), "read", unit="document") as progress:
        for source, text in mixed(sources, config.max_doc_chars):
            chars = min(len(text), config.max_doc_chars, config.max_chars - counts["chars"])
            seen[source.name] += chars
            counts["documents"] += 1
            counts["chars"] += chars
            yield text
            progress.update(counts["documents"])


if __name__ == "__main__":
    run_main(main)
