"""Tests for rewards: a pytest plugin that every pytest finds where Offramp is installed.

    import pytest

    pytestmark = pytest.mark.offramp(task="receipt", text="KEDAI MAJU SDN BHD\\nTOTAL 5.00")

    def test_the_cash_is_not_the_total(assert_reward):
        assert_reward({"vendor": ..., "total": "5.00"}, at_least=0.8, fields={"total": 1.0}, reason="reconciles")

Fixtures: task, rubric, documents, document, assert_reward. Which task and documents they stand for is said by the
marker offramp(task=, docs=, id=, text=) on a test, a class or a module, or by offramp_task and offramp_docs in the
configuration of pytest. Paths are looked for beside the test file, then beside that configuration. The checks by
hypothesis are in rewards.properties. A file to copy: tests/examples/test_my_reward.py.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from rewards.document import Document
    from rewards.rubric import Rubric, RubricScore
    from rewards.task import Task

Expected = float | tuple[float, float] | None
"""Points: a number (to 0.005), a range (low, high), or None: left out of the score, or does not apply."""
CLOSE = 0.005
MARKER = "offramp(task=, docs=, id=, text=): the task and the document that Offramp's fixtures stand for"


def assert_reward(
    completion: str | Mapping[str, Any],
    *,
    document: Document,
    rubric: Rubric,
    at_least: float | None = None,
    at_most: float | None = None,
    parts: Mapping[str, Expected] | None = None,
    fields: Mapping[str, Expected] | None = None,
    reason: str | None = None,
) -> RubricScore:
    """Fails, with the whole explanation, unless the completion scores as expected; returns the score.

    completion: text, or an object that is written as JSON.
    parts: reward -> its value.  fields: path -> the least points that any check gives it; "items[].amount" is all rows.
    reason: a reward, which has to be perfect (with only at_most: imperfect); or a gate, at which the completion has to
    stop; or words that have to stand in a finding.
    """
    __tracebackhide__ = True
    from rewards.explain import explain_text

    text = completion if isinstance(completion, str) else json.dumps(completion, ensure_ascii=False)
    score = rubric.score(document, text)
    faults = []
    if score.status != "scored":
        faults.append(f"could not be scored: {score.error}")
    if at_least is not None and score.total < at_least - 1e-9:
        faults.append(f"reward {score.total:.3f}, expected at least {at_least:g}")
    if at_most is not None and score.total > at_most + 1e-9:
        faults.append(f"reward {score.total:.3f}, expected at most {at_most:g}")
    for name, expected in (parts or {}).items():
        faults += _part_faults(score, name, expected)
    for path, expected in (fields or {}).items():
        faults += _field_faults(score, path, expected)
    if reason is not None:
        faults += _reason_faults(score, reason, imperfect=at_least is None and at_most is not None)
    if faults:
        shown = explain_text(score, document, rubric.task)
        raise AssertionError("\n".join([*faults, "", shown, "", f"completion: {text[:1000]}"]))
    return score


def _fits(points: float | None, expected: Expected) -> bool:
    if points is None or expected is None:
        return points is expected
    low, high = expected if isinstance(expected, tuple) else (expected - CLOSE, expected + CLOSE)
    return low - 1e-9 <= points <= high + 1e-9


def _say(expected: Expected) -> str:
    if expected is None:
        return "none"
    return f"{expected[0]:g} to {expected[1]:g}" if isinstance(expected, tuple) else f"{expected:.2f}"


def _part_faults(score: RubricScore, name: str, expected: Expected) -> list[str]:
    if name not in score.parts:
        gate = f"the completion stopped at the gate {score.gate}" if score.gate else _nearest(name, list(score.parts))
        return [f"parts: no {name!r}: {gate}"]
    value = score.parts[name]
    return [] if _fits(value, expected) else [f"parts: {name} is {_say(value)}, expected {_say(expected)}"]


def _field_faults(score: RubricScore, path: str, expected: Expected) -> list[str]:
    pattern = re.compile(re.escape(path).replace(r"\[\]", r"\[\d+\]"))
    found: dict[str, list[tuple[float | None, str]]] = {}
    for finding in score.findings:
        if pattern.fullmatch(finding.path):
            found.setdefault(finding.path, []).append((finding.points, finding.why))
    if not found:
        known = list(dict.fromkeys(re.sub(r"\[\d+\]", "[]", f.path) for f in score.findings if f.path))
        return [f"fields: nothing is said about {path!r}: {_nearest(path, known)}"]
    faults = []
    for where, said in found.items():
        # The least points, and what gave them; "left out" only where every check leaves it out.
        points, why = min(said, key=lambda one: 2.0 if one[0] is None else one[0])
        if not _fits(points, expected):
            faults.append(f"fields: {where} has {_say(points)} points, expected {_say(expected)}: {why}")
    return faults


def _reason_faults(score: RubricScore, reason: str, *, imperfect: bool) -> list[str]:
    if reason in ("parses", "schema"):
        stop = "passed the gates" if score.gate is None else f"stopped at the gate {score.gate}"
        return [] if score.gate == reason else [f"reason: it {stop}, expected to stop at {reason}"]
    if reason in score.parts:
        value = score.parts[reason]
        if imperfect:
            good = value is not None and value < 1.0 - 1e-9
            return [] if good else [f"reason: {reason} is {_say(value)}, expected less than 1"]
        return [] if value is not None and value > 1.0 - 1e-9 else [f"reason: {reason} is {_say(value)}, expected 1"]
    said = [finding.why for finding in score.findings]
    if any(reason.casefold() in why.casefold() for why in said):
        return []
    return [f"reason: no reward is called {reason!r}, and no finding says so"]


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known) or 'nothing'}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("offramp_task", "task of Offramp's fixtures: a name in configs/task, or a task file")
    parser.addini("offramp_docs", "documents of Offramp's fixtures: JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def _given(request: pytest.FixtureRequest, key: str) -> str | None:
    """What the closest marker says, else the configuration."""
    for marker in request.node.iter_markers("offramp"):
        if marker.args or not marker.kwargs.keys() <= {"task", "docs", "id", "text"}:
            pytest.fail(f"the marker is {MARKER}", pytrace=False)
        if key in marker.kwargs:
            return str(marker.kwargs[key])
    return str(request.config.getini(f"offramp_{key}")) or None if key in ("task", "docs") else None


def _find(request: pytest.FixtureRequest, path: str) -> str:
    for folder in (request.path.parent, request.config.rootpath):
        if (folder / path).is_file():
            return str(folder / path)
    return path


def _load(load: Callable[..., Any], *args: Any) -> Any:
    """A mistake in a file is one line and no traceback."""
    from rewards.errors import OfframpError

    try:
        return load(*args)
    except OfframpError as fault:
        pytest.fail(str(fault), pytrace=False)


@lru_cache(maxsize=32)
def _rubric(path: str, changed_ns: int) -> Rubric:
    from rewards.rubric import Rubric
    from rewards.task import load_task

    return Rubric(load_task(path))


@lru_cache(maxsize=8)
def _documents(path: str, changed_ns: int) -> tuple[Document, ...]:
    """The documents of a file; envs.documents reads large and hostile ones."""
    from rewards.document import Document
    from rewards.errors import DataError

    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"docs={path}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as fault:
            raise DataError(f"docs={path} line {number}: not JSON: {fault}") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "text")):
            raise DataError(f"docs={path} line {number}: must be an object with an id and a text")
        gold = row.get("gold")
        found.append(
            Document(
                row["id"], row["text"], str(row.get("group") or row["id"]), gold if isinstance(gold, dict) else None
            )
        )
    if not found:
        raise DataError(f"docs={path}: no documents")
    return tuple(found)


def _changed_ns(path: str) -> int:
    return Path(path).stat().st_mtime_ns if Path(path).is_file() else 0


@pytest.fixture
def rubric(request: pytest.FixtureRequest) -> Rubric:
    """The rubric of the task that the marker or the configuration names."""
    name = _given(request, "task")
    if name is None:
        pytest.fail(
            'no task: mark the test with pytest.mark.offramp(task="receipt"), or set offramp_task', pytrace=False
        )
    path = _find(request, name)
    return cast("Rubric", _load(_rubric, path, _changed_ns(path)))


@pytest.fixture
def task(rubric: Rubric) -> Task:
    """The task that the marker or the configuration names."""
    return rubric.task


@pytest.fixture
def documents(request: pytest.FixtureRequest) -> tuple[Document, ...]:
    """The documents of the marker's or the configuration's file; or the one that the marker's text is."""
    from rewards.document import Document

    text = _given(request, "text")
    if text is not None:
        name = _given(request, "id") or "document"
        return (Document(name, text, name, None),)
    path = _given(request, "docs")
    if path is None:
        pytest.fail("no documents: give pytest.mark.offramp docs= or text=, or set offramp_docs", pytrace=False)
    path = _find(request, path)
    return cast("tuple[Document, ...]", _load(_documents, path, _changed_ns(path)))


@pytest.fixture
def document(request: pytest.FixtureRequest, documents: tuple[Document, ...]) -> Document:
    """The document of the marker's id, or the first."""
    name = _given(request, "id")
    if name is None:
        return documents[0]
    found = {one.id: one for one in documents}
    if name not in found:
        pytest.fail(f"id={name}: no such document: {_nearest(name, list(found))}", pytrace=False)
    return found[name]


@pytest.fixture(name="assert_reward")
def _assert_reward(request: pytest.FixtureRequest, rubric: Rubric) -> Callable[..., RubricScore]:
    """assert_reward for this test's rubric and document; document= takes another one."""

    def check(completion: str | Mapping[str, Any], **expected: Any) -> RubricScore:
        __tracebackhide__ = True
        chosen = expected.pop("document", None) or request.getfixturevalue("document")
        return assert_reward(completion, document=chosen, rubric=rubric, **expected)

    return check
