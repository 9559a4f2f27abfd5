"""Rollouts and what is learned from them: gradients, masks, advantages, skipped groups, pass@k."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat import rollout
from nanochat.common import UsageError
from nanochat.config import GPTConfig
from nanochat.config_rl import ChatRL
from nanochat.dataloader import Batch
from nanochat.distributed import World
from nanochat.engine import Completion
from nanochat.gpt import GPT
from nanochat.rollout import Group, RewardError, Rollouts, pass_at_k
from nanochat.tokenizer import Tokenizer
from tasks.problems import Problems, last_number

ALONE = World(0, 0, 1, torch.device("cpu"))
OPTIONS = ChatRL(
    prompts_per_step=3, num_samples=4, max_tokens=12, device_batch_rows=5, seed=7, eval_prompts=2
)


class Toy:
    """Five problems; a reply is worth what `worth` says of it."""

    def __init__(self, worth: Callable[[str], Any]) -> None:
        self.worth = worth

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "?" * (index + 1)}]}

    def reward(self, item: dict[str, Any], reply: str, ended: bool) -> float:
        return self.worth(reply)  # type: ignore[no-any-return]


def parity(reply: str) -> float:
    return float(len(reply) % 2)


@pytest.fixture
def model(tokenizer: Tokenizer) -> GPT:
    config = GPTConfig(265, depth=2, width=32, heads=2, kv_heads=2, context=64, window_pattern="L")
    model = GPT(config, torch.float32).init_weights(0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(0, 1.5 * p.size(1) ** -0.5, generator=rng)
        model.head_weight[tokenizer.special("assistant_end")] *= 3  # some replies stop
    return model


def rollouts(
    model: GPT, tokenizer: Tokenizer, worth: Any = parity, options: ChatRL = OPTIONS, **more: Any
) -> Rollouts:
    return Rollouts(model, tokenizer, Toy(worth), range(5), options, more.pop("world", ALONE), "toy", **more)


def one_step(made: Iterator[Batch]) -> list[Batch]:
    step = [next(made)]
    while not step[-1].is_last:
        step.append(next(made))
    return step


def gradients(model: GPT, step: list[Batch]) -> dict[str, Tensor]:
    """What the loop makes of a step."""
    model.zero_grad()
    for batch in step:
        loss = model.loss_sum(batch.inputs, batch.targets, batch.factors)
        (loss / batch.stats["step_targets"]).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# ----------------------------------------------------------------------------- credit and masks


def test_advantages_are_rewards_minus_their_mean() -> None:
    reply = Completion([1], [1], "", "stop", 262)
    group = Group([0], [reply] * 4, [1.0, 0.0, 0.0, 1.0])
    assert group.advantages() == [0.5, -0.5, -0.5, 0.5] and group.right == 2 and not group.is_even
    assert Group([0], [reply] * 2, [1.0, 1.0]).is_even
    uneven = Group([0], [reply] * 3, [0.25, 1.0, 0.1])
    assert sum(uneven.advantages()) == pytest.approx(0) and uneven.right == 1


def test_sampled_tokens_and_the_stop_are_targets_and_a_tools_are_not() -> None:
    """Prompt 10 11 12; the model writes 20 21, the tool 30 31, the model 22 and stops with 99."""
    reply = Completion([20, 21, 30, 31, 22], [1, 1, 0, 0, 1], "", "stop", 99)
    row = rollout._row([10, 11, 12], reply, 0.5)
    assert row.inputs == [10, 11, 12, 20, 21, 30, 31, 22]
    assert row.targets == [-1, -1, 20, 21, -1, -1, 22, 99] and row.factor == 0.5
    cut = rollout._row([10, 11, 12], Completion([20, 21], [1, 1], "", "length"), 1.0)
    assert (cut.inputs, cut.targets) == ([10, 11, 12, 20], [-1, -1, 20, 21])
    assert rollout._n_targets(Group([10], [reply, Completion([20], [1], "", "length")], [0, 0])) == 5


# ----------------------------------------------------------------------------- the gradient


def reinforce_twin(model: GPT, groups: list[Group]) -> dict[str, Tensor]:
    """By the book, one reply at a time: -sum(advantage * log p(token)) / tokens, even groups included."""
    total, tokens = torch.zeros(()), 0
    for group in groups:
        baseline = statistics.fmean(group.rewards)
        for reply, reward in zip(group.replies, group.rewards, strict=True):
            written = [*reply.ids, *([reply.stop_id] if reply.stop_id is not None else [])]
            sampled = [*reply.mask, *([1] if reply.stop_id is not None else [])]
            ids = torch.tensor([*group.prompt, *written])
            log_p = model(ids[None])[0].log_softmax(dim=-1)
            for i, (token, mine) in enumerate(zip(written, sampled, strict=True), len(group.prompt)):
                if mine:
                    total = total - (reward - baseline) * log_p[i - 1, token]
                    tokens += 1
    model.zero_grad()
    (total / tokens).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def drawn_groups(made: Rollouts, worth: Any) -> list[Group]:
    writer = rollout.writer_of(made.model, made.tokenizer, Toy(worth), made.options, ALONE)
    return writer.groups([made._drawn(n) for n in range(made.options.prompts_per_step)], 4)


@pytest.mark.parametrize("seed", [7, 8])
def test_the_gradient_is_reinforces(model: GPT, tokenizer: Tokenizer, seed: int) -> None:
    options = ChatRL(**{**vars(OPTIONS), "seed": seed})

    def worth(reply: str) -> float:  # short replies all alike: some groups may be even
        return float(len(reply) > 9) + 0.25 * (len(reply) % 2)

    made = rollouts(model, tokenizer, worth, options)
    step = one_step(made.batches(None))
    groups = drawn_groups(made, worth)
    got, want = gradients(model, step), reinforce_twin(model, groups)
    assert any(r.finish == "stop" for g in groups for r in g.replies)
    assert sum(g.abs().sum() for g in want.values()) > 0
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-6)


def test_even_groups_are_left_out_and_change_nothing(model: GPT, tokenizer: Tokenizer) -> None:
    """Rewards that differ in one problem only: its rows are trained on, and all tokens are counted."""
    made = rollouts(model, tokenizer)
    first = made._drawn(0).ids
    groups = [
        g if g.prompt == first else Group(g.prompt, g.replies, [1.0] * 4) for g in drawn_groups(made, parity)
    ]
    assert not groups[0].is_even
    replies = {tokenizer.decode(reply.ids) for reply in groups[0].replies}
    step = one_step(rollouts(model, tokenizer, lambda r: parity(r) if r in replies else 1.0).batches(None))
    assert sum(len(batch.inputs) for batch in step) == 4 and step[-1].scores["even_groups"] == 2 / 3
    assert step[-1].stats["step_targets"] == sum(map(rollout._n_targets, groups))
    got, want = gradients(model, step), reinforce_twin(model, groups)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-6)


def test_a_step_without_any_contrast_has_no_gradient(model: GPT, tokenizer: Tokenizer) -> None:
    (batch,) = one_step(rollouts(model, tokenizer, lambda reply: 1.0).batches(None))
    assert batch.stats["step_targets"] > 0 and batch.state["counters"]["even_groups"] == 3
    assert not any(g.any() for g in gradients(model, [batch]).values())


def test_the_kl_term_pulls_back_to_the_start(model: GPT, tokenizer: Tokenizer) -> None:
    """Without contrast in rewards the factors are -kl * log(p / p_start) of the sampled tokens alone."""
    start = GPT(model.config, torch.float32).init_weights(0)
    start.load_state_dict(model.state_dict())
    options = ChatRL(**{**vars(OPTIONS), "kl": 0.5})
    made = rollouts(model, tokenizer, lambda reply: 0.0, options, start_model=start)
    step = one_step(made.batches(None))
    assert all(not batch.factors.any() for batch in step) and step[-1].scores["kl"] == 0  # type: ignore[union-attr]
    with torch.no_grad():
        start.head_weight.mul_(0.5)
    for batch in one_step(made.batches(None)):
        counted = batch.targets >= 0
        log_p, log_start = (
            m(batch.inputs).log_softmax(-1).gather(-1, batch.targets.clamp_min(0)[..., None])[..., 0]
            for m in (model, start)
        )
        assert batch.factors is not None
        torch.testing.assert_close(batch.factors[counted], -0.5 * (log_p - log_start)[counted])


def test_shuffled_rewards_keep_the_group_and_lose_the_reply(model: GPT, tokenizer: Tokenizer) -> None:
    options = ChatRL(**{**vars(OPTIONS), "shuffle_rewards": True})
    plain, mixed = rollouts(model, tokenizer), rollouts(model, tokenizer, parity, options)
    credits = [(plain._credit(g, n), mixed._credit(g, n)) for n, g in enumerate(drawn_groups(plain, parity))]
    assert all(sorted(a) == sorted(b) for a, b in credits) and any(a != b for a, b in credits)


# ----------------------------------------------------------------------------- the stream


def test_a_saved_position_goes_on_with_the_same_batches(model: GPT, tokenizer: Tokenizer) -> None:
    made = rollouts(model, tokenizer)
    stream = made.batches(None)
    steps = [one_step(stream) for _ in range(4)]
    for n in range(3):
        again = one_step(made.batches(steps[n][-1].state))
        for a, b in zip(again, steps[n + 1], strict=True):
            assert torch.equal(a.inputs, b.inputs) and torch.equal(a.factors, b.factors)  # type: ignore[arg-type]
            assert (a.state, a.stats, a.scores) == (b.state, b.stats, b.scores)
    assert all(batch.state == steps[0][-1].state for batch in steps[1][:-1])  # not before its step is done
    assert steps[3][-1].state["epoch"] == 12 // 5 and steps[3][-1].stats["prompts"] == 12
    with pytest.raises(ValueError, match="other problems"):
        next(made.batches({**steps[0][-1].state, "source": "others"}))


def test_each_epoch_has_every_problem_once(model: GPT, tokenizer: Tokenizer) -> None:
    made = rollouts(model, tokenizer)
    drawn = [made._drawn(n) for n in range(15)]
    assert all(sorted(p.item for p in drawn[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert len({p.seed for p in drawn}) == 15


def test_ranks_share_the_problems_of_a_step(model: GPT, tokenizer: Tokenizer) -> None:
    """Without a process group: what each of two ranks would write is what one rank writes."""
    whole = one_step(rollouts(model, tokenizer).batches(None))
    rows = sorted(tuple(r) for b in whole for r in b.inputs[b.factors[:, 0] != 0].tolist())  # type: ignore[index]

    class Half(World):
        def sum(self, values: Tensor) -> Tensor:
            return values

    parts = [
        one_step(rollouts(model, tokenizer, world=Half(rank, rank, 2, torch.device("cpu"))).batches(None))
        for rank in (0, 1)
    ]
    assert sum(part[-1].stats["step_targets"] for part in parts) == whole[-1].stats["step_targets"]
    strip = lambda row: tuple(itertools.takewhile(lambda t: t != tokenizer.bos_id, row[1:]))  # noqa: E731
    mine = sorted(
        strip(r)
        for part in parts
        for b in part
        for r in b.inputs[b.factors[:, 0] != 0].tolist()  # type: ignore[index]
    )
    assert mine == sorted(map(strip, rows))


# ----------------------------------------------------------------------------- rewards


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        (lambda reply: 1 / 0, r"reward of problem \d failed with ZeroDivisionError.*the reply was"),
        (lambda reply: None, "failed with TypeError"),
        (lambda reply: float("nan"), "is nan"),
    ],
)
def test_a_reward_that_fails_is_named(model: GPT, tokenizer: Tokenizer, worth: Any, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        next(rollouts(model, tokenizer, worth).batches(None))


def test_problems_that_do_not_fit_are_counted_or_refused(
    model: GPT, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ChatRL(**{**vars(OPTIONS), "max_tokens": 57})  # a prompt of one character has 5 tokens
    assert len(rollouts(model, tokenizer, parity, long).prompts) == 3
    assert "2 of 5 problems are too long and left out" in capsys.readouterr().out
    with pytest.raises(UsageError, match="none of the 5 problems leaves room"):
        rollouts(model, tokenizer, parity, ChatRL(**{**vars(OPTIONS), "max_tokens": 60}))


def test_a_reply_is_right_by_its_last_number_and_its_end() -> None:
    task = Problems([{"messages": [{"role": "user", "content": "?"}], "result": 1234}])
    call = "<|python_start|>1200+34<|python_end|><|output_start|>1234<|output_end|>"
    for reply in ("The answer is 1234.", f"{call}The answer is 1,234.", "Not 7 but 1234.0"):
        assert task.reward(task[0], reply, True) == 1.0 and task.reward(task[0], reply, False) == 0.0
    for reply in ("", call, "1234 or 5", "-1234", "12345", "1 234", "The answer is."):
        assert task.reward(task[0], reply, True) == 0.0
    assert last_number("from 3 to 1,000.50 coins") == 1000.5
    with pytest.raises(UsageError, match="problem 2 needs `messages` and a number"):
        Problems([{"messages": [], "result": 3}, {"messages": []}])


# ----------------------------------------------------------------------------- pass@k


@pytest.mark.parametrize(("samples", "right"), [(5, 0), (5, 2), (6, 5), (4, 4)])
def test_pass_at_k_counts_the_subsets(samples: int, right: int) -> None:
    for k in range(1, samples + 1):
        subsets = list(itertools.combinations(range(samples), k))
        hit = sum(min(subset) < right for subset in subsets)
        assert pass_at_k(samples, right, k) == pytest.approx(hit / len(subsets))
    with pytest.raises(ValueError, match="pass@0"):
        pass_at_k(samples, right, 0)


def test_held_out_rates_are_greedy_and_sampled(model: GPT, tokenizer: Tokenizer) -> None:
    prompts = rollout.fixed_prompts(Toy(parity), range(5), tokenizer, 64, 12)
    writer = rollout.writer_of(model, tokenizer, Toy(lambda reply: 1.0), OPTIONS, ALONE)
    assert rollout.held_out_rates(writer, prompts, 4) == dict.fromkeys(
        ("greedy", "pass_1", "pass_2", "pass_4"), 1.0
    )
    writer = rollout.writer_of(model, tokenizer, Toy(parity), OPTIONS, ALONE)
    rates = rollout.pass_rates(writer, prompts, 4)
    assert 0 < rates[1] < rates[2] < rates[4] <= 1
    rewards = [r for g in writer.groups(prompts, 4) for r in g.rewards]
    assert rates[1] == pytest.approx(statistics.fmean(rewards))
