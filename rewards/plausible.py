"""Plausibility (values within the task's limits) and characters (text as a person could have read it off the page)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rewards import normalize
from rewards.dates import iso
from rewards.document import DocumentIndex
from rewards.evidence import Grounded
from rewards.plan import Plan
from rewards.score import Finding, Score, not_applicable, scored


def plausible(plan: Plan, value: dict[str, Any]) -> Score:
    """Share of the limited values that lie within their limits; null values are left out."""
    outcomes: list[bool] = []
    findings: list[Finding] = []
    for path, (low, high) in plan.bounds.items():
        kind = plan.task.fields[path].kind
        for i, given in _values(value, path):
            if given is None:
                continue
            number: Any = iso(given) if kind == "date" else normalize.amount(given)
            good = number is not None and not (
                (low is not None and number < low) or (high is not None and number > high)
            )
            outcomes.append(good)
            if not good:
                why = "outside its limits" if number is not None else f"no {kind}"
                findings.append(Finding(_where(path, i), given, None, 0.0, why))
    if not outcomes:
        return not_applicable("no limited value is given")
    return scored(sum(outcomes) / len(outcomes), findings)


def _values(value: dict[str, Any], path: str) -> Iterable[tuple[int, Any]]:
    """The values at a path, and the row of each."""
    if "[]." not in path:
        return ((0, value.get(path)),)
    array, leaf = path.split("[].", 1)
    return enumerate([row.get(leaf) for row in value.get(array) or ()])


def _where(path: str, row: int) -> str:
    return path.replace("[]", f"[{row}]")


def characters(plan: Plan, value: dict[str, Any], index: DocumentIndex, grounded: Grounded) -> Score:
    """Share of the text values that are clean, lowered by rows that repeat without being printed again.

    Clean: no invisible or control character, no letter beyond ASCII that the document does not have (look-alikes), no
    white space at the ends or doubled.
    """
    outcomes: list[bool] = []
    findings: list[Finding] = []
    for path in plan.texts:
        for i, given in _values(value, path):
            if not isinstance(given, str):
                continue
            fault = _fault(given, index)
            outcomes.append(fault is None)
            if fault is not None:
                findings.append(Finding(_where(path, i), given, None, 0.0, fault))
    if not outcomes:
        return not_applicable("no text is given")
    result = sum(outcomes) / len(outcomes)
    for array, rows in grounded.rows.items():
        if len(set(rows)) == len(rows):
            continue
        seen: set[tuple[str, Any]] = set()
        for i, (row, match) in enumerate(zip(rows, grounded.matches[array], strict=True)):
            if row in seen and match is None:
                findings.append(Finding(f"{array}[{i}]", row[0], None, 0.0, "repeats a row that is printed once"))
                result *= 0.5
            seen.add(row)
    return scored(result, findings)


def _fault(text: str, index: DocumentIndex) -> str | None:
    if text.isascii():
        if not text.isprintable():
            return "a control character"
        return "white space at an end or doubled" if text != " ".join(text.split()) else None
    if normalize.invisible(text):
        return "an invisible character"
    known = index.characters()
    for char in text:
        if char > "\x7f" and char not in known:
            return f"the character U+{ord(char):04X} is not in the document"  # its repr differs by Python version
    if not text.isprintable():
        return "a control character"
    return "white space at an end or doubled" if text != " ".join(text.split()) else None
