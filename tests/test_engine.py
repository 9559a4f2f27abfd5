"""The engine against slow, obvious twins: no cache, one row alone, sums by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nanochat.calculator import calculate
from nanochat.config import GPTConfig
from nanochat.decoder import Decoder, Span
from nanochat.engine import Completion, Engine, KVCache, in_compute_dtype
from nanochat.gpt import GPT
from nanochat.kv_slots import KVSlots
from nanochat.reply import Tool
from nanochat.request import Request, Sampling
from nanochat.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
CONTEXT = 192
WINDOW = 128  # the smallest that a window pattern gives


def random_model(dtype: torch.dtype = torch.float32, **options: Any) -> GPT:
    """A small model whose every parameter matters (a fresh one starts as the identity)."""
    shape = {"vocab_size": 265, "depth": 3, "width": 32, "heads": 4, "kv_heads": 2, "context": CONTEXT}
    model = GPT(GPTConfig(**{**shape, "window_pattern": "SL", **options}), dtype).init_weights(0)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 1 if "embed" in name else 1.5 * p.size(1) ** -0.5, generator=rng)
            elif name == "smear_lambda":
                p.fill_(0.7)
    return model


ARCHITECTURES = pytest.mark.parametrize(
    "options",
    [
        {"arch": "modern"},
        {"arch": "classic", "window_pattern": "L"},
        {"arch": "modern", "kv_heads": 4, "window_pattern": "L", "tie_embeddings": True, "softcap": 0.0},
    ],
    ids=["modern", "classic", "tied"],
)


def random_prompts(lengths: Sequence[int]) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(256) for _ in range(n)] for n in lengths]


@torch.no_grad()
def greedy_twin(model: GPT, prompt: list[int], tokens: int, stop: set[int]) -> list[int]:
    """Generation as the definition has it: the whole sequence again for each token."""
    ids = list(prompt)
    for _ in range(tokens):
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token in stop:
            break
        ids.append(token)
    return ids[len(prompt) :]


# ----------------------------------------------------------------------------- cache


@ARCHITECTURES
def test_cached_logits_equal_full_ones(options: dict[str, Any]) -> None:
    """Rows of any lengths, fed in pieces of any size, moved and dropped on the way."""
    model = random_model(**options)
    draw = random.Random(3)
    texts = random_prompts([150, 170, 160, 140, 155])
    cache = KVCache(model.config, len(texts), 8, torch.float32, "cpu")
    fed = [0] * len(texts)
    live = list(range(len(texts)))
    for call in range(6):
        # First together and far, so that the windows bind; then ragged pieces.
        counts = [draw.randint(100, 120) if call == 0 else draw.randint(1, 5) for _ in live]
        pieces = [texts[row][fed[row] : fed[row] + n] for row, n in zip(live, counts, strict=True)]
        padded = torch.tensor([[*p, *[7] * (max(counts) - len(p))] for p in pieces])
        cache.expect(counts)
        with torch.no_grad():
            logits = model(padded, cache)
        cache.advance(counts)
        for i, row in enumerate(live):
            with torch.no_grad():
                full = model(torch.tensor([texts[row][: fed[row] + counts[i]]]))[0, fed[row] :]
            assert torch.allclose(logits[i, : counts[i]], full, atol=2e-4, rtol=1e-3)
            fed[row] += counts[i]
        if call in (1, 3):
            keep = [len(live) - 1, *range(len(live) - 2)]  # the last row first, one dropped
            cache.select(keep)
            live = [live[i] for i in keep]
    assert [fed[row] for row in live] == cache.lengths


def test_cache_grows_up_to_the_context_and_no_further() -> None:
    model = random_model()
    with pytest.raises(ValueError, match=f"capacity 500 is beyond the model's context of {CONTEXT}"):
        KVCache(model.config, 1, 500, torch.float32, "cpu")
    cache = KVCache(model.config, 1, 1, torch.float32, "cpu")
    with torch.no_grad():
        model.hidden(torch.zeros(1, CONTEXT - 1, dtype=torch.long), cache)
        cache.advance([CONTEXT - 1])
        model.hidden(torch.zeros(1, 1, dtype=torch.long), cache)
        cache.advance([1])
        with pytest.raises(
            ValueError, match=f"{CONTEXT + 1} tokens do not fit the model's context of {CONTEXT}"
        ):
            model.hidden(torch.zeros(1, 1, dtype=torch.long), cache)


# ----------------------------------------------------------------------------- greedy


@ARCHITECTURES
def test_greedy_equals_the_twin_without_a_cache(options: dict[str, Any], tokenizer: Tokenizer) -> None:
    model = random_model(**options)
    prompts = random_prompts([3, 150, 1, 120, 40])
    stop = set(range(0, 256, 20))  # so that rows end at different steps
    replies = Engine(model, tokenizer).generate_batch(prompts, max_tokens=18, temperature=0, stop=stop)
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply.ids == greedy_twin(model, prompt, 18, stop)
        assert reply.finish == ("length" if len(reply.ids) == 18 else "stop")
        assert (reply.stop_id in stop) == (reply.finish == "stop")
    assert len({len(reply.ids) for reply in replies}) > 1


def test_half_precision_is_cast_once_and_leaves_the_model_alone(tokenizer: Tokenizer) -> None:
    model = random_model(torch.bfloat16)
    cast = in_compute_dtype(model)
    assert {p.dtype for p in cast.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert in_compute_dtype(cast) is cast
    idx = torch.tensor(random_prompts([60]))
    with torch.no_grad():
        assert torch.equal(model(idx), cast(idx))
    reply = Engine(model, tokenizer).generate_batch(idx.tolist(), max_tokens=8, temperature=0)[0]
    assert len(reply.ids) == 8 or reply.finish == "stop"


def test_context_full_is_a_length_finish(tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(), tokenizer)
    prompts = random_prompts([CONTEXT - 1, CONTEXT - 4])
    replies = engine.generate_batch(prompts, max_tokens=50, temperature=0, stop=())
    assert [len(reply.ids) for reply in replies] == [1, 4]
    assert {reply.finish for reply in replies} == {"length"}


def test_a_run_takes_the_memory_of_the_last_one(tokenizer: Tokenizer) -> None:
    model = random_model()
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "stop": ()}
    engine = Engine(model, tokenizer)
    next(engine.stream(Request(random_prompts([40])[0], 9)))  # broken off
    engine.generate_batch(random_prompts([30, 44, 8]), **options)
    assert engine._spare is not None
    place, shape = engine._spare.store.data_ptr(), engine._spare.store.shape
    smaller, larger = random_prompts([21, 3]), random_prompts([5, 9, 2, 7])
    fresh = Engine(model, tokenizer).generate_batch(smaller, **options)
    assert engine.generate_batch(smaller, **options) == fresh
    assert engine._spare.store.data_ptr() == place
    engine.generate_batch(larger, **options)
    assert engine._spare.store.shape[:2] == (shape[0], 4)


# ----------------------------------------------------------------------------- randomness


def test_a_row_does_not_depend_on_its_neighbours(tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(), tokenizer)
    prompts, seeds = random_prompts([3, 50, 17, 29]), [11, 12, 13, 11]
    options: dict[str, Any] = {
        "max_tokens": 12,
        "temperature": 0.9,
        "top_k": 40,
        "top_p": 0.95,
        "stop": {9, 10},
    }
    together = engine.generate_batch(prompts, seed=seeds, num_samples=2, **options)
    for i, prompt in enumerate(prompts):
        assert together[2 * i : 2 * i + 2] == engine.generate_batch(
            [prompt], seed=seeds[i], num_samples=2, **options
        )


def test_seeds_are_reproducible_and_differ(tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(), tokenizer)
    prompts = random_prompts([5])

    def replies(seed: int) -> list[list[int]]:
        return [
            c.ids for c in engine.generate_batch(prompts, max_tokens=10, seed=seed, num_samples=4, stop=())
        ]

    assert replies(1) == replies(1)
    assert replies(1) != replies(2)
    assert len({tuple(ids) for ids in replies(1)}) == 4


# ----------------------------------------------------------------------------- tools and stops


class Scripted(Decoder):
    """Wants to say given tokens: logits at position p favour `script[p + 1]`."""

    def __init__(self, script: list[int]) -> None:
        config = GPTConfig(vocab_size=265, depth=1, width=8, arch="classic", heads=1, kv_heads=1, context=64)
        super().__init__(GPT(config).init_weights(0))
        self.script = torch.tensor([*script[1:], *[0] * 64])
        self.calls = 0

    def hidden(self, spans: Sequence[Span], slots: KVSlots) -> Tensor:
        self.calls += 1
        return torch.cat([self.script[span.start : span.end] for span in spans])

    def scores(self, hidden: Tensor) -> Tensor:
        return nn.functional.one_hot(hidden, 265).float()


def scripted_engine(tokenizer: Tokenizer, script: list[int], tool: Tool = calculate) -> Engine:
    engine = Engine(random_model(depth=1, context=64), tokenizer, tool)
    engine.decoder = Scripted(script)
    return engine


def scripted_reply(
    tokenizer: Tokenizer, parts: list[str | int], max_tokens: int = 60
) -> tuple[Completion, Scripted]:
    """What the engine makes of a model that says `parts` (text, or names of special tokens as ids)."""
    script = [tokenizer.bos_id]
    for part in parts:
        script += tokenizer.encode(part) if isinstance(part, str) else [part]
    engine = scripted_engine(tokenizer, script)
    assert isinstance(engine.decoder, Scripted)
    (reply,) = engine.generate_batch([[tokenizer.bos_id]], max_tokens=max_tokens, temperature=0)
    return reply, engine.decoder


def test_tool_result_is_forced_into_the_reply(tokenizer: Tokenizer) -> None:
    start, end, out, out_end, stop = (
        tokenizer.special(n)
        for n in ("python_start", "python_end", "output_start", "output_end", "assistant_end")
    )
    # The model's own words at the forced places (five dots) are overruled.
    reply, model = scripted_reply(tokenizer, ["is ", start, "12*12", end, ".....", "144!", stop])
    call = [start, *tokenizer.encode("12*12"), end]
    forced = [out, *tokenizer.encode("144"), out_end]
    assert reply.ids == [*tokenizer.encode("is "), *call, *forced, *tokenizer.encode("144!")]
    assert reply.mask == [1] * (3 + len(call)) + [0] * len(forced) + [1] * 4
    assert (reply.text, reply.finish, reply.stop_id) == ("is 144!", "stop", stop)
    assert model.calls == 1 + len(reply.ids)


def test_nothing_is_forced_after_what_is_no_call(tokenizer: Tokenizer) -> None:
    start, end, stop = (tokenizer.special(n) for n in ("python_start", "python_end", "assistant_end"))
    for parts in (
        ["a", start, "import os", end, "b", stop],
        ["a", end, "b", stop],
        ["a", start, "1+1", stop],
    ):
        reply, _ = scripted_reply(tokenizer, parts)
        assert set(reply.mask) == {1}
        assert reply.text in ("ab", "a")
        assert reply.finish == "stop"


def test_max_tokens_counts_forced_tokens_and_spares_a_forward(tokenizer: Tokenizer) -> None:
    start, end = tokenizer.special("python_start"), tokenizer.special("python_end")
    reply, model = scripted_reply(tokenizer, [start, "1+1", end, "....."], max_tokens=6)
    assert reply.mask == [1, 1, 1, 1, 1, 0]
    assert (reply.finish, reply.text, model.calls) == ("length", "", 6)


def test_special_strings_in_a_result_stay_text(tokenizer: Tokenizer) -> None:
    start, end, stop = (tokenizer.special(n) for n in ("python_start", "python_end", "assistant_end"))
    script = [tokenizer.bos_id, start, end, *[0] * 62]
    engine = scripted_engine(tokenizer, script, lambda call: "<|assistant_end|>")
    reply = engine.generate_batch([[tokenizer.bos_id]], max_tokens=25, temperature=0)[0]
    assert stop not in reply.ids
    assert tokenizer.encode("<|assistant_end|>") == reply.ids[3:20]


def test_a_forced_token_does_not_stop(tokenizer: Tokenizer) -> None:
    start, end = tokenizer.special("python_start"), tokenizer.special("python_end")
    (four,) = tokenizer.encode("4")
    script = [tokenizer.bos_id, start, *tokenizer.encode("2+2"), end, 0, 0, 0, four]
    engine = scripted_engine(tokenizer, script)
    reply = engine.generate_batch([[tokenizer.bos_id]], max_tokens=20, temperature=0, stop=[four])[0]
    assert (len(reply.ids), reply.ids[-2], reply.stop_id) == (8, four, four)


def test_stop_tokens(tokenizer: Tokenizer) -> None:
    reply, _ = scripted_reply(tokenizer, [tokenizer.special("assistant_end")])
    assert (reply.ids, reply.finish, reply.text) == ([], "stop", "")
    reply, _ = scripted_reply(tokenizer, ["hi", tokenizer.bos_id])
    assert (reply.text, reply.stop_id) == ("hi", tokenizer.bos_id)
    reply, _ = scripted_reply(tokenizer, ["hi", tokenizer.special("assistant_end")], max_tokens=2)
    assert (reply.text, reply.finish, reply.stop_id) == ("hi", "length", None)


def test_stream_gives_what_a_batch_collects(tokenizer: Tokenizer) -> None:
    engine = Engine(random_model(), tokenizer, calculate)
    (prompt,) = random_prompts([20])
    options: dict[str, Any] = {"max_tokens": 15, "seed": 4, "top_k": 20}
    request = Request(prompt, 15, Sampling(top_k=20), seed=4)
    assert list(engine.stream(request)) == engine.generate_batch([prompt], **options)[0].ids
    early = engine.stream(request)
    next(early)
    early.close()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------- scores


@ARCHITECTURES
def test_scores_equal_sums_over_whole_sequences(options: dict[str, Any], tokenizer: Tokenizer) -> None:
    model = random_model(**options)
    prompts = random_prompts([3, CONTEXT - 2, 140])
    answers = [random_prompts([1, 5, 9]), random_prompts([2, 1]), random_prompts([30])]
    scores = Engine(model, tokenizer).score(prompts, answers)
    for prompt, group, row in zip(prompts, answers, scores, strict=True):
        for option, total in zip(group, row, strict=True):
            with torch.no_grad():
                log_probs = model(torch.tensor([[*prompt, *option]]))[0].log_softmax(-1)
            expected = sum(float(log_probs[len(prompt) - 1 + i, token]) for i, token in enumerate(option))
            assert total == pytest.approx(expected, abs=5e-3)


# ----------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1]], {"temperature": -0.1}, "temperature -0.1 must be 0"),
        ([[1]], {"temperature": float("nan")}, "temperature nan"),
        ([[1]], {"top_p": 0.0}, "top_p 0.0 must be above 0"),
        ([[1]], {"top_p": 1.5}, "top_p 1.5"),
        ([[1]], {"top_k": -1}, "top_k -1 must be at least 1"),
        ([[1]], {"max_tokens": 0}, "max_tokens 0"),
        ([[1]], {"num_samples": 0}, "num_samples 0"),
        ([[1]], {"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ([[1]], {"seed": -3}, "seed -3 is negative"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1] * CONTEXT], {}, f"prompt 0 has {CONTEXT} tokens"),
        ([[265]], {}, "prompt 0 has ids outside 0 to 264"),
    ],
)
def test_faults_are_named(prompts: Any, options: dict[str, Any], message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(random_model(depth=1), tokenizer).generate_batch(prompts, **{"max_tokens": 4, **options})


def test_no_prompts_no_replies(tokenizer: Tokenizer) -> None:
    assert Engine(random_model(depth=1), tokenizer).generate_batch([], max_tokens=3) == []
