"""Errors in OpenAI's shape, whatever went wrong.

What it is: `APIError`, its JSON, and the handlers that turn every failure of a request into one. What it is
not: errors of the command line (`common.UsageError`). Run: `pytest tests/serve`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 405: "method_not_allowed"}


class APIError(Exception):
    """A request that gets an error; `extra` joins the error object, `retry_after_s` becomes a header."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, param: str | None = None,
        retry_after_s: float | None = None, extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after_s, self.extra = retry_after_s, extra or {}

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": {**error, **self.extra}}

    @property
    def headers(self) -> dict[str, str]:
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            found["Retry-After"] = str(math.ceil(self.retry_after_s))
        return found

    def response(self) -> Response:
        return json_response(self.body, self.status, self.headers)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """ASCII only: an echo of half a surrogate pair must not break the answer."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def of_validation(error: RequestValidationError) -> APIError:
    """The deepest fault of a body, with the path of its field: of a union, the branch that came furthest."""
    worst = max(error.errors(), key=lambda one: (len(_path(one["loc"])), one["type"] != "string_type"))
    if worst["type"] == "json_invalid":
        return APIError(400, "the body is not valid JSON", "invalid_json")
    path = ".".join(_path(worst["loc"]))
    why = worst["msg"].removeprefix("Value error, ")
    message = f"{path}: {why}" if path else "the body must be a JSON object (application/json)"
    return APIError(400, message, "invalid_value", param=path or None)


def _path(loc: tuple[int | str, ...]) -> list[str]:
    """Names and numbers in a place of pydantic's, without the types of the unions on the way."""
    return [str(part) for part in loc[1:] if not re.search(r"\[|-|^str$", str(part))]


def add_handlers(app: FastAPI) -> None:
    """Make every failure of `app` an `APIError`."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, APIError)
        return error.response()

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(error).response()

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        found = APIError(error.status_code, str(error.detail), _CODES.get(error.status_code))
        return json_response(found.body, found.status, {**found.headers, **(error.headers or {})})

    async def on_fault(_: Request, error: Exception) -> Response:
        return APIError(500, f"a fault of the server: {type(error).__name__}", "internal_error").response()

    app.add_exception_handler(APIError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_fault)
