"""Compression of the tokenizer in bytes per token: `python -m scripts.tok_eval`.

Encodes short texts of several kinds and a sample of each split, beside GPT-2's and GPT-4's encodings where
tiktoken has their files (or gets them within seconds). Prints a table and writes `eval.json` and, with
matplotlib, the plot `compression.svg` to `--tok-dir`.
"""

from __future__ import annotations

from collections.abc import Iterable

from nanochat.common import base_dir, print0, resolve, run_main, write_json
from nanochat.config_data import TokEval
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(TokEval, argv, prog="tok_eval", about=__doc__)

    from nanochat.compression import REFERENCES, TEXTS, count_by_reference, save_compression
    from nanochat.dataset import iter_texts, split_shards
    from nanochat.tokenizer import Tokenizer

    root = base_dir(config.base_dir)
    place = resolve(root, config.tok_dir)
    tokenizer = Tokenizer.load(place)
    texts = {name: [text] for name, text in TEXTS.items()}
    for split, shards in zip(("train", "val"), split_shards(resolve(root, config.data_dir)), strict=True):
        texts[split] = _first(iter_texts(shards), int(config.sample_mb * 1e6))
    sizes = {name: sum(len(text.encode()) for text in parts) for name, parts in texts.items()}
    counts = {"this one": {name: sum(map(len, tokenizer.encode(parts))) for name, parts in texts.items()}}
    absent = {}
    for encoding, label in REFERENCES.items() if config.references else ():
        try:
            counts[label] = count_by_reference(encoding, texts)
        except Exception as error:
            absent[label] = type(error).__name__
    _print_table(sizes, counts, tokenizer.vocab_size)
    for label, reason in absent.items():
        print0(f"{label} is left out: tiktoken has no file of it here and could not get it ({reason})")
    ratios = {
        label: {name: sizes[name] / max(1, n) for name, n in row.items()} for label, row in counts.items()
    }
    facts = {"hash": tokenizer.hash, "vocab_size": tokenizer.vocab_size, "bytes": sizes}
    write_json(place / "eval.json", {**facts, "bytes_per_token": ratios, "absent": absent})
    print0(f"wrote {place / 'eval.json'}")
    plot = place / "compression.svg"
    if save_compression(plot, ratios, f"Compression of {tokenizer.vocab_size:,} ids"):
        print0(f"wrote {plot}")
    else:
        print0("no plot: it needs matplotlib (pip install 'nanochat-hpc[report]')")


def _first(texts: Iterable[str], limit_bytes: int) -> list[str]:
    found, size = [], 0
    for text in texts:
        found.append(text)
        size += len(text.encode())
        if size >= limit_bytes:
            break
    return found


def _print_table(sizes: dict[str, int], counts: dict[str, dict[str, int]], vocab_size: int) -> None:
    print0(f"bytes per token (more is better); {vocab_size:,} ids here, GPT-2 50,257, GPT-4 100,277")
    print0(f"{'text':<8} {'bytes':>10}" + "".join(f"{label:>10}" for label in counts))
    for name, size in sizes.items():
        print0(
            f"{name:<8} {size:>10,}"
            + "".join(f"{size / max(1, row[name]):>10.2f}" for row in counts.values())
        )


if __name__ == "__main__":
    run_main(main)
