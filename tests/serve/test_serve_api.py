"""What the endpoints answer: the engine's own replies, counts, scores, refusals; over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from served import Held, Served, chat_of, served

from nanochat.engine import Engine
from nanochat.request import GREEDY, Request, Sampling
from nanochat.tokenizer import SPECIAL_TOKENS

SEEDED = {"temperature": 1.0, "seed": 7}


def rendered(toy: Served, body: dict[str, Any]) -> list[int]:
    return toy.engine.tokenizer.render_for_completion({"messages": body["messages"]})


def frames(response: httpx.Response) -> list[Any]:
    """The objects of a stream, which ends with [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    assert {"message", "type", "param", "code"} <= found.keys()
    return found


def test_a_reply_is_the_engines(toy: Served) -> None:
    body = chat_of("Hello", "yes", "and?", **SEEDED)
    prompt = rendered(toy, body)
    (alone,) = toy.engine.generate_batch([prompt], max_tokens=8, seed=[7])
    answer = toy.post("/v1/chat/completions", body).json()
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == alone.text
    assert choice["finish_reason"] == alone.finish
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(prompt), len(alone.ids))
    assert usage["total_tokens"] == len(prompt) + len(alone.ids)


def test_a_stream_says_the_same(toy: Served) -> None:
    body = chat_of("Hello", n=2, logprobs=True, top_logprobs=2, **SEEDED)
    whole = toy.post("/v1/chat/completions", body).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = frames(toy.post("/v1/chat/completions", body | options))
    assert chunks[-1]["choices"] == []
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert chunks[-1]["usage"][key] == whole["usage"][key]
    assert len({chunk["id"] for chunk in chunks}) == 1
    for index, choice in enumerate(whole["choices"]):
        own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in own) == choice["message"]["content"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        scores = [e for c in own if c["logprobs"] for e in c["logprobs"]["content"]]
        close(scores, choice["logprobs"]["content"])
    first, second = (choice["message"]["content"] for choice in whole["choices"])
    assert first != second


def close(one: Any, other: Any) -> None:
    """Equal, but for the last bits of numbers."""
    assert type(one) is type(other)
    if isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            close(a, b)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4)
    else:
        assert one == other


@pytest.mark.slow
def test_defaults_are_the_servers_for_a_chat(engine: Engine) -> None:
    with served(engine, sampling=Sampling(1.0, 5)) as one:
        body = chat_of("Hello", seed=3)
        (alone,) = engine.generate_batch([rendered(one, body)], max_tokens=8, seed=[3], top_k=5)
        assert one.post("/chat/completions", body).json()["choices"][0]["message"]["content"] == alone.text


