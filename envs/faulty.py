"""A teacher whose errors are known: gold with declared systematic and random errors, a pure function of its inputs.

A systematic error hangs on something that can be seen on the page, the layout or the vendor, so that a student who
copies its teacher learns it. A random error hangs on nothing but the seed, the document's id and the sample.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field

from envs import synthetic
from rewards import normalize
from rewards.document import Document, read
from rewards.errors import ConfigError, DataError
from rewards.task import Task, nearest


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Kind = Literal["other_line", "swap_day_month", "second_line", "leave_out", "change_digit", "drop_row"]
KINDS: Mapping[Kind, tuple[str, ...]] = {
    "other_line": ("money",),
    "swap_day_month": ("date",),
    "second_line": ("text",),
    "leave_out": ("money", "text", "date", "code", "number", "class", "count"),
    "change_digit": ("money",),
    "drop_row": ("rows",),
}
"""Kind of error -> kinds of field that it can befall."""


class ErrorSpec(_Strict):
    """other_line: the amount of the first line that has one of `words`.  swap_day_month: 03-04 for 04-03.
    second_line: the document's second line.  leave_out: null.  change_digit: another digit.  drop_row: without the last
    row."""

    kind: Kind
    field: Annotated[str, Field(min_length=1)]
    """A key of the schema's top level."""
    words: tuple[Annotated[str, Field(min_length=1)], ...]
    """For other_line: words that mark the line; else empty."""


class ErrorMix(_Strict):
    rate: Annotated[float, Field(ge=0, le=1)]
    """Share of documents, those counted to which one of `errors` can happen."""
    errors: tuple[ErrorSpec, ...]
    """In an order drawn anew for each layout (systematic) or document (random), the first that can happen does."""


class FaultyTeacher(_Strict):
    """Gold with errors, for studies where the truth is known."""

    kind: Literal["faulty"]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    by: Literal["layout", "group"]
    """What systematic errors hang on: the layout family of a synthetic document, or the vendor."""
    systematic: ErrorMix
    """With by=layout the rate is rounded to whole layouts of the document's part."""
    random: ErrorMix


def check(config: FaultyTeacher, task: Task) -> None:
    """Raises ConfigError for errors that cannot happen to the task's fields."""
    top = task.schema["properties"]
    for name, mix in (("systematic", config.systematic), ("random", config.random)):
        if mix.rate > 0 and not mix.errors:
            raise ConfigError(f"teacher.{name}.errors: empty, and teacher.{name}.rate={mix.rate:g}; name some errors")
        for i, error in enumerate(mix.errors):
            where = f"teacher.{name}.errors.{i}"
            if error.field not in top:
                raise ConfigError(
                    f"{where}.field={error.field}: not a key of {task.name}{nearest(error.field, list(top))}"
                )
            kind = task.fields[error.field].kind if error.field in task.fields else "rows"
            if kind not in KINDS[error.kind]:
                allowed = ", ".join(KINDS[error.kind])
                raise ConfigError(f"{where}: {error.kind} needs a field of kind {allowed}; {error.field} is {kind}")
            if (error.kind == "other_line") != bool(error.words):
                raise ConfigError(f"{where}.words: other_line needs some, and no other kind takes any")


def answer(config: FaultyTeacher, task: Task, document: Document, sample: int) -> tuple[str, tuple[str, ...]]:
    """(completion, names of the errors in it). Raises DataError for a document without gold."""
    if document.gold is None:
        raise DataError(f"document {document.id}: has no gold; teacher=faulty needs it, docs=synthetic has it")
    value = copy.deepcopy(document.gold)
    faults = []
    if _systematic(config, task, document):
        rng = Random(f"{config.seed}/systematic/{_anchor(config, document)}")
        faults.append(_befall(config.systematic, rng, value, task, document, "systematic"))
    rng = Random(f"{config.seed}/random/{document.id}/{sample}")
    if rng.random() < config.random.rate:
        faults.append(_befall(config.random, rng, value, task, document, "random"))
    return task.canonical(value), tuple(fault for fault in faults if fault is not None)


