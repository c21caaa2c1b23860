"""Hypothesis strategies for tests of a rubric: completions of a task, wrong answers, other text for one value."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rewards.document import Document
from rewards.fields import canonical
from rewards.plan import Plan, compile_plan
from rewards.task import Task

Path = tuple[str | int, ...]
MOST_TEXTS = 60
_MISSING: Any = object()


class WrongAnswer(NamedTuple):
    """completion: gold with wrong fields.  better: with one of them, `path`, put right.  wrong: the paths of all."""

    completion: str
    better: str
    path: str
    wrong: tuple[str, ...]


def completions(task: Task, document: Document | None = None) -> SearchStrategy[str]:
    """Completions as a policy might write them: most fit the schema, some nearly do, some are no JSON at all.

    With a document, half of the texts are words, lines and amounts of it.
    """
    texts = texts_of(document) if document is not None else []
    fits = values(task.schema, texts).map(lambda value: json.dumps(value, ensure_ascii=False))
    broken = st.builds(
        _broken, fits, st.integers(0, 2**16), st.sampled_from(['"', "}", "]", ",", " ", "\x00", "x", "9"])
    )
    loose = st.dictionaries(st.sampled_from([*task.schema["properties"], "x"]), _anything(texts), max_size=6).map(
        json.dumps
    )
    odd = st.sampled_from(["", "{}", "null", "[]", '{"a":NaN}', "{" * 50, '"' + "x" * 500])
    return st.one_of(fits, fits, fits, loose, broken, odd, st.text(max_size=40))


def values(schema: Mapping[str, Any], texts: Sequence[str] = ()) -> SearchStrategy[Any]:
    """Values that fit a JSON Schema: types, enum, pattern, lengths, ranges, required, anyOf. texts: for its strings."""
    if "enum" in schema:
        return st.sampled_from(list(schema["enum"]))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([values(choice, texts) for choice in choices])
    types = schema.get("type", ["null", "string"])
    return st.one_of([_typed(name, schema, texts) for name in ([types] if isinstance(types, str) else types)])


def wrong_answers(task: Task, document: Document, *, most: int = 3) -> SearchStrategy[WrongAnswer]:
    """Gold with 1 to `most` fields wrong or rows missing, and the same with one of them put right."""
    gold = json.loads(task.canonical(document.gold or {}))
    plan = compile_plan(task)
    choices = {path: found for path in _leaves(gold) if (found := _wrong_values(plan, document, gold, path))}
    rows: dict[Path, list[Any]] = {path: [_MISSING] for path in _rows(gold)}
    edits = choices | rows

    @st.composite
    def draw_answer(draw: st.DrawFn) -> WrongAnswer:
        paths = draw(st.lists(st.sampled_from(sorted(edits, key=repr)), min_size=1, max_size=most, unique=True))
        # A row that is missing has no fields that could be wrong.
        gone = {path for path in paths if path in rows}
        paths = [path for path in paths if path in gone or not any(path[: len(row)] == row for row in gone)]
        changes = {path: draw(st.sampled_from(edits[path])) for path in paths}
        fixed = draw(st.sampled_from(paths))
        better = {path: value for path, value in changes.items() if path != fixed}
        return WrongAnswer(
            json.dumps(_changed(gold, changes), ensure_ascii=False),
            json.dumps(_changed(gold, better), ensure_ascii=False),
            path_text(fixed),
            tuple(map(path_text, paths)),
        )

    return draw_answer()


def rewritten(value: Any) -> SearchStrategy[str]:
    """The same value as other JSON text: keys in another order, other white space, escapes."""

    def write(seed: int, indent: int | None, ascii_only: bool, ends: tuple[str, str]) -> str:
        text = json.dumps(_shuffled(value, random.Random(seed)), ensure_ascii=ascii_only, indent=indent)
        return f"{ends[0]}{text}{ends[1]}"

    ends = st.tuples(st.sampled_from(["", " ", "\n\t"]), st.sampled_from(["", "\n", "  \r\n"]))
    return st.builds(write, st.integers(0, 2**16), st.sampled_from([None, 0, 2]), st.booleans(), ends)


def reordered(value: Any) -> SearchStrategy[Any]:
    """The same value with the rows of its arrays in another order."""

    def shuffle(seed: int) -> Any:
        rng, found = random.Random(seed), deepcopy(value)
        for rows in _arrays(found):
            rng.shuffle(rows)
        return found

    return st.builds(shuffle, st.integers(0, 2**16))


def texts_of(document: Document) -> list[str]:
    """Words, lines and amounts of a document."""
    amounts = [amount.replace(",", "") for amount in re.findall(r"\d[\d,]*\.\d\d", document.text)]
    words, lines = document.text.split(), [line.strip() for line in document.text.split("\n") if line.strip()]
    found = [*amounts[:20], *lines[:20], *words]
    return list(dict.fromkeys(found))[:MOST_TEXTS]


def path_text(path: Path) -> str:
    """("items", 2, "amount") is items[2].amount."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _typed(name: str, schema: Mapping[str, Any], texts: Sequence[str]) -> SearchStrategy[Any]:
    if name == "object":
        properties = schema.get("properties", {})
        required = {key: values(below, texts) for key, below in properties.items() if key in schema.get("required", ())}
        optional = {key: values(below, texts) for key, below in properties.items() if key not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if name == "array":
        most = min(schema.get("maxItems", 4), max(4, schema.get("minItems", 0)))
        return st.lists(values(schema.get("items", {}), texts), min_size=schema.get("minItems", 0), max_size=most)
    if name == "string":
        return _strings(schema, texts)
    if name == "integer":
        return st.integers(schema.get("minimum", -(10**6)), schema.get("maximum", 10**6))
    if name == "number":
        low, high = schema.get("minimum", -1e6), schema.get("maximum", 1e6)
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return st.booleans() if name == "boolean" else st.none()


def _strings(schema: Mapping[str, Any], texts: Sequence[str]) -> SearchStrategy[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", 200)
    pattern = schema.get("pattern")
    if pattern is not None:
        whole = pattern.startswith("^") and pattern.endswith("$")
        made = st.from_regex(pattern, fullmatch=whole).filter(lambda text: low <= len(text) <= high)
    else:
        made = st.text(min_size=low, max_size=min(high, max(low, 30)))
    fits = [t for t in texts if low <= len(t) <= high and (pattern is None or re.search(pattern, t))]
    return st.one_of(st.sampled_from(fits), made) if fits else made


def _anything(texts: Sequence[str]) -> SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    leaf = leaf | st.sampled_from(list(texts)) if texts else leaf
    return st.recursive(leaf, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below))


def _broken(text: str, at: int, character: str) -> str:
    place = at % (len(text) + 1)
    return text[:place] + character + text[place + at % 2 :]


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _leaves(below, (*path, i))
    elif path:
        yield path


def _rows(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of the rows of all arrays of objects that are no rows' own."""
    for key, below in value.items() if isinstance(value, dict) else ():
        if isinstance(below, list):
            yield from ((*path, key, i) for i in range(len(below)))
        elif isinstance(below, dict):
            yield from _rows(below, (*path, key))


def _arrays(value: Any) -> Iterator[list[Any]]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, list):
        yield value
    for one in below:
        yield from _arrays(one)


def _wrong_values(plan: Plan, document: Document, gold: Any, path: Path) -> list[Any]:
    """Values that differ from gold at a leaf as its kind compares, and keep the schema."""
    right = _at(gold, path)
    spec = plan.task.fields.get(re.sub(r"\[\d+\]", "[]", path_text(path)))
    kind = "text" if spec is None else spec.kind
    own = [_next_digit(right, i) for i in range(2)] if isinstance(right, str) else []
    found = []
    for value in [None, *own, *texts_of(document)]:
        changed = _changed(gold, {path: value})
        if canonical(kind, value) != canonical(kind, right) and plan.validator.is_valid(changed):
            found.append(value)
    return found


def _next_digit(text: str, turn: int) -> str:
    """The text with its first or last digit one higher."""
    places = [i for i, char in enumerate(text) if char in "0123456789"]
    if not places:
        return text
    at = places[-1 if turn else 0]
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _changed(gold: Any, changes: Mapping[Path, Any]) -> Any:
    """Gold with these leaves changed and these rows taken out."""
    found = deepcopy(gold)
    # Rows go last and from the end, so that no path moves before it is used.
    for path, value in sorted(
        changes.items(), key=lambda item: (item[1] is _MISSING, [-s for s in item[0] if isinstance(s, int)])
    ):
        parent = _at(found, path[:-1])
        if value is _MISSING:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
    return found


def _shuffled(value: Any, rng: random.Random) -> Any:
    """The same value, the keys of its objects in another order."""
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffled(value[key], rng) for key in keys}
    return [_shuffled(below, rng) for below in value] if isinstance(value, list) else value
