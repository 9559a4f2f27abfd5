"""Prefill and decode against transformers' Llama: the same width, layers, heads, vocabulary, dtype, greedy.

What it is: for each shape, precision and batch, seconds until every row has its first token (prefill) and of
each step after that, in which every row writes one (decode), both sides at each number of threads in turn; a
line compares the best of ours with the best of the peer's, eager `generate()` and, with --compile, its
static-cache form (compiling is not in the figures). For d12 at batch 1 also how much of torch's own one-row
product and of plain reading decode reaches. What it is not: a test of load (`bench serve`) or trained models:
weights are random, matrices differ by less than 2 %. Run: `python -m scripts.bench generate --shapes d4`.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.bench import Row, row
from nanochat.config import Bench, GPTConfig
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.request import GREEDY, Request
from nanochat.tokenizer import Tokenizer, split_pattern

SHAPES = {
    name: GPTConfig(
        vocab_size=vocab, depth=depth, width=64 * depth, heads=depth, kv_heads=depth, context=512,
        arch="classic", window_pattern="L",
    )
    for name, depth, vocab in (("d4", 4, 8192), ("d12", 12, 32768))
}  # fmt: skip
PROMPT_TOKENS, PREFILL_TOKENS = 128, 511
NEW_TOKENS = {"d4": 48, "d12": 24}
LEAD = 8  # tokens more: of 64 prompts the first are three steps ahead of the last, and none may end before it

# (B, T) prompts and new tokens -> for each, when (`time.perf_counter`) every row had it
Generate = Callable[[Tensor, int], list[float]]


@dataclass
class Times:
    """Seconds to the first token and of each later one, a list for each side and number of threads."""

    first: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    later: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def best(self, what: dict[tuple[str, int], list[float]], side: str) -> tuple[int, list[float]]:
        """The number of threads at which a side is fastest, and its seconds there."""
        own = {threads: seconds for (name, threads), seconds in what.items() if name == side}
        return min(own.items(), key=lambda item: statistics.median(item[1]))


def run(config: Bench) -> Iterator[Row]:
    """Rows `d4_float32_b1_decode`, `..._first` (time to first token), `..._prefill511`, against each peer."""
    for name in config.shapes.split(","):
        for dtype in config.dtypes.split(","):
            yield from _precision(name, getattr(torch, dtype), config)


def _precision(name: str, dtype: torch.dtype, config: Bench) -> Iterator[Row]:
    shape, label = SHAPES[name], f"{name}_{str(dtype).split('.')[1]}"
    engine, peer = _engine(shape, dtype), _llama(shape, dtype)
    sides: dict[str, Generate] = {"ours": _ours(engine), "eager": _theirs(peer, None)}
    if config.compile:
        sides["compiled"] = _theirs(peer, _compiling())
    rng = torch.Generator().manual_seed(0)
    for batch in (int(b) for b in config.batches.split(",")):
        prompts = torch.randint(shape.vocab_size, (batch, PROMPT_TOKENS), generator=rng)
        times = _measure(sides, prompts, NEW_TOKENS[name], config)
        yield from _rows(f"{label}_b{batch}_first", times, times.first, batch * PROMPT_TOKENS)
        yield from _rows(f"{label}_b{batch}_decode", times, times.later, batch)
        if name == "d12" and batch == 1:
            threads, seconds = times.best(times.later, "ours")
            yield from _shares(label, shape, dtype, threads, min(seconds))
    prompts = torch.randint(shape.vocab_size, (1, PREFILL_TOKENS), generator=rng)
    sides.pop("compiled", None)
    times = _measure(sides, prompts, 0, config)
    yield from _rows(f"{label}_prefill{PREFILL_TOKENS}", times, times.first, PREFILL_TOKENS)


def _rows(name: str, times: Times, what: dict[tuple[str, int], list[float]], tokens: int) -> Iterator[Row]:
    threads, ours = times.best(what, "ours")
    for side in sorted({side for side, _ in what} - {"ours"}, reverse=True):
        there, theirs = times.best(what, side)
        yield row(name, ours, tokens, "tok/s", threads, (f"Llama {side}, {there} thread(s)", theirs))


def _measure(sides: dict[str, Generate], prompts: Tensor, new: int, config: Bench) -> Times:
    """Alternating A B A B for each number of threads, after one uncounted round (compilation, caches)."""
    times = Times()
    for threads in config.thread_counts:
        torch.set_num_threads(threads)
        for side in sides.values():
            side(prompts, 1 + new)
        for _ in range(config.repetitions):
            for name, side in sides.items():
                start = time.perf_counter()
                marks = side(prompts, 1 + new)
                times.first.setdefault((name, threads), []).append(marks[0] - start)
                if new:
                    times.later.setdefault((name, threads), []).append((marks[-1] - marks[0]) / new)
    return times


# ----------------------------------------------------------------------------- sides


def _engine(shape: GPTConfig, dtype: torch.dtype) -> Engine:
    words = [bytes([i]) for i in range(256)]
    words += [b"%06d" % i for i in range(shape.vocab_size - len(words) - 9)]  # nine special tokens follow
    return Engine(GPT(shape, dtype).init_weights(0).eval(), Tokenizer(words, split_pattern()))


def _ours(engine: Engine) -> Generate:
    def generate(prompts: Tensor, new: int) -> list[float]:
        requests = (Request(p, new + LEAD, GREEDY, stop=frozenset()) for p in prompts.tolist())
        marks: list[float] = []
        rows: Counter[int] = Counter()  # how many replies have so many tokens, or more
        for reply in engine.run([engine.reply(request) for request in requests]):
            rows[len(reply.ids)] += 1
            if rows[1 + len(marks)] == len(prompts):
                marks.append(time.perf_counter())
            if len(marks) == new:
                break
        assert len(marks) == new
        return marks

    return generate


def _llama(shape: GPTConfig, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.width, num_hidden_layers=shape.depth,
        intermediate_size=round(8 * shape.width / 3), num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads, max_position_embeddings=shape.context,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype).eval()
    theirs, ours = (
        sum(p.numel() for n, p in m.named_parameters() if p.ndim == 2 and "embed" not in n)
        for m in (model, GPT(shape))
    )
    assert abs(theirs / ours - 1) < 0.02, f"the peer has {theirs} matrix parameters, ours {ours}"
    return model


def _compiling() -> Any:
    from transformers import CompileConfig

    compiling = CompileConfig(fullgraph=False, mode="default")
    compiling._compile_all_devices = True  # transformers compiles on GPUs only, unless told so
    return compiling


class Marks:
    """A streamer: when the prompt and each new token were handed over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """There is nothing to flush."""


