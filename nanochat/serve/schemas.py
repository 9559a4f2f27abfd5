"""What the bodies of requests may hold: OpenAI's fields, as far as they mean something here.

What it is: types and limits. Fields that we do not know are accepted and listed in a header; those whose
absence would change an answer (tools, formats) are refused. What it is not: sense between fields and the
model (`chat.py`, `text.py`). Run: `python -m scripts.chat_web`, then /openapi.json.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nanochat.request import MAX_LOGPROBS, Sampling

MOST_MESSAGES = 1000
MOST_STOPS = 4
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1)]


class Open(BaseModel):
    """A body that may hold more than we know."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    @property
    def ignored(self) -> list[str]:
        """Names of the fields that nobody reads, fit for a header."""
        names = sorted(self.model_extra or {})
        return [name if re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) else "?" for name in names][:32]


class StreamOptions(Open):
    include_usage: bool | None = False


class Sampled(Open):
    """What chats and completions have in common."""

    model: str = ""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1 << 31)  # 0 and -1: all
    min_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    n: int | None = Field(1, ge=1, le=64)
    ignore_eos: bool | None = False  # as vLLM's: a reply of max_tokens, whatever it says; for measurements

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def ends(self) -> frozenset[int] | None:
        """Ids that end a reply; None: the usual ones."""
        return frozenset() if self.ignore_eos else None

    def sampling(self, default: Sampling) -> Sampling:
        """`default` where the request says nothing."""
        return Sampling(
            default.temperature if self.temperature is None else self.temperature,
            default.top_k if self.top_k is None else max(0, self.top_k),
            default.top_p if self.top_p is None else self.top_p,
            default.min_p if self.min_p is None else self.min_p,
        )


class TextPart(Open):
    type: Literal["text"]
    text: str


class ToolUse(Open):
    """A call that the model made in an earlier reply: `at` characters into its text."""

    name: str = ""
    input: str
    output: str | None = None
    at: int = Field(0, ge=0)


class Message(Open):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    tool_uses: list[ToolUse] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(Sampled):
    """POST /v1/chat/completions"""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=1 << 31)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 31)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("tools", "functions")
    @classmethod
    def _no_tools(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("this model calls its own tools only; leave the field out")
        return value

    @field_validator("response_format")
    @classmethod
    def _text_only(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type") != "text":
            raise ValueError("only {'type': 'text'} is supported")
        return value


class TextBody(Sampled):
    """POST /v1/completions"""

    prompt: str | list[str] | Ids | list[Ids]
    max_tokens: int | None = Field(None, ge=0, le=1 << 31)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = False
