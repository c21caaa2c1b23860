"""The answers that keep to the task's JSON Schema and say only what the document prints, as a grammar for xgrammar.

vLLM turns it into a mask of tokens, in process and behind `vllm serve`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain
from typing import Any

import jsonschema_rs

from rewards.document import DocumentIndex, read
from rewards.errors import ConfigError, InfraError
from rewards.task import FieldSpec, Task, leaves

MAX_PIECES = 4_000
"""Words and marks. Of a longer document texts are free: 12,000 take 20 s to compile, 3,000 a second."""
LARGEST = 10**15
"""No number of an answer is as large (rewards/parse.py)."""
_PIECE = re.compile(r"(\s*)(\w+|[^\w\s])")
SHORT = 6
"""Pieces, at most, of a text with a pattern: INV-2024/17 has five."""


def grounded_grammar(task: Task, text: str) -> str:
    """The task's schema as a grammar (EBNF) whose leaves are printed in the text, each by the kind of its field.

    A text or a code is words of the document in their order, marks beside a word or not; a date is a reading of one
    that stands there, in a declared form; a number is printed there. A leaf with an enum of its own stays as the schema
    has it, and so does one of which the document prints no value that the schema allows. The length of a text is not
    held. Raises ConfigError for a schema that xgrammar refuses, InfraError without xgrammar.
    """
    try:
        from xgrammar import Grammar
    except ImportError as error:
        raise InfraError(f"xgrammar cannot be imported ({error}): run bash launch/setup.sh") from error

    text = text.encode("utf-8", "replace").decode()
    pieces, index = [(bool(gap), piece) for gap, piece in _PIECE.findall(text)], read(text)
    schema = json.loads(json.dumps(task.schema))  # no two leaves are one object, as YAML's anchors make them
    rules: dict[str, list[str]] = {}
    for number, (path, leaf) in enumerate(leaves(schema)):
        field = task.fields[path]
        if "enum" in leaf or "const" in leaf or field.kind == "class":
            continue
        assert isinstance(leaf, dict)
        validator = jsonschema_rs.validator_for({**leaf, "$defs": schema.get("$defs", {})})
        if field.kind not in ("text", "code"):
            rule, lines = _one_of(f"printed_{number}", _printed(field, index, leaf, validator))
        elif "pattern" in leaf or "format" in leaf:
            fitting = (json.dumps(short) for short in _texts(pieces) if validator.is_valid(short))
            rule, lines = _one_of(f"printed_{number}", fitting)
        else:
            free = len(pieces) > MAX_PIECES or not validator.is_valid("a word")
            rule, lines = "text", [] if free else _spans(pieces)
        if lines:
            null = [{"type": "null"}] if validator.is_valid(None) else []
            leaf.clear()
            leaf["anyOf"] = [{"const": f"<{rule}>"}, *null]
            rules[rule] = lines
    try:
        grammar = str(Grammar.from_json_schema(json.dumps(schema)))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"structured=grounded: xgrammar refuses the schema of {task.name}: {reason}") from error
    for rule in rules:
        grammar = grammar.replace(_literal(json.dumps(f"<{rule}>")), rule)
    return "\n".join([grammar, *chain.from_iterable(rules.values())]) + "\n"


def _one_of(rule: str, values: Iterable[str]) -> tuple[str, list[str]]:
    """The rule's name, and its line; no line where there is no value."""
    literals = [_literal(value) for value in sorted(set(values))]
    return rule, [f"{rule} ::= {' | '.join(literals)}"] if literals else []


def _printed(field: FieldSpec, index: DocumentIndex, leaf: dict[str, Any], validator: Any) -> Iterator[str]:
    """The dates, or the numbers with either sign, as JSON, in every form that the schema allows."""
    if field.kind == "date":
        for mention in index.dates(field.formats or ()):
            for _, day in mention.readings:
                if validator.is_valid(day.isoformat()):
                    yield json.dumps(day.isoformat())
        return
    whole = "integer" in leaf.get("type", ())
    for value in {value for number in index.numbers for value in (number.value, *number.factors)}:
        if abs(value) >= LARGEST:
            continue
        for form in {f"{sign * rounded:f}" for rounded in _decimals(value) for sign in ((1, -1) if value else (1,))}:
            if validator.is_valid(form):
                yield json.dumps(form)
            if validator.is_valid(float(form) if "." in form else int(form)) and not (whole and "." in form):
                yield form


def _decimals(value: Decimal) -> Iterator[Decimal]:
    """The value with 0 to 4 decimals, where that is the same number."""
    for places in range(5):
        if (rounded := round(value, places)) == value:
            yield rounded if places else Decimal(int(rounded))


def _texts(pieces: list[tuple[bool, str]]) -> Iterator[str]:
    """Every text of a few pieces, as printed."""
    for start in range(len(pieces)):
        text = ""
        for gap, piece in pieces[start : start + SHORT]:
            text += (" " if gap and text else "") + piece
            yield text


def _spans(pieces: list[tuple[bool, str]]) -> list[str]:
    """Rules for `text`: words and marks, as many as one likes, in their order and as printed. White space is one space,
    and a mark beside it may be left out. A piece has two ways on: the grammar grows with the document, not its square.
    """
    if not pieces:
        return []
    lines = [f'text ::= "\\"" ({" | ".join(f"text_{i}" for i in range(len(pieces)))}) "\\""']
    for i, (_, piece) in enumerate(pieces):
        on = [f"{_literal(' ')} text_{i + 1}" if pieces[i + 1][0] else f"text_{i + 1}"] if i + 1 < len(pieces) else []
        if i + 2 < len(pieces) and not pieces[i + 1][1][0].isalnum() and (pieces[i + 1][0] or pieces[i + 2][0]):
            on.append(f"{_literal(' ')} text_{i + 2}")
        inside = _literal(json.dumps(piece, ensure_ascii=False)[1:-1])  # of a JSON string
        lines.append(f"text_{i} ::= {inside}" + (f" ({' | '.join(on)})?" if on else ""))
    return lines


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