def _systematic(config: FaultyTeacher, task: Task, document: Document) -> bool:
    rate = config.systematic.rate
    if config.by == "group":
        return _draw(config.seed, document.group) < rate
    part, layout = layout_of(document)
    return layout in _layouts(config.seed, task.name, part, rate)


@functools.cache
def _layouts(seed: int, task: str, part: synthetic.Layouts, rate: float) -> frozenset[str]:
    """The layouts on which the teacher errs: so many of the part's families, drawn by the seed."""
    names = sorted((family.name for family in synthetic.families(task, part)), key=lambda name: _draw(seed, name))
    count = round(rate * len(names))
    return frozenset(names[: max(count, 1) if rate > 0 else 0])


def layout_of(document: Document) -> tuple[synthetic.Layouts, str]:
    """(part, layout family) of a synthetic document, from its id. Raises DataError for any other."""
    found = re.fullmatch(r"[a-z]+-(seen|held_out|all)-\d+-\d+-(\w+)", document.id)
    if found is None:
        raise DataError(f"document {document.id}: is not synthetic and has no layout; use teacher.by=group")
    return found[1], found[2]  # type: ignore[return-value]


def _anchor(config: FaultyTeacher, document: Document) -> str:
    return document.group if config.by == "group" else layout_of(document)[1]


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that hangs on the seed and the name only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64


def _befall(mix: ErrorMix, rng: Random, value: dict[str, Any], task: Task, document: Document, what: str) -> str | None:
    """Changes `value` by the first error that can happen; its name, or None where none can."""
    for error in rng.sample(mix.errors, len(mix.errors)):
        changed = copy.deepcopy(value)
        if _CHANGES[error.kind](error, changed, task, document, rng) and changed != value and _valid(task, changed):
            value.clear()
            value.update(changed)
            return f"{what}/{error.kind}/{error.field}"
    return None


def _valid(task: Task, value: dict[str, Any]) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(task.schema, value))
    except DataError:
        return False


Change = Callable[[ErrorSpec, dict[str, Any], Task, Document, Random], bool]


def _other_line(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    given = normalize.amount(value.get(error.field))
    if given is None:
        return False
    lines = read(document.text).lines
    phrases = [f" {' '.join(normalize.words(words))} " for words in error.words]
    for i, line in enumerate(lines):
        if any(phrase in line.spaced for phrase in phrases):
            below = lines[i + 1].money if i + 1 < len(lines) else []
            amounts = [number.value for number in line.money or below]
            if amounts and amounts[-1] != given and amounts[-1] > 0:
                value[error.field] = f"{amounts[-1]:.2f}"
                return True
    return False


def _swap_day_month(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", str(value.get(error.field)))
    if found is None or int(found[3]) > 12 or found[2] == found[3]:
        return False
    value[error.field] = f"{found[1]}-{found[3]}-{found[2]}"
    return True


def _second_line(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    lines = [" ".join(line.split()) for line in document.text.split("\n") if line.strip()]
    if len(lines) < 2 or normalize.letters_digits(lines[1]) == normalize.letters_digits(str(value.get(error.field))):
        return False
    value[error.field] = lines[1]
    return True


def _leave_out(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    if value.get(error.field) is None:
        return False
    if error.field in task.schema.get("required", ()):
        value[error.field] = None
    else:
        del value[error.field]
    return True


def _change_digit(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    text = value.get(error.field)
    if not isinstance(text, str):
        return False
    i = rng.choice([i for i, character in enumerate(text) if character.isdigit()])
    value[error.field] = text[:i] + rng.choice([d for d in "123456789" if d != text[i]]) + text[i + 1 :]
    return True


def _drop_row(error: ErrorSpec, value: dict[str, Any], task: Task, document: Document, rng: Random) -> bool:
    rows = value.get(error.field)
    if not isinstance(rows, list) or len(rows) < 2:
        return False
    rows.pop()
    return True


_CHANGES: Mapping[Kind, Change] = {
    "other_line": _other_line,
    "swap_day_month": _swap_day_month,
    "second_line": _second_line,
    "leave_out": _leave_out,
    "change_digit": _change_digit,
    "drop_row": _drop_row,
}
