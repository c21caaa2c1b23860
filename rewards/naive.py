"""The score function that everybody writes first, kept as a warning and as a test bed: it never asks where a value is
printed, whether two rows share one line, or what the document has that the attempt leaves out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rewards import normalize
from rewards.document import DocumentIndex
from rewards.plan import Plan
from rewards.relations import evaluate, rows_of
from rewards.score import Score, not_applicable, scored


def has_keys(plan: Plan, value: dict[str, Any]) -> Score:
    """Share of the schema's required keys that have a value."""
    required = plan.task.schema.get("required", ())
    if not required:
        return not_applicable("the schema requires no key")
    return scored(sum(value.get(key) not in (None, "", []) for key in required) / len(required))


def adds_up(plan: Plan, value: dict[str, Any]) -> Score:
    """Share of the relations that close, a missing operand counted as 0: {} passes."""
    outcomes = []
    for alternatives in plan.task.relations.values():
        closes = False
        for relation in alternatives:
            array = relation.rows
            rows: list[Any] = rows_of(value, array) if array else [None]
            lefts = [evaluate(relation.left, value, row, Decimal(0)) for row in rows]
            if relation.right is None:
                closes |= len(set(lefts)) <= 1
            else:
                closes |= lefts == [evaluate(relation.right, value, row, Decimal(0)) for row in rows]
        outcomes.append(closes)
    return scored(sum(outcomes) / len(outcomes)) if outcomes else not_applicable("the task has no relations")


def words_in_source(plan: Plan, value: dict[str, Any], index: DocumentIndex) -> Score:
    """Share of the values whose words all stand somewhere in the document."""
    known = index.cache.get("known words")
    if known is None:
        known = index.cache["known words"] = {word for line in index.lines for word in line.words}
    values = list(_strings(value))
    if not values:
        return not_applicable("no value is given")
    return scored(sum(all(word in known for word in normalize.words(text)) for text in values) / len(values))


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for below in value.values() for text in _strings(below)]
    if isinstance(value, list):
        return [text for below in value for text in _strings(below)]
    return [value] if isinstance(value, str) else []