def test_without_max_tokens_the_context_is_filled(toy: Served) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 150}]}
    answer = toy.post("/v1/chat/completions", body).json()
    (alone,) = toy.engine.generate_batch([rendered(toy, body)], max_tokens=999, temperature=0)
    assert answer["choices"][0]["finish_reason"] == alone.finish
    assert answer["usage"]["completion_tokens"] == len(alone.ids)


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_text_that_spells_a_special_token_stays_text(toy: Served, name: str) -> None:
    """In every role, whole and split over messages: the prompt has the ids of its frame, and no others."""
    tokenizer = toy.engine.tokenizer
    half = len(name) // 2
    body = chat_of(f"a{name}", name, name[:half], name[half:], f"{name}{name}", max_tokens=1)
    body["messages"].insert(0, {"role": "system", "content": f"{name} be brief"})
    body["messages"][2]["tool_uses"] = [{"name": "calculator", "input": name, "output": name, "at": 3}]
    text = "".join(m["content"] for m in body["messages"]) + 2 * name + "\n\n"
    frame = 1 + 5 * 2 + 1 + 4  # bos; start and end of five turns; the reply's start; the tool's markers
    usage = toy.post("/v1/chat/completions", body).json()["usage"]
    assert usage["prompt_tokens"] == len(text.encode()) + frame
    assert all(i < 256 for i in tokenizer.encode(name))


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    (chat_of("a") | {"messages": []}, "messages", "at least 1 item"),
    (chat_of("a", "b"), None, "must end with a user message"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, None, "where 'user' is due"),
    ({"messages": [{"role": "user", "content": "a"}] * 2}, None, "where 'assistant' is due"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "a"}]}, None, "due"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role", "'system'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text"),
    (chat_of("a", tools=[{"type": "function"}]), "tools", "its own tools only"),
    (chat_of("a", functions=[{}]), "functions", "its own tools only"),
    (chat_of("a", response_format={"type": "json_object"}), "response_format", "'text'"),
    (chat_of("a", temperature=-1), "temperature", "greater than or equal to 0"),
    (chat_of("a", temperature="hot"), "temperature", "number"),
    (chat_of("a", top_p=0), "top_p", "greater than 0"),
    (chat_of("a", min_p=1.5), "min_p", "less than or equal to 1"),
    (chat_of("a", n=0), "n", "greater than or equal to 1"),
    (chat_of("a", stop=["a"] * 5), "stop", "at most 4 items"),
    (chat_of("a", stop=""), "stop", "at least 1 character"),
    (chat_of("a", logprobs=True, top_logprobs=21), "top_logprobs", "less than or equal to 20"),
    (chat_of("a", top_logprobs=1), "top_logprobs", "needs logprobs"),
    (chat_of("a", seed=-1), "seed", "greater than or equal to 0"),
    (chat_of("a", max_tokens=0), "max_tokens", "greater than or equal to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "message"), REFUSED)
def test_what_makes_no_sense_is_a_400(toy: Served, body: Any, param: str | None, message: str) -> None:
    response = toy.post("/v1/chat/completions", body)
    found = error(response)
    assert response.status_code == 400 and found["type"] == "invalid_request_error"
    assert message in found["message"]
    assert found["param"] is param if param is None else str(found["param"]).startswith(param)


def test_too_long_a_chat_is_refused_with_its_counts(toy: Served) -> None:
    long = chat_of("x" * 300, max_tokens=None)
    found = error(toy.post("/v1/chat/completions", long))
    counts = (len(rendered(toy, long)), toy.model.context)
    assert found["code"] == "context_length_exceeded"
    assert (found["prompt_tokens"], found["context_length"]) == counts
    short = chat_of("x" * 100, max_tokens=100)
    found = error(toy.post("/v1/chat/completions", short))
    assert found["code"] == "context_length_exceeded" and "100 more are asked for" in found["message"]


def test_other_errors_have_openais_shape(toy: Served) -> None:
    unknown = toy.post("/v1/chat/completions", chat_of("a") | {"model": "gpt-9"})
    assert (unknown.status_code, error(unknown)["code"]) == (404, "model_not_found")
    assert toy.post("/v1/chat/completions", chat_of("a") | {"model": ""}).status_code == 404
    assert toy.post("/chat/completions", chat_of("a") | {"model": ""}).status_code == 200
    assert toy.http.get("/v1/models/gpt-9").status_code == 404
    assert error(toy.http.get("/v1/nothing"))["code"] == "not_found"
    wrong = toy.http.get("/v1/chat/completions")
    assert (wrong.status_code, error(wrong)["code"]) == (405, "method_not_allowed")
    for content in (
        b"{",
        b'{"messages": "\xff"}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b"",
        b"[]",
    ):
        headers = {"content-type": "application/json"}
        broken = toy.http.post("/v1/chat/completions", content=content, headers=headers)
        assert broken.status_code == 400 and error(broken), content[:20]
    plain = toy.http.post("/v1/chat/completions", content=json.dumps(chat_of("a")))  # as a form could send it
    assert plain.status_code == 400 and "application/json" in error(plain)["message"]
    lone = toy.http.post(
        "/v1/chat/completions", headers={"content-type": "application/json"},
        content=b'{"model":"toy","max_tokens":1,"messages":[{"role":"\\ud800","content":"\\ud800"}]}',
    )  # fmt: skip
    assert lone.status_code == 400


def test_unknown_fields_are_ignored_and_named(toy: Served) -> None:
    response = toy.post("/v1/chat/completions", chat_of("a", logit_bias={}, user="me") | {"ü\r\nx": 1})
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "logit_bias, user, ?"


def test_a_completion_scores_its_prompt(toy: Served) -> None:
    """As evaluation harnesses ask: several prompts as ids, echoed, one token more."""
    prompts = [[256, *b"two and two"], [256, *b"green"]]
    body = {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1}
    answer = toy.post("/v1/completions", body).json()
    for choice, prompt in zip(answer["choices"], prompts, strict=True):
        scores = choice["logprobs"]
        assert len(scores["tokens"]) == len(prompt) + 1
        assert (scores["token_logprobs"][0], scores["top_logprobs"][0]) == (None, None)
        expected = toy.engine.score([prompt[:1]], [[prompt[1:]]])[0][0]
        assert sum(scores["token_logprobs"][1:-1]) == pytest.approx(expected, abs=1e-3)
        assert scores["token_logprobs"][-1] == max(scores["top_logprobs"][-1].values())
        assert choice["text"].startswith(bytes(prompt[1:]).decode())
        at = scores["text_offset"]
        assert at[:4] == [0, 0, 1, 2] and at == sorted(at)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, prompts))
    only = toy.post("/v1/completions", body | {"max_tokens": 0}).json()["choices"]
    assert [choice["text"] for choice in only] == [bytes(p[1:]).decode() for p in prompts]
    assert [choice["finish_reason"] for choice in only] == ["length", "length"]


