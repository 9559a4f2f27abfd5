"""The running batch: exactness while rows come and go, chunks, shared beginnings, log-probabilities."""

from __future__ import annotations

import random

import pytest
import torch
from test_engine import ARCHITECTURES, CONTEXT, greedy_twin, random_model, random_prompts

from nanochat.batch import CHUNK, Batch, common_length
from nanochat.bench import exact
from nanochat.engine import Engine
from nanochat.reply import Reply
from nanochat.request import GREEDY, Request
from nanochat.tokenizer import Tokenizer

NEVER: frozenset[int] = frozenset()


@pytest.fixture
def engine(tokenizer: Tokenizer) -> Engine:
    return Engine(random_model(depth=2), tokenizer)


@pytest.mark.slow
@ARCHITECTURES
def test_many_mixed_replies_are_those_of_each_alone(options: dict, tokenizer: Tokenizer) -> None:
    check_mixed(Engine(random_model(**options), tokenizer), 300)


def test_mixed_replies_are_those_of_each_alone(engine: Engine) -> None:
    check_mixed(engine, 20)


def check_mixed(engine: Engine, n: int) -> None:
    requests = exact.mixed(random.Random(2), n, CONTEXT, 256)
    found = exact.compare(engine, requests, random.Random(3))
    assert found.counts["wrong"] == 0
    assert found.counts["tie"] <= 0.005 * n + 1
    assert found.difference < exact.TOLERANCE


def test_the_comparison_sees_a_wrong_token(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose shared beginnings are copied from the wrong row is found out."""
    copy = Batch._begin
    monkeypatch.setattr(Batch, "_begin", lambda self, row, seat, readers: copy(self, row, seat, readers))
    slots = engine.batch(1).slots.__class__
    monkeypatch.setattr(slots, "copy", lambda self, source, target, columns: None)
    found = exact.compare(engine, exact.mixed(random.Random(2), 30, CONTEXT, 256), random.Random(3))
    assert found.counts["wrong"] > 0


def finished(batch: Batch) -> int:
    """Run to the end; how many steps it took."""
    before = batch.steps
    while batch.seats:
        batch.step()
    return batch.steps - before


def test_a_prompt_is_read_in_chunks_while_others_write(engine: Engine) -> None:
    short, long = random_prompts([4, 95])
    batch = Batch(engine.decoder, engine.decoder.slots(2, CONTEXT), chunk=10)
    writer = engine.reply(Request(short, 30, GREEDY, stop=NEVER))
    batch.join(writer)
    batch.step()
    reader = engine.reply(Request(long, 5, GREEDY, stop=NEVER))
    batch.join(reader)
    for step in range(9):
        batch.step()
        assert (len(writer.ids), len(reader.ids)) == (step + 2, 0)
    batch.step()
    assert len(reader.ids) == 1
    finished(batch)
    for reply in (writer, reader):
        assert reply.ids == greedy_twin(engine.model, list(reply.request.prompt), len(reply.ids), set())


def test_offline_all_prompts_are_read_in_one_step_and_chunks_change_no_reply(engine: Engine) -> None:
    prompts = random_prompts([CHUNK // 8] * 12)

    def steps(*chunk: int) -> tuple[list[int], list[list[int]]]:
        replies = [engine.reply(Request(prompt, 2, GREEDY, stop=NEVER)) for prompt in prompts]
        order = [replies.index(reply) for reply in engine.run(replies, *chunk)]
        return order, [reply.ids for reply in replies]

    together, ids = steps()
    assert together == [*range(12)] * 2
    in_chunks, same = steps(CHUNK)
    assert in_chunks != together
    assert ids == same


def test_a_shared_prompt_is_read_once(engine: Engine) -> None:
    (prompt,) = random_prompts([100])
    replies = [engine.reply(Request(prompt, 3, GREEDY, stop=NEVER)) for _ in range(4)]
    list(engine.run(replies))
    assert [reply.cached_tokens for reply in replies] == [0, 99, 99, 99]
    assert len({tuple(reply.ids) for reply in replies}) == 1


def test_memory_prefers_what_the_prompt_goes_on_from(engine: Engine) -> None:
    batch = engine.batch(3, remember=True)
    first, second, third = random_prompts([40, 41, 42])
    for prompt in (first, second, third, [*first, 1], [*second, 2], [*third, 3]):
        reply = engine.reply(Request(prompt, 2, GREEDY, stop=NEVER))
        batch.join(reply)
        finished(batch)
        expected = len(prompt) - 1 if prompt[-1] in (1, 2, 3) and len(prompt) > 40 else 0
        assert reply.cached_tokens in (expected, 0) if expected == 0 else reply.cached_tokens >= 40
        assert reply.ids == greedy_twin(engine.model, prompt, 2, set())


def test_a_full_batch_and_its_room(engine: Engine) -> None:
    batch = engine.batch(2)
    seats = [batch.join(engine.reply(Request([i], 5, GREEDY, stop=NEVER))) for i in range(2)]
    assert batch.is_full
    batch.leave(seats[0])
    assert not batch.is_full and batch.seats == [seats[1]]
    assert finished(batch) == 5


def test_log_probabilities(engine: Engine) -> None:
    (prompt,) = random_prompts([30])
    request = Request(prompt, 4, GREEDY, stop=NEVER, logprobs=3, score_from=5)
    reply: Reply = engine.reply(request)
    list(engine.run([reply]))
    ids = [*prompt, *reply.ids]
    with torch.no_grad():
        expected = engine.model(torch.tensor([ids]))[0].log_softmax(-1)
    told = [*reply.prompt_logprobs, *reply.logprobs]
    assert [one.id for one in told] == ids[5:]
    for position, one in enumerate(told, start=5):
        row = expected[position - 1]
        assert one.logprob == pytest.approx(float(row[ids[position]]), abs=1e-4)
        best, best_ids = row.topk(3)
        assert [i for i, _ in one.top] == best_ids.tolist()
        assert [p for _, p in one.top] == pytest.approx(best.tolist(), abs=1e-4)


def test_common_length() -> None:
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1, 2], [1, 2, 4]) == 2
    assert common_length([], [1]) == 0
