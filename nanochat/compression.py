"""Bytes per token of a tokenizer by kind of text, beside GPT-2's and GPT-4's, and a plot of it (no torch).

What it is not: a measure of speed (`scripts.bench tokenize`). How to run it: `python -m scripts.tok_eval`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path

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
COLOURS = ("#2563a8", "#c9822b", "#7b8794")


def count_by_reference(encoding: str, texts: dict[str, list[str]]) -> dict[str, int]:
    """Token counts by one of REFERENCES; an exception where tiktoken can get no file of it."""
    # In a process that can be ended: tiktoken's download has no time limit.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(_count, (encoding, texts)).get(REFERENCE_TIMEOUT_S)


def _count(encoding: str, texts: dict[str, list[str]]) -> dict[str, int]:
    import tiktoken

    reference = tiktoken.get_encoding(encoding)
    return {name: sum(len(reference.encode_ordinary(t)) for t in parts) for name, parts in texts.items()}


def save_compression(path: Path, bytes_per_token: Mapping[str, Mapping[str, float]], title: str) -> bool:
    """Write an SVG with a row for each text and a bar for each tokenizer; False without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return False
    texts = list(next(iter(bytes_per_token.values())))
    height = 0.8 / len(bytes_per_token)
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10}):
        figure = Figure(
            figsize=(7, 1 + len(texts) * (0.25 + 0.2 * len(bytes_per_token))), layout="constrained"
        )
        axes = figure.subplots()
        for number, (label, row) in enumerate(bytes_per_token.items()):
            places = [place + number * height for place in range(len(texts))]
            bars = axes.barh(
                places, [row[text] for text in texts], height, label=label, color=COLOURS[number]
            )
            axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_yticks([place + 0.4 - height / 2 for place in range(len(texts))], texts)
        axes.invert_yaxis()
        axes.set_xlabel("bytes per token (more is better)")
        axes.set_title(title, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if len(bytes_per_token) > 1:
            figure.legend(loc="outside upper right", ncols=len(bytes_per_token), frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True
