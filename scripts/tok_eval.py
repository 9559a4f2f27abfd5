"""Compression of the tokenizer in bytes per token: `python -m scripts.tok_eval`.

Encodes short texts of several kinds and a sample of each split, beside GPT-2's and GPT-4's encodings where
tiktoken has their files (or gets them within seconds). Prints a table and writes `eval.json` to `--tok-dir`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable

from nanochat.common import base_dir, print0, resolve, run_main, write_json
from nanochat.config import TokEval
from nanochat.configurator import parse

REFERENCES = {"gpt2": "GPT-2", "cl100k_base": "GPT-4"}
REFERENCE_TIMEOUT_S = 6.0
TEXTS = {
    "news": (
        "The harbour authority said on Tuesday that the new ferry terminal will open in March, two years "
        "later than planned. Costs have risen to 48 million euros, most of it for stronger piles. "
        '"We had to choose between cheap and safe," its director said, "and nobody wants a cheap pier."'
    ),
    "science": (
        "Enzymes lower the activation energy of a reaction by binding its transition state more tightly "
        "than the substrate. The rate then follows v = Vmax [S] / (Km + [S]): at low concentrations it "
        "grows linearly, at high ones it saturates. Competitive inhibitors raise the apparent Km."
    ),
    "code": (
        "def merge(left: list[int], right: list[int]) -> list[int]:\n    merged = []\n    i = j = 0\n"
        "    while i < len(left) and j < len(right):\n        if left[i] <= right[j]:\n"
        "            merged.append(left[i])\n            i += 1\n        else:\n"
        "            merged.append(right[j])\n            j += 1\n    return merged + left[i:] + right[j:]\n"
    ),
    "math": (
        "Let $f(x) = x^3 - 6x^2 + 11x - 6$. Since $f(1) = 0$, we divide by $(x - 1)$ and get "
        "$x^2 - 5x + 6 = (x - 2)(x - 3)$. The roots are 1, 2 and 3; their sum is 6, as Vieta's formula "
        "says, and $\\int_1^3 f(x)\\,dx = 0$ by symmetry about $x = 2$. Check: 1024 * 768 = 786432."
    ),
    "chat": (
        "hey! can you help me plan a birthday dinner for six? :) two of us don't eat meat, and i'd like to "
        "keep it under $80. -- Of course! How about a big vegetable lasagne, a green salad and a lemon "
        "cake? You can bake both the day before, so you'll have time for your guests."
    ),
    "korean": (
        "오늘 아침에는 비가 조금 내렸지만 오후에는 하늘이 맑게 개었다. "
        "우리는 강가를 따라 걸으며 오래된 다리 이야기를 나누었다."
    ),
}


def main(argv: list[str]) -> None:
    config = parse(TokEval, argv, prog="tok_eval", about=__doc__)

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
            counts[label] = _in_time(encoding, texts)
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


def _first(texts: Iterable[str], limit_bytes: int) -> list[str]:
    found, size = [], 0
    for text in texts:
        found.append(text)
        size += len(text.encode())
        if size >= limit_bytes:
            break
    return found


def _in_time(encoding: str, texts: dict[str, list[str]]) -> dict[str, int]:
    """Token counts by a reference, in a process that can be ended: tiktoken's download has no time limit."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(_count, (encoding, texts)).get(REFERENCE_TIMEOUT_S)


def _count(encoding: str, texts: dict[str, list[str]]) -> dict[str, int]:
    import tiktoken

    reference = tiktoken.get_encoding(encoding)
    return {name: sum(len(reference.encode_ordinary(t)) for t in parts) for name, parts in texts.items()}


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
