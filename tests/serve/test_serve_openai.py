"""The official openai client against the server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from served import Held, Served, served, wait

from nanochat.engine import Engine

pytestmark = pytest.mark.slow
ASK = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(toy: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{toy.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == "toy" and client.models.retrieve("toy") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_chat_and_stream(client: openai.OpenAI) -> None:
    fields = {"model": "toy", "messages": ASK, "seed": 3, "temperature": 1, "max_tokens": 24}
    whole = client.chat.completions.create(**fields)
    assert whole.usage is not None and whole.usage.total_tokens > whole.usage.prompt_tokens
    assert whole == client.chat.completions.create(**fields).model_copy(
        update={"id": whole.id, "created": whole.created, "usage": whole.usage}
    )
    stream = client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True})
    *chunks, last = stream
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert last.usage is not None and last.usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_stop(client: openai.OpenAI) -> None:
    fields = {"model": "toy", "messages": ASK, "max_tokens": 24, "temperature": 0}
    text = client.chat.completions.create(**fields).choices[0].message.content or ""
    stopped = client.chat.completions.create(**fields, stop=[text[5:7]]).choices[0]
    assert stopped.message.content == text[: text.index(text[5:7])] and stopped.finish_reason == "stop"


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="toy", messages=ASK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    scores = answer.choices[0].logprobs
    assert scores is not None and scores.content and len(scores.content) <= 5
    for token in scores.content:
        assert len(token.top_logprobs) == 3 and token.logprob == token.top_logprobs[0].logprob <= 0
    text = client.completions.create(model="toy", prompt="Hello", echo=True, logprobs=2, max_tokens=2)
    assert text.choices[0].text.startswith("Hello") and text.choices[0].logprobs is not None


def test_errors(client: openai.OpenAI, toy: Served) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="toy", messages=[{"role": "user", "content": "x" * 300}])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert caught.value.body["context_length"] == toy.model.context  # type: ignore[index]


def test_a_wrong_key(engine: Engine) -> None:
    with served(engine, token="the-right-token-of-it") as one:
        wrong = openai.OpenAI(base_url=f"{one.url}/v1", api_key="none")
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.models.list()
        assert caught.value.code == "invalid_api_key"
        right = openai.OpenAI(base_url=f"{one.url}/v1", api_key="the-right-token-of-it")
        assert [model.id for model in right.models.list()] == ["toy"]


def test_a_full_queue_is_tried_again(engine: Engine) -> None:
    """The client waits as long as Retry-After says."""
    with served(engine, slots=1, waiting=1) as one, Held(one.scheduler) as held:
        client = openai.OpenAI(base_url=f"{one.url}/v1", api_key="none")
        streams = []
        for count in (1, 2):
            streams.append(
                client.chat.completions.create(model="toy", messages=ASK, max_tokens=4, stream=True)
            )
            wait(lambda count=count: one.scheduler.stats().submitted == count)
            if count == 1:
                assert held.at_step.acquire(timeout=10)
        with pytest.raises(openai.RateLimitError):
            client.with_options(max_retries=0).models.with_raw_response  # noqa: B018
            client.with_options(max_retries=0).chat.completions.create(
                model="toy", messages=ASK, max_tokens=4
            )
        held.go.release(1000)
        answer = client.chat.completions.create(model="toy", messages=ASK, max_tokens=4)
        assert answer.choices[0].message.content is not None
        for stream in streams:
            assert list(stream)[-1].choices[0].finish_reason is not None


def test_closing_a_stream_frees_its_slot_within_a_step(engine: Engine) -> None:
    with served(engine, slots=1) as one, Held(one.scheduler) as held:
        client = openai.OpenAI(base_url=f"{one.url}/v1", api_key="none")
        stream = client.chat.completions.create(model="toy", messages=ASK, max_tokens=150, stream=True)
        assert held.at_step.acquire(timeout=10)
        for _ in range(5):
            held.step()
        next(iter(stream))
        (handle,) = one.scheduler._running.values()
        stream.close()
        wait(lambda: handle.is_cancelled)
        held.go.release()
        one.idle()
        stats = one.scheduler.stats()
        assert (stats.cancelled, stats.completion_tokens) == (1, 6)
