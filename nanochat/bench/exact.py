"""Whether a reply depends on who shares the batch: mixed requests together, then each alone, token by token.

What it is: requests, greedy and drawn in many ways, that join, leave and are cancelled at random, with
prompts that begin alike. A reply that differs from its own alone is a tie if, where they part, the logits of
both agree within 1e-4 and the choice hung on less than 1e-4: the gap of the two likeliest tokens, or the
draw's distance to the boundary between two. Anything else is wrong. What it is not: a comparison with
another implementation (tests/test_decoder.py). Run: `python -m scripts.bench exact --base-dir DIR
--model sft_laptop`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from nanochat import checkpoint_manager
from nanochat.bench import Row, figure
from nanochat.calculator import calculate
from nanochat.common import base_dir
from nanochat.config import Bench
from nanochat.engine import Engine
from nanochat.reply import Reply
from nanochat.request import Request, Sampling
from nanochat.sampling import draws_of, sample

TOLERANCE = 1e-4
ROWS = 16
Verdict = Literal["same", "tie", "wrong"]


def run(config: Bench) -> Iterator[Row]:
    """Shares of requests that are the same, ties and wrong in float32; in bfloat16 of the same ones."""
    torch.set_num_threads(config.thread_counts[-1])
    source, _, name = config.model.partition("_")
    for dtype in (torch.float32, torch.bfloat16):
        model, tokenizer, _ = checkpoint_manager.load_model(
            base_dir(config.base_dir), source, name, torch.device("cpu"), dtype
        )
        engine = Engine(model, tokenizer, calculate)
        requests = mixed(random.Random(0), config.requests, model.config.context, len(tokenizer.tokens))
        found = compare(engine, requests, random.Random(1))
        label, n, threads = str(dtype).split(".")[1], len(requests), torch.get_num_threads()
        verdicts = found.counts if dtype == torch.float32 else {"same": found.counts["same"]}
        for verdict, count in verdicts.items():
            yield figure(f"exact_{label}_{verdict}", 100 * count / n, "%", n, threads)
        yield figure(f"exact_{label}_logprob_difference", 1e6 * found.difference, "1e-6", n, threads)


def mixed(rng: random.Random, n: int, context: int, vocabulary: int) -> list[Request]:
    """Requests of all kinds; a third of the prompts go on from the beginning of an earlier one."""
    prompts: list[list[int]] = []
    requests = []
    for seed in range(n):
        prompt = [rng.randrange(vocabulary) for _ in range(rng.randint(1, context // 3))]
        if prompts and rng.random() < 1 / 3:
            earlier = rng.choice(prompts)
            prompt = [*earlier[: rng.randint(1, len(earlier))], *prompt[: context // 8]]
        prompts.append(prompt)
        sampling = Sampling(
            temperature=rng.choice([0.0, 0.0, 0.7, 1.0]), top_k=rng.choice([None, 5, 50]),
            top_p=rng.choice([1.0, 0.9]), min_p=rng.choice([0.0, 0.0, 0.05]),
        )  # fmt: skip
        new = rng.randint(1, min(48, context // 3))
        requests.append(Request(prompt, new, sampling, seed, stop=frozenset({rng.randrange(64)}), logprobs=2))
    return requests


@dataclass
class Found:
    """Verdicts over all requests, and the largest difference of log-probabilities before two replies part."""

    counts: dict[Verdict, int] = field(default_factory=lambda: {"same": 0, "tie": 0, "wrong": 0})
    difference: float = 0.0


def compare(engine: Engine, requests: Sequence[Request], rng: random.Random) -> Found:
    """Run all requests together, then each alone."""
    found = Found()
    for together in _together(engine, requests, rng):
        alone = engine.reply(together.request)
        for _ in engine.run([alone]):
            pass
        found.counts[_verdict(engine, together, alone, found)] += 1
    return found


def _together(engine: Engine, requests: Sequence[Request], rng: random.Random) -> list[Reply]:
    """All requests in one batch that remembers; some join each step, and now and then one is cancelled."""
    batch = engine.batch(ROWS, remember=True)
    replies = [engine.reply(request) for request in requests]
    coming = iter(replies)
    joined = 0
    while joined < len(replies) or batch.seats:
        for _ in range(rng.randint(0, 3)):
            if not batch.is_full and (reply := next(coming, None)) is not None:
                batch.join(reply)
                joined += 1
        batch.step()
        if batch.seats and rng.random() < 0.01:
            seat = rng.choice(batch.seats)
            batch.leave(seat)
            seat.reply.end("cancelled")
    return replies


def _verdict(engine: Engine, together: Reply, alone: Reply, found: Found) -> Verdict:
    pairs = list(zip(together.logprobs, alone.logprobs, strict=False))
    parted = next((i for i, (a, b) in enumerate(pairs) if a.id != b.id), None)
    for a, b in pairs[:parted]:
        found.difference = max(found.difference, abs(a.logprob - b.logprob))
    if parted is None:
        whole = together.finish == "cancelled" or together.ids == alone.ids
        return "same" if whole else _at_the_end(together, alone)
    a, b = pairs[parted]
    agree = abs(a.top[0][1] - b.top[0][1]) < TOLERANCE
    return "tie" if agree and _is_close(engine, alone, parted, a.id) else "wrong"


def _at_the_end(together: Reply, alone: Reply) -> Verdict:
    """One stopped where the other went on: a tie is judged by what the longer one said there."""
    shorter, longer = sorted((together, alone), key=lambda reply: len(reply.ids))
    best, second = longer.logprobs[len(shorter.ids)].top
    greedy = longer.request.sampling.temperature == 0
    return "tie" if greedy and best[1] - second[1] < TOLERANCE else "wrong"


def _is_close(engine: Engine, alone: Reply, step: int, other: int) -> bool:
    """Whether the choice at a step hung on less than the tolerance."""
    request = alone.request
    best, second = alone.logprobs[step].top
    if request.sampling.temperature == 0:
        return best[1] - second[1] < TOLERANCE
    with torch.no_grad():
        logits = engine.model(torch.tensor([[*request.prompt, *alone.ids[:step]]]))[:, -1]
    draw = torch.from_numpy(draws_of(request.seed, request.sample, step + 1)[-1:])
    near = (draw + shift for shift in (-TOLERANCE, TOLERANCE))
    return any(int(sample(logits, d.clamp(0, 1 - 2**-24), request.sampling)) == other for d in near)
