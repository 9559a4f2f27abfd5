"""Replies that a model writes to problems, their rewards, and the batches that teach it from them.

What it is: REINFORCE with the group's mean as baseline. Each step, the current model writes `num_samples`
replies to each of a few prompts; a task rewards each; the advantage of a reply is its reward minus the mean
of its group. A reply's sampled tokens, the stop token included, are the targets of a batch, its advantage is
the factor of their losses, and the loop divides by the number of sampled tokens of the whole step. So the
gradient is that of -sum(advantage * log p(token)) / tokens. (The simplified GRPO of nanochat: of
arXiv 2402.03300 without the division by the standard deviation; as each sample is used once, by the weights
that drew it, there is no ratio to clip.) What a tool wrote is not the model's choice and no target. A group
of equal rewards has no gradient; it is left out and still counts in the divisor, so that leaving it out
saves time and changes nothing.

A KL term is folded into the factors: on samples of the model itself, log(p / p_start) times the gradient of
log p is an unbiased gradient of the divergence of each next token from the start model's.

What it is not: the engine (`engine.py`), the loop (`trainer.py`), or rewards: those are the task's.
Run: `python -m scripts.chat_rl --preset laptop`, `pytest tests/test_rollout.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nanochat.calculator import calculate
from nanochat.common import UsageError, print0
from nanochat.config_rl import ChatRL
from nanochat.dataloader import Batch
from nanochat.distributed import World
from nanochat.engine import Completion, Engine
from nanochat.gpt import GPT
from nanochat.packing import IGNORED, seeded_rng
from nanochat.tokenizer import Tokenizer, without_answer

COUNTERS = ("prompts", "replies", "ended", "even_groups", "targets", "tokens")
SEED_STRIDE = 2**32  # prompt number n of a run draws from seed * SEED_STRIDE + n


class Task(Protocol):
    """Problems and what a reply to them is worth; every item has `messages`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...
    def reward(self, item: dict[str, Any], reply: str, ended: bool, /) -> float:
        """0 to 1, and 1 if it is right. `reply` names special tokens; `ended`: it stopped by itself."""
        ...


class RewardError(ValueError):
    """A reward function failed, or gave no finite number: never taken for a reward of zero."""


# ----------------------------------------------------------------------------- groups


@dataclass(frozen=True)
class Group:
    """One prompt, its replies and what each is worth."""

    prompt: list[int]
    replies: list[Completion]
    rewards: list[float]

    @property
    def is_even(self) -> bool:
        """All rewards are equal: nothing to learn from."""
        return min(self.rewards) == max(self.rewards)

    @property
    def right(self) -> int:
        return sum(reward >= 1 for reward in self.rewards)

    def advantages(self) -> list[float]:
        mean = math.fsum(self.rewards) / len(self.rewards)
        return [reward - mean for reward in self.rewards]


class Prompt(NamedTuple):
    """A problem of a task, as ids, and the seed of its replies."""

    item: int  # its index
    ids: list[int]
    seed: int


