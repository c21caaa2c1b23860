"""Completion -> Attempt or ParseFault. Strict JSON, one object and nothing else; never raises on model text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_CHARACTERS = 65_536
MAX_DEPTH = 16
MAX_DIGITS = 15  # of a JSON number: more are never a quantity, and int() of thousands of digits is slow or raises
MAX_VALUES = 5_000  # counted by commas and opening brackets: no page has more, and every fault of one is worked out

_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_AFTER_COMMA = re.compile(r",[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A completion that is one JSON object."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ParseFault:
    """Why a completion is not an attempt; position is the character offset where that shows, or None."""

    reason: str
    position: int | None


class _Refused(ValueError):
    pass


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise _Refused(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _real(digits: str) -> float:
    if len(digits) > 2 * MAX_DIGITS:
        raise _Refused(f"a number of more than {2 * MAX_DIGITS} characters")
    value = float(digits)
    if value - value != 0.0:  # infinity
        raise _Refused("a number out of range")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused("a key appears twice")
    return value


# The C scanner handles the whole text in one call; only the hooks are Python.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real, strict=True
)


def _bounds(text: str) -> str | None:
    """What is too much about a text: its nesting, its values; strings do not count. Unbalanced text gives an upper
    bound."""
    most = text.count("{") + text.count("[")
    if most <= MAX_DEPTH and most + text.count(",") <= MAX_VALUES:
        return None  # counting is faster than walking, and enough for most completions
    bare = _STRING.sub("", text)
    openings = bare.count("{") + bare.count("[")
    if openings > MAX_DEPTH:
        depth = 0
        for match in _BRACKET.finditer(bare):
            depth += 1 if match.group() in "[{" else -1
            if depth > MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH}"
    return f"more than {MAX_VALUES} values" if openings + bare.count(",") > MAX_VALUES else None


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogate(k) or _has_surrogate(v) for k, v in value.items())
    if isinstance(value, list):
        return any(map(_has_surrogate, value))
    return False


def _position(text: str, fault: json.JSONDecodeError) -> int:
    """Where a fault shows: since Python 3.13 a trailing comma is reported at the comma, before at what follows it."""
    behind = _AFTER_COMMA.match(text, fault.pos) if fault.msg.startswith("Illegal trailing comma") else None
    return fault.pos if behind is None else behind.end()


def parse(completion: str) -> Attempt | ParseFault:
    """The completion as an Attempt, or a ParseFault. White space around the object is allowed, nothing else is.

    Refused: text around the object, NaN and Infinity, numbers out of range or too long, a key twice in one object,
    nesting deeper than MAX_DEPTH, more than MAX_CHARACTERS or MAX_VALUES, lone surrogates.

    >>> parse('{"total": "1.00"}')
    Attempt(value={'total': '1.00'})
    >>> parse('{"a": 1, "a": 2}').reason
    'a key appears twice'
    """
    if len(completion) > MAX_CHARACTERS:
        return ParseFault(f"more than {MAX_CHARACTERS} characters", MAX_CHARACTERS)
    text = completion.strip(" \t\r\n")
    offset = completion.find(text[:1]) if text else 0
    if not text:
        return ParseFault("empty", 0)
    if text[0] != "{":
        return ParseFault("does not start with {", offset)
    if (bound := _bounds(text)) is not None:
        return ParseFault(bound, None)
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as fault:
        return ParseFault("not valid JSON", offset + _position(text, fault))
    except _Refused as fault:
        return ParseFault(str(fault), None)
    except (ValueError, RecursionError, OverflowError):
        return ParseFault("not valid JSON", None)
    if end != len(text):
        rest = text[end:]
        return ParseFault("text after the object", offset + end + len(rest) - len(rest.lstrip()))
    if ("\\u" in text or not text.isascii()) and _has_surrogate(value):
        return ParseFault("a lone surrogate", None)
    return Attempt(value)
