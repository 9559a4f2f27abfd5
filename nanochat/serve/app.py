"""The application: routes around a pool, behind the guard.

What it is: `create_app`. What it is not: a process; `server.py` listens. The interactive docs of FastAPI are
off, as they load scripts from elsewhere; /openapi.json is there. Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from nanochat.request import Request as EngineRequest
from nanochat.serve import chat, metrics, pages, text
from nanochat.serve.errors import APIError, add_handlers, json_response
from nanochat.serve.follow import Follower
from nanochat.serve.guard import Guard, Rules
from nanochat.serve.model import Model
from nanochat.serve.pool import LOADING_RETRY_S, Pool
from nanochat.serve.schemas import ChatBody, TextBody
from nanochat.serve.stream import Answer, EventStream, Exchange

Start = Callable[[Pool], Awaitable[None]]
Build = Callable[[Model], tuple[list[EngineRequest], Callable[[list[Follower]], Answer]]]
api = APIRouter()


@dataclass
class Service:
    """What the routes share."""

    pool: Pool
    rules: Rules
    times: metrics.Times = field(default_factory=metrics.Times)
    files: dict[str, pages.File] = field(default_factory=pages.files)


def create_app(pool: Pool, rules: Rules, start: Start) -> ASGIApp:
    """`start` is run in the event loop when the server listens already; it opens the pool."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await start(pool)
        yield

    app = FastAPI(
        title="nanochat", version="1", docs_url=None, redoc_url=None, lifespan=lifespan,
        description="A model of one's own behind the OpenAI API's chat, completions and models.",
    )  # fmt: skip
    app.state.service = service = Service(pool, rules)
    app.include_router(api)
    for path in service.files:
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)
    add_handlers(app)
    _document(app)
    return Guard(app, rules, pool.require_room)


def _document(app: FastAPI) -> None:
    """Errors as they are: FastAPI's own description of 422 is not what we send."""
    made = app.openapi()
    error = {
        "type": "object", "required": ["error"],
        "properties": {"error": {"type": "object", "required": ["message", "type", "param", "code"]}},
    }  # fmt: skip
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = error
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for operations in made["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "An error in OpenAI's shape", **answer}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


# ----------------------------------------------------------------------------- what needs no model


async def page(request: Request) -> Response:
    file = _service(request).files[request.url.path]
    return Response(file.body, media_type=file.media_type, headers={"Cache-Control": "no-cache"})


@api.get("/health")
async def health(request: Request) -> Response:
    """200 once the model answers; 503 before, and while the server closes."""
    state = _service(request).pool.state
    if state == "ok":
        return json_response({"status": state})
    return json_response({"status": state}, 503, {"Retry-After": str(LOADING_RETRY_S)})


@api.get("/metrics", response_class=PlainTextResponse)
async def prometheus(request: Request) -> Response:
    """Prometheus' text format."""
    return PlainTextResponse(metrics.as_text(*_figures(request)), media_type="text/plain; version=0.0.4")


@api.get("/stats")
async def stats(request: Request) -> Response:
    """The same figures as JSON."""
    return json_response(metrics.as_json(*_figures(request)))


def _figures(request: Request) -> tuple[Any, ...]:
    service = _service(request)
    return service.pool.stats(), service.rules.answers, service.times, service.pool.state


# ----------------------------------------------------------------------------- OpenAI's


@api.get("/v1/models")
async def models(request: Request) -> Response:
    """The one model."""
    return json_response({"object": "list", "data": [_facts(_service(request).pool.model)]})


@api.get("/v1/models/{model_id}")
async def model(request: Request, model_id: str) -> Response:
    """What clients should know of a model."""
    found = _service(request).pool.model
    _require_name(found, model_id)
    return json_response(_facts(found))


def _facts(model: Model) -> dict[str, Any]:
    sampling = model.sampling
    return {
        "id": model.id, "object": "model", "created": model.created, "owned_by": "nanochat",
        "context_length": model.context, "max_tokens_default": model.context,
        "vocab_size": model.vocab_size, "tools": list(model.tools.names),
        "sampling": {k: getattr(sampling, k) for k in ("temperature", "top_k", "top_p", "min_p")},
    }  # fmt: skip


def _require_name(model: Model, name: str) -> None:
    if name != model.id:
        raise APIError(404, f"no such model; this server has {model.id}", "model_not_found", param="model")


@api.post("/v1/chat/completions")
async def chat_completions(request: Request, body: ChatBody) -> Response:
    """The next reply of a chat."""
    _require_name(_service(request).pool.model, body.model)
    return await _chat(request, body)


@api.post("/chat/completions")
async def seed_chat_completions(request: Request, body: ChatBody) -> Response:
    """The same; the model need not be named."""
    if body.model:
        _require_name(_service(request).pool.model, body.model)
    return await _chat(request, body)


async def _chat(request: Request, body: ChatBody) -> Response:
    return await _respond(
        request, body, lambda model: (chat.requests(body, model), lambda _: chat.ChatAnswer())
    )


@api.post("/v1/completions")
async def completions(request: Request, body: TextBody) -> Response:
    """How one or more texts go on."""
    _require_name(_service(request).pool.model, body.model)

    def build(model: Model) -> tuple[list[EngineRequest], Callable[[list[Follower]], Answer]]:
        requests = text.requests(body, model)
        return requests, lambda followers: text.TextAnswer(requests, followers, bool(body.echo))

    return await _respond(request, body, build)


async def _respond(request: Request, body: ChatBody | TextBody, build: Build) -> Response:
    service = _service(request)
    model = service.pool.model
    try:
        requests, answer = build(model)
        followers = [Follower(model, is_scored=r.score_from is not None) for r in requests]
        inbox = service.pool.submit(requests)
    except ValueError as error:  # roles out of order, ids outside the vocabulary, ...
        raise APIError(400, str(error), "invalid_value") from error
    options = body.stream_options
    exchange = Exchange(
        requests, followers, inbox, answer(followers), model.id, service.times,
        include_usage=bool(options and options.include_usage),
    )  # fmt: skip
    headers = {"X-Ignored-Fields": ", ".join(body.ignored)} if body.ignored else {}
    if body.stream:
        return EventStream(exchange, headers)
    try:
        return json_response(await exchange.whole(request.receive), headers=headers)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
