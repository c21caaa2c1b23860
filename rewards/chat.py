"""What is said to an OpenAI-compatible endpoint, and what comes back: settings, question, answer, trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Kind = Literal[
    "timeout", "connection", "rate", "server", "malformed", "content", "refused", "truncated", "client", "budget"
]
RETRIED: frozenset[Kind] = frozenset({"timeout", "connection", "rate", "server", "malformed", "content"})
FATAL: frozenset[Kind] = frozenset({"client", "budget"})
"""Asking again, or asking for another document, will end the same way."""


class Endpoint(BaseModel):
    """Where an OpenAI-compatible server is, and what it may take. The key stands in the environment only."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True,
        protected_namespaces=(),
    )  # fmt: skip

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    """Up to and without /chat/completions, such as http://127.0.0.1:8000/v1."""
    model: Annotated[str, Field(min_length=1)]
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None
    """Name of the environment variable that holds the key; null sends none."""
    concurrency: Annotated[int, Field(ge=1, le=512)]
    """Requests at a time."""
    timeout_s: Annotated[float, Field(gt=0)]
    """Seconds for one try, from the connection to the last byte."""
    attempts: Annotated[int, Field(ge=1, le=20)]
    """Tries of one request."""
    retries: Annotated[int, Field(ge=0)]
    """Tries beyond the first, over all requests of a start: the budget."""
    structured: Literal["strict", "schema", "grounded", "object", "text"]
    """How an answer is held to its schema: OpenAI's strict form, a plain JSON Schema (vLLM), that with values that the
    document prints (vLLM), any object, or not."""
    prompt_price: Annotated[float, Field(ge=0)]
    """Money for a million prompt tokens."""
    completion_price: Annotated[float, Field(ge=0)]
    """Money for a million completion tokens."""
    max_cost: Annotated[float, Field(ge=0)] | None
    """Money that one start may spend; a request that might pass it is not sent. Null: no cap."""
    max_total_tokens: Annotated[int, Field(ge=0)] | None
    """Tokens, prompt and completion, that one start may use. Null: no cap."""
    cache: str | None
    """File of the answers (SQLite), shared by runs; null keeps none."""
    extra: dict[str, JsonValue]
    """Further keys of the request's body; null takes a key out."""

    @model_validator(mode="after")
    def _caps_need_prices(self) -> Endpoint:
        if self.max_cost is not None and self.max_cost > 0 and not (self.prompt_price or self.completion_price):
            raise ValueError("max_cost needs prompt_price and completion_price; write null where tokens cost nothing")
        return self


@dataclass(frozen=True, slots=True)
class Request:
    """One question. schema: JSON Schema of the answer, or None.  grammar: makes what `grounded` allows (EBNF), in
    place of the schema.  identity: what decides the answer, for the cache; "" takes the whole body.  check: why the
    text of an answer will not do, or None."""

    messages: tuple[dict[str, str], ...]
    schema: dict[str, Any] | None
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    grammar: Callable[[], str] | None = None
    identity: str = ""
    check: Callable[[str], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Example: Answer('{"total":"9.00"}', prompt_tokens=412, completion_tokens=31, cost=0.00013, cached=False)"""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cost: float
    cached: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer, in one line."""

    kind: Kind
    message: str
    retry_after_s: float = 0.0
    cost: float = 0.0
    tokens: int = 0

    @property
    def fatal(self) -> bool:
        return self.kind in FATAL


@dataclass(frozen=True, slots=True)
class Message:
    """The part of a reply that counts. refused: the model's refusal or the filter's, in words."""

    text: str
    finish_reason: str | None
    refused: str | None
    usage: Any


def read_reply(body: bytes) -> Message | str:
    """The message of a chat completion, or what is wrong with it."""
    try:
        reply = json.loads(body.decode("utf-8"))
        choice = reply["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as fault:
        return f"no chat completion ({type(fault).__name__}): {body[:80].decode('utf-8', 'replace')}"
    refused = None
    if isinstance(refusal, str) and refusal:
        refused = f"the model refused: {refusal}"
    elif reason == "content_filter":
        refused = "the server's content filter stopped the answer"
    if refused is None and (not isinstance(text, str) or not text.strip()):
        return f"the answer has no text (finish_reason {reason!r})"
    if refused is None and not isinstance(reason, (str, type(None))):
        return "finish_reason is no text"
    text = text if isinstance(text, str) else ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the answer holds a lone surrogate"
    return Message(text, reason if isinstance(reason, str) else None, refused, reply.get("usage"))


_KEPT = ("type", "enum", "const", "description", "anyOf", "properties", "items", "required", "additionalProperties")


def strict_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in OpenAI's strict form: every property required (one that may be left out may be null), no others, no
    keyword of length or pattern."""
    result: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    if "properties" in schema:
        required = schema.get("required", ())
        result["properties"] = {
            name: strict_schema(below if name in required else _nullable(below))
            for name, below in schema["properties"].items()
        }
        result["required"] = list(schema["properties"])
        result["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        result["items"] = strict_schema(schema["items"])
    return result


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    declared = schema.get("type")
    types = [declared] if isinstance(declared, str) else list(declared or ())
    wider = {**schema, "type": [*types, "null"]} if types and "null" not in types else schema
    enum = wider.get("enum")
    return {**wider, "enum": [*enum, None]} if enum is not None and None not in enum else wider


def tokens_of(text: bytes) -> int:
    """More tokens than text has, mostly: byte pairs average three to four bytes."""
    return len(text) // 3 + 1