@dataclass(frozen=True)
class Writer:
    """How replies are written: by which model, how many at a time, how they are drawn."""

    engine: Engine
    task: Task
    world: World
    max_tokens: int
    rows: int = 256

    def groups(
        self, prompts: Sequence[Prompt], samples: int, temperature: float = 1.0, top_k: int = 0
    ) -> list[Group]:
        """The replies to this rank's prompts, rewarded. RewardError on all ranks if it fails on one."""
        failed, found = None, []
        try:
            found = self._groups(prompts, samples, temperature, top_k)
        except RewardError as error:
            failed = error
        if self.world.any(failed is not None):
            raise failed or RewardError("the reward of a reply failed on another rank; see its message")
        return found

    def _groups(self, prompts: Sequence[Prompt], samples: int, temperature: float, top_k: int) -> list[Group]:
        found = []
        at_once = max(1, self.rows // samples)
        for start in range(0, len(prompts), at_once):
            chunk = prompts[start : start + at_once]
            replies = self.engine.generate_batch(
                [p.ids for p in chunk], max_tokens=self.max_tokens, temperature=temperature, top_k=top_k,
                seed=[p.seed for p in chunk], num_samples=samples,
            )  # fmt: skip
            for i, prompt in enumerate(chunk):
                own = replies[i * samples : (i + 1) * samples]
                rewards = [self._reward(prompt.item, reply) for reply in own]
                found.append(Group(prompt.ids, own, rewards))
        return found

    def _reward(self, index: int, completion: Completion) -> float:
        reply = self.engine.tokenizer.decode(completion.ids)
        try:
            reward = float(self.task.reward(self.task[index], reply, completion.finish == "stop"))
        except Exception as error:
            raise RewardError(
                f"the reward of problem {index} failed with {type(error).__name__}: {error}; "
                f"the reply was {reply!r:.300}. Mend the task; the last checkpoint is kept"
            ) from error
        if not math.isfinite(reward):
            raise RewardError(f"the reward of problem {index} is {reward}; the reply was {reply!r:.300}")
        return reward


def writer_of(model: GPT, tokenizer: Tokenizer, task: Task, options: ChatRL, world: World) -> Writer:
    """A writer with the model's weights as they are now, and the calculator."""
    engine = Engine(model, tokenizer, tool=calculate)
    return Writer(engine, task, world, options.max_tokens, options.rollout_rows)


def fitting_prompts(
    task: Task, indices: Sequence[int], tokenizer: Tokenizer, context: int, room: int
) -> dict[int, list[int]]:
    """Index -> ids of those problems that leave room for a reply of `room` tokens; says how many do not."""
    asked = {i: without_answer(task[i]["messages"]) for i in indices}
    rendered = {i: tokenizer.render_for_completion({"messages": messages}) for i, messages in asked.items()}
    fitting = {i: ids for i, ids in rendered.items() if len(ids) + room <= context}
    if not fitting:
        raise UsageError(
            f"none of the {len(rendered)} problems leaves room for a reply of {room} tokens in the context "
            f"of {context}; lower --max-tokens or give shorter problems"
        )
    if len(fitting) < len(rendered):
        print0(f"{len(rendered) - len(fitting)} of {len(rendered)} problems are too long and left out")
    return fitting


# ----------------------------------------------------------------------------- batches


class _Row(NamedTuple):
    """A prompt with one of its replies, one token shorter than both: to predict each next token."""

    inputs: list[int]
    targets: list[int]
    factor: float


def _row(prompt: list[int], reply: Completion, advantage: float) -> _Row:
    stop = [] if reply.stop_id is None else [reply.stop_id]
    ids = [*prompt, *reply.ids, *stop]
    sampled = [*reply.mask, *(1 for _ in stop)]
    targets = [token if mine else IGNORED for token, mine in zip(ids[len(prompt) :], sampled, strict=True)]
    return _Row(ids[:-1], [IGNORED] * (len(prompt) - 1) + targets, advantage)


def _n_targets(group: Group) -> int:
    """Tokens of a group that the model chose."""
    return sum(sum(reply.mask) + (reply.stop_id is not None) for reply in group.replies)


class Rollouts:
    """Batches for the loop, each step's written by the model as the step before left it."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        task: Task,
        indices: Sequence[int],
        options: ChatRL,
        world: World,
        fingerprint: str,
        start_model: GPT | None = None,
    ) -> None:
        """`indices`: which problems. `fingerprint` names them; `start_model` is wanted for a KL term only."""
        self.model, self.tokenizer, self.task, self.options = model, tokenizer, task, options
        self.world, self.fingerprint, self.start_model = world, fingerprint, start_model
        self.prompts = fitting_prompts(task, indices, tokenizer, model.config.context, options.max_tokens)
        self.items = list(self.prompts)

    def batches(self, state: dict[str, Any] | None) -> Generator[Batch, None, None]:
        """Micro-batches from a saved position on, endless; a step's are made when its first is asked for."""
        if state is not None and state["source"] != self.fingerprint:
            raise ValueError("the saved position belongs to other problems or another seed; use --fresh")
        counters = dict.fromkeys(COUNTERS, 0) | (state["counters"] if state else {})
        while True:
            before = self._state(counters)
            parts, counters, scores = self._step(counters)
            stats = {**counters, "epoch": counters["prompts"] // len(self.prompts)}
            stats |= {"all_tokens": counters["tokens"], "step_tokens": int(scores.pop("tokens"))}
            stats["step_targets"] = int(scores.pop("targets"))
            for number, (inputs, targets, factors) in enumerate(parts, 1):
                is_last = number == len(parts)
                saved = self._state(counters) if is_last else before
                yield Batch(inputs, targets, saved, stats, is_last, factors, scores)

    def _state(self, counters: dict[str, int]) -> dict[str, Any]:
        epoch, row = divmod(counters["prompts"], len(self.prompts))
        return {"source": self.fingerprint, "epoch": epoch, "row": row, "counters": dict(counters)}

    def _drawn(self, number: int) -> Prompt:
        """The prompt number `number` of the run: each epoch has them all, in an order of its own."""
        epoch, row = divmod(number, len(self.prompts))
        index = self.items[seeded_rng(self.options.seed, epoch, 0).permutation(len(self.items))[row]]
        return Prompt(index, self.prompts[index], self.options.seed * SEED_STRIDE + number)

    def _step(
        self, counters: dict[str, int]
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], dict[str, int], dict[str, float]]:
        """(this rank's micro-batches, counters behind the step, figures of the step over all ranks)."""
        options, world = self.options, self.world
        first = counters["prompts"]
        numbers = range(first, first + options.prompts_per_step)[world.rank :: world.size]
        groups = writer_of(self.model, self.tokenizer, self.task, options, world).groups(
            [self._drawn(number) for number in numbers],
            options.num_samples, options.temperature, options.top_k,
        )  # fmt: skip
        credits = [self._credit(g, n) for g, n in zip(groups, numbers, strict=True)]
        rows = [
            _row(group.prompt, reply, factor)
            for group, factors in zip(groups, credits, strict=True)
            if self.start_model is not None or not group.is_even
            for reply, factor in zip(group.replies, factors, strict=True)
        ]
        parts = list(self._padded(rows))
        divergence = self._add_kl(parts) if self.start_model is not None else 0.0
        n = world.sum(
            torch.tensor([
                len(groups), sum(len(g.replies) for g in groups),
                sum(r.finish == "stop" for g in groups for r in g.replies), sum(g.is_even for g in groups),
                sum(map(_n_targets, groups)), sum(inputs.numel() for inputs, _, _ in parts),
                sum(math.fsum(g.rewards) for g in groups), sum(g.right for g in groups),
                sum(g.right > 0 for g in groups), divergence,
            ], dtype=torch.float32, device=world.device)
        ).tolist()  # fmt: skip
        step = dict(zip(COUNTERS, map(int, n), strict=False))
        scores = {
            "reward": n[6] / n[1], "pass_1": n[7] / n[1], f"pass_{options.num_samples}": n[8] / n[0],
            "even_groups": n[3] / n[0], "ended": n[2] / n[1], "reply_tokens": n[4] / n[1],
            "targets": n[4], "tokens": n[5],
        }  # fmt: skip
        if self.start_model is not None:
            scores["kl"] = n[9] / max(1.0, n[4])
        return parts, {name: counters[name] + step[name] for name in COUNTERS}, scores

    def _credit(self, group: Group, number: int) -> list[float]:
        credit = group.advantages()
        if self.options.shuffle_rewards:
            random.Random(f"shuffle {self.options.seed} {number}").shuffle(credit)
        return credit

    def _padded(self, rows: list[_Row]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Micro-batches (inputs, targets, factors) of rows of similar length; one without targets if none."""
        rows = sorted(rows, key=lambda row: len(row.inputs)) or [
            _Row([self.tokenizer.bos_id], [IGNORED], 0.0)
        ]
        size, device = self.options.device_batch_rows, self.world.device
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            T = len(chunk[-1].inputs)
            inputs = torch.full((len(chunk), T), self.tokenizer.bos_id)
            targets = torch.full((len(chunk), T), IGNORED)
            for i, row in enumerate(chunk):
                inputs[i, : len(row.inputs)] = torch.tensor(row.inputs)
                targets[i, : len(row.targets)] = torch.tensor(row.targets)
            factors = torch.tensor([row.factor for row in chunk])[:, None].repeat(1, T)
            yield inputs.to(device), targets.to(device), factors.to(device)

    def _add_kl(self, parts: list[tuple[Tensor, Tensor, Tensor]]) -> float:
        """Take kl * log(p / p_start) from each target's factor; returns the sum of the logarithms."""
        assert self.start_model is not None
        total = 0.0
        for inputs, targets, factors in parts:
            ratio = self.model.log_probs(inputs, targets) - self.start_model.log_probs(inputs, targets)
            factors -= self.options.kl * ratio
            total += ratio.sum().item()
        return total


# ----------------------------------------------------------------------------- how good it is


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that one of k replies drawn from `samples`, of which some are right, is (arXiv 2107.03374)."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples: k must be from 1 to the number of samples")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def pass_rates(
    writer: Writer, prompts: Sequence[Prompt], samples: int, temperature: float = 1.0
) -> dict[int, float]:
    """k -> pass@k over all prompts and ranks, for k = 1, 2, 4, ... up to `samples`."""
    world = writer.world
    groups = writer.groups(prompts[world.rank :: world.size], samples, temperature)
    ks = [2**i for i in range(samples.bit_length())]
    sums = [sum(pass_at_k(samples, group.right, k) for group in groups) for k in ks]
    totals = world.sum(torch.tensor(sums, dtype=torch.float32, device=world.device)).tolist()
    return {k: total / len(prompts) for k, total in zip(ks, totals, strict=True)}


def fixed_prompts(
    task: Task, indices: Sequence[int], tokenizer: Tokenizer, context: int, room: int
) -> list[Prompt]:
    """Those problems that fit, with seeds that are the same whenever they are asked."""
    fitting = fitting_prompts(task, indices, tokenizer, context, room)
    return [Prompt(index, ids, number) for number, (index, ids) in enumerate(fitting.items())]


def held_out_rates(writer: Writer, prompts: Sequence[Prompt], samples: int) -> dict[str, float]:
    """Shares of right replies: `greedy`, and `pass_K` of sampled ones."""
    greedy = pass_rates(writer, prompts, 1, temperature=0.0)[1]
    sampled = pass_rates(writer, prompts, samples)
    return {"greedy": greedy, **{f"pass_{k}": rate for k, rate in sampled.items()}}