def _theirs(model: Any, compiling: Any) -> Generate:
    options = {"cache_implementation": "static", "compile_config": compiling} if compiling else {}

    def generate(prompts: Tensor, new: int) -> list[float]:
        marks = Marks()
        with torch.inference_mode():
            found = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new, min_new_tokens=new,
                do_sample=False, pad_token_id=0, streamer=marks, **options,
            )  # fmt: skip
        assert found.size(1) == prompts.size(1) + new and len(marks.times) == 1 + new
        return marks.times[1:]

    return generate


# ----------------------------------------------------------------------------- limits


def _shares(label: str, shape: GPTConfig, dtype: torch.dtype, threads: int, step_s: float) -> Iterator[Row]:
    """Bytes of matrix weights that a step reads each second, against torch's best product and `torch.sum`.

    The fastest repetition of each side: all of them wait for the same memory.
    """
    torch.set_num_threads(threads)
    model = GPT(shape)
    layers = [p for n, p in model.named_parameters() if p.ndim == 2 and n != "embed.weight"]
    weights = [p.detach().to(dtype) for p in layers]
    size = sum(w.numel() * w.element_size() for w in weights)
    inputs = {n: torch.randn(n).to(dtype) for n in {w.size(1) for w in weights}}
    ways: dict[str, Callable[[], object]] = {
        "one-row products (linear)": lambda: [F.linear(inputs[w.size(1)][None], w) for w in weights],
        "one-row products (mv)": lambda: [torch.mv(w, inputs[w.size(1)]) for w in weights],
        "reading (torch.sum)": lambda: [w.sum() for w in weights],
    }
    with torch.inference_mode():
        seconds = {name: [_timed(way) for _ in range(7)] for name, way in ways.items()}
    best = min(list(ways)[:2], key=lambda name: min(seconds[name]))
    for name in (best, "reading (torch.sum)"):
        yield row(f"{label}_b1_weights", [step_s], size / 1e9, "GB/s", threads, (name, [min(seconds[name])]))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