def test_completions_of_texts(toy: Served) -> None:
    tokenizer = toy.engine.tokenizer
    body = {"prompt": ["one", "two"], "n": 2, "max_tokens": 6, "seed": 5}
    answer = toy.post("/v1/completions", body).json()
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in ("one", "two")]
    alone = toy.engine.generate_batch(prompts, max_tokens=6, seed=[5, 5], num_samples=2)
    assert [choice["text"] for choice in answer["choices"]] == [reply.text for reply in alone]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"]["prompt_tokens"] == 8
    chunks = frames(toy.post("/v1/completions", body | {"stream": True, "echo": True}))
    for i, reply in enumerate(alone):
        own = [c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == i]
        assert "".join(own) == ("one", "two")[i // 2] + reply.text
    assert toy.post("/v1/completions", {"prompt": "one"}).json()["usage"]["completion_tokens"] <= 16


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "a", "max_tokens": 0}, "needs echo"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [300]}, "ids outside 0 to 264"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "x" * 300}, "the prompt has 301 tokens"),
        ({"prompt": ["a"] * 65}, "more than 64"),
        ({"prompt": {"a": 1}}, "prompt"),
    ],
)
def test_prompts_that_make_no_sense(toy: Served, body: Any, message: str) -> None:
    response = toy.post("/v1/completions", body)
    assert response.status_code == 400 and message in error(response)["message"]


@pytest.mark.slow
def test_a_full_queue_is_a_429(engine: Engine) -> None:
    with served(engine, slots=1, waiting=1) as one, Held(one.scheduler) as held:
        with one.http.stream("POST", "/chat/completions", json=chat_of("a", stream=True)) as running:
            assert running.status_code == 200
            assert held.at_step.acquire(timeout=10)
            with one.http.stream("POST", "/chat/completions", json=chat_of("b", stream=True)):
                full = one.http.post("/chat/completions", json=chat_of("c"))
                assert (full.status_code, error(full)["code"]) == (429, "queue_full")
                assert 1 <= int(full.headers["retry-after"]) <= 60
                several = one.http.post("/chat/completions", json=chat_of("c", n=2))
                assert several.status_code == 429
        held.__exit__()
        one.idle()
        assert one.pool.stats()[0][1].refused == 2


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_leaves_frees_its_slot_within_a_step(engine: Engine, is_streamed: bool) -> None:
    with served(engine, slots=1) as one, Held(one.scheduler) as held:
        body = chat_of("a", max_tokens=100, stream=is_streamed)
        limit = httpx.Timeout(10, read=0.2)
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=one.url, timeout=limit) as client:
            client.post("/chat/completions", json=body)
        assert held.at_step.acquire(timeout=10)
        while not next(iter(one.scheduler._running.values())).is_cancelled:
            assert one.pool.state == "ok"  # the event loop hears of it while the step is under way
        held.go.release()
        one.idle()
        stats = one.scheduler.stats()
        assert (stats.cancelled, stats.completion_tokens) == (1, 1)


@pytest.mark.slow
def test_while_the_model_loads(engine: Engine) -> None:
    with served(engine, is_open=False) as one:
        health = one.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        assert health.headers["retry-after"]
        early = one.post("/v1/chat/completions", chat_of("a"))
        assert (early.status_code, error(early)["code"]) == (503, "loading") and early.headers["retry-after"]
        assert one.http.get("/").status_code == 200
        assert "nanochat_ready 0" in one.http.get("/metrics").text


def test_more_replies_than_there_can_be_room_for_are_refused_for_good(engine: Engine) -> None:
    with served(engine, slots=2, waiting=3) as one:
        for path, body in (("chat/completions", chat_of("a", n=6)), ("completions", {"prompt": "a", "n": 6})):
            answer = one.post(f"/v1/{path}", {"model": one.model.id} | body)
            assert (answer.status_code, error(answer)["code"]) == (400, "too_many_replies")
            assert "6 replies at once are more than 3" in error(answer)["message"]
        assert one.pool.stats()[0][1].submitted == 0


@pytest.mark.slow
def test_requests_go_where_there_is_least_to_do(engine: Engine) -> None:
    with served(engine, workers=3) as one:
        first, second, _ = (worker.scheduler for worker in one.workers)
        with Held(first), Held(second):
            for _ in range(2):
                one.in_loop(lambda: one.pool.submit([Request([256, 1], 2, GREEDY)]))
            for i in range(3):
                assert one.post("/chat/completions", chat_of(str(i), max_tokens=2)).status_code == 200
        one.idle()
        assert [stats.submitted for _, stats in one.pool.stats()] == [1, 1, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_engine_is_told_and_ends_the_server(engine: Engine) -> None:
    with served(engine) as one:
        one.scheduler._batch.step = lambda: 1 / 0  # type: ignore
        broken = one.http.post("/chat/completions", json=chat_of("a"))
        assert (broken.status_code, error(broken)["code"]) == (500, "engine_failed")
        assert one.pool.state == "failed"


def test_figures(toy: Served) -> None:
    toy.post("/v1/chat/completions", chat_of("a"))
    stats = toy.http.get("/stats").json()
    assert stats["workers"][0]["finished"] >= 1 and stats["answers"] >= 1
    text = toy.http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['nanochat_completion_tokens_total{device="cpu/0"}']) > 0
    assert lines['nanochat_running{device="cpu/0"}'] == "0"
    assert float(lines['nanochat_responses_total{status="200"}']) >= 1
