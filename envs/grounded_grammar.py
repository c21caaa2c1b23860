"""The answers that keep to the task's JSON Schema and say only what the document prints, as a grammar for xgrammar.

vLLM turns it into a mask of tokens, in process and behind `vllm serve`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator

import jsonschema_rs

from rewards.document import DocumentIndex, read
from rewards.errors import InfraError
from rewards.task import FieldSpec, Task, leaves

_SPAN = "<words of the document>"
_WORD = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


def grounded_grammar(task: Task, text: str) -> str:
    """The task's schema as a grammar (EBNF) whose leaves are printed in the text, each by the kind of its field.

    A text or a code is words of the document; a date is a reading of one that stands there, in a declared form; a
    number is printed there. A leaf with an enum of its own stays as the schema has it, and so does one whose kind the
    document does not print. Raises InfraError without xgrammar.
    """
    try:
        from xgrammar import Grammar
    except ImportError as error:
        raise InfraError(f"xgrammar cannot be imported ({error}): run bash launch/setup.sh") from error
    text = text.encode("utf-8", "replace").decode()
    words, index, schema = text.split(), read(text), copy.deepcopy(task.schema)
    for path, leaf in leaves(schema):
        field = task.fields[path]
        if "enum" in leaf or "const" in leaf or field.kind == "class":
            continue
        nullable = "null" in leaf.get("type", ())
        assert isinstance(leaf, dict)
        if field.kind not in ("text", "code"):
            validator = jsonschema_rs.validator_for(leaf)
            values = sorted({v for v in _printed(field, index) if validator.is_valid(v)}, key=str)
            if values:
                leaf.clear()
                leaf["enum"] = [*values, *([None] if nullable else [])]
        elif words:
            leaf.clear()
            leaf["anyOf"] = [{"const": _SPAN}, *([{"type": "null"}] if nullable else [])]
    quoted = _literal(json.dumps(_SPAN))
    rules = str(Grammar.from_json_schema(json.dumps(schema))).replace(quoted, r'"\"" span "\""')
    return "\n".join([rules, *_spans(words)]) + "\n"


def _printed(field: FieldSpec, index: DocumentIndex) -> Iterator[str | int | float]:
    """The dates, or the numbers with either sign, in every form that a schema may want."""
    if field.kind == "date":
        for mention in index.dates(field.formats or ()):
            yield from (day.isoformat() for _, day in mention.readings)
        return
    for number in index.numbers:
        for value in {number.value, *number.factors}:
            for signed in (value, -value):
                yield f"{signed:.2f}"
                yield f"{signed:f}"
                yield int(signed) if signed == signed.to_integral_value() else float(signed)


def _spans(words: list[str]) -> Iterator[str]:
    """Rules for `span`: words of the text, as many as one likes, in their order, one space between them.

    Marks around a word may be left out. One rule a word: the grammar grows with the document, not with its square.
    """
    if words:
        yield f"span ::= {' | '.join(f'span_{i}' for i in range(len(words)))}"
    for i, word in enumerate(words):
        match = _WORD.fullmatch(word)
        before, core, after = match.groups() if match and match[2] else ("", word, "")
        parts = [f"{_escaped(before)}?" if before else "", _escaped(core), f"{_escaped(after)}?" if after else ""]
        parts.append(f'(" " span_{i + 1})?' if i + 1 < len(words) else "")
        yield f"span_{i} ::= {' '.join(part for part in parts if part)}"


def _escaped(text: str) -> str:
    """The text inside a JSON string, as a literal of the grammar."""
    return _literal(json.dumps(text, ensure_ascii=False)[1:-1])


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
