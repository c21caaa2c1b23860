"""What the document says about one whole attempt: points for every leaf, worked out once and shared by the rewards."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from math import fsum
from typing import Any, NamedTuple

from rewards import normalize
from rewards.document import DocumentIndex, Number
from rewards.grounding import evidence, ground
from rewards.mentions import ground_mentions, uncovered_names
from rewards.plan import FieldPlan, Plan, RecordPlan, RowPlan
from rewards.record_reader import records
from rewards.records import Found, ground_records
from rewards.rows import Match, as_rows, match_rows
from rewards.score import Finding
from rewards.support import UNLABELLED
from rewards.table import known_zone, places, zone


class Grounded:
    """What one attempt came to.

    points: of the scalars by path (None: left out).  expected: fields and arrays that the document shows and the
    attempt leaves out, and arrays that it shows.  lines: of the well grounded amounts.  rows, matches, row_points: by
    array, in the attempt's order.  leaf_points: by path of a leaf ("votes[].for"), for arrays that tell them apart.
    records: what the rows of an array of records came to.  names: the share of the text's names that are given, and the
    spans of the others; None where the task has no mentions.  index: the document's.
    """

    __slots__ = (
        "expected",
        "findings",
        "index",
        "leaf_points",
        "lines",
        "matches",
        "names",
        "points",
        "records",
        "row_points",
        "rows",
    )

    def __init__(self, index: DocumentIndex) -> None:
        self.index = index
        self.points: dict[str, float | None] = {}
        self.expected: set[str] = set()
        self.lines: set[int] = set()
        self.rows: dict[str, list[tuple[str, Decimal | None]]] = {}
        self.matches: dict[str, list[Match | None]] = {}
        self.row_points: dict[str, list[float]] = {}
        self.leaf_points: dict[str, list[float | None]] = {}
        self.names: tuple[float | None, list[tuple[int, int]]] | None = None
        self.records: dict[str, list[Found]] = {}
        self.findings: list[Finding] = []


def gather(plan: Plan, index: DocumentIndex, value: dict[str, Any], abstain: float) -> Grounded:
    """Looks every value of a schema-valid attempt up in the document."""
    result = Grounded(index)
    for rows in plan.rows.values():
        zone(rows, plan, index)
    for path, field in plan.scalars.items():
        given = value.get(path) if "." not in path else _at(value, path)
        key = ("scalar", path, given if given is None or isinstance(given, str) else repr(given))
        known: _Known | None = index.cache.get(key)
        if known is None:
            known = index.cache[key] = _scalar(field, plan, index, given, abstain)
        result.points[path] = known.finding.points
        result.findings.append(known.finding)
        if known.expected:
            result.expected.add(path)
        if known.line is not None:
            result.lines.add(known.line)
    for array, rows in plan.rows.items():
        _rows(result, rows, index, value.get(array))
    for array, record in plan.records.items():
        _records(result, record, index, value.get(array), abstain)
    for array, mention in plan.mentions.items():
        scores, leaves, findings = ground_mentions(mention, plan, index, value.get(array))
        result.row_points[array] = scores
        result.leaf_points |= {f"{array}[].{leaf}": points for leaf, points in leaves.items()}
        result.findings += findings
    if any(mention.spec.covers for mention in plan.mentions.values()):
        share, spans = uncovered_names(plan, index, value)
        named = [points for array in plan.mentions for points in result.row_points[array]]
        # Naming every word would cover every name.
        result.names = share if share is None else share * sum(named) / max(1, len(named)), spans
    return result


def _records(result: Grounded, plan: RecordPlan, index: DocumentIndex, given: Any, abstain: float) -> None:
    found, scores, findings = ground_records(plan, index, given, abstain)
    result.records[plan.array], result.row_points[plan.array] = found, scores
    for leaf in plan.fields:
        result.leaf_points[f"{plan.array}[].{leaf}"] = [one.points.get(leaf) for one in found]
    result.findings += findings
    if plan.spec.covers and records(plan, index):
        result.expected.add(plan.array)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


class _Known(NamedTuple):
    """What one value of one scalar field came to in a document: the finding, and the line of a well grounded amount."""

    finding: Finding
    expected: bool
    line: int | None


def _scalar(field: FieldPlan, plan: Plan, index: DocumentIndex, given: Any, abstain: float) -> _Known:
    path = field.path
    if given is None:
        if field.spec.expected is None or not evidence(field, plan, index).expected:
            return _Known(Finding(path, None, None, None, "null, and the document shows none"), False, None)
        return _Known(Finding(path, None, None, abstain, "null, but the document shows one"), True, None)
    support = ground(field, plan, index, given)
    if support is None:
        return _Known(Finding(path, given, None, None, "the document does not say"), False, None)
    line = None
    # An amount that is only guessed to be this field's explains no line of the table.
    if field.spec.kind == "money" and support.points >= 0.5 and support.span is not None and support.why != UNLABELLED:
        line = index.line_at(support.span[0])
    return _Known(Finding(path, given, support.span, support.points, support.why), False, line)


@lru_cache(maxsize=4_096)
def _path(array: str, i: int, leaf: str) -> str:
    return f"{array}[{i}].{leaf}"


def _rows(result: Grounded, plan: RowPlan, index: DocumentIndex, given: Any) -> None:
    array = plan.array
    rows = as_rows(given, plan)
    matches = match_rows(rows, plan, index)
    result.rows[array], result.matches[array] = rows, matches
    # A page with amounts has rows for them, where a relation of the task sums the rows.
    if known_zone(plan, index).open_ or (plan.summed and any(n.value for n in index.money)):
        result.expected.add(array)
    name_weight, amount_weight = plan.fields[plan.spec.name].spec.weight, plan.fields[plan.spec.amount].spec.weight
    others = [(key, field) for key, field in plan.fields.items() if key not in (plan.spec.name, plan.spec.amount)]
    whole = fsum(field.spec.weight for field in plan.fields.values())
    scores: list[float | None] = []
    for i, ((name, amount), match) in enumerate(zip(rows, matches, strict=True)):
        name_points, amount_points, why_name, why_amount, span_name, span_amount = _row(
            name, amount, match, plan, index
        )
        total = name_weight * name_points + amount_weight * amount_points
        result.findings.append(Finding(_path(array, i, plan.spec.name), name, span_name, name_points, why_name))
        result.findings.append(
            Finding(_path(array, i, plan.spec.amount), str(amount), span_amount, amount_points, why_amount)
        )
        for key, field in others:
            value = given[i].get(key)
            number = _beside(normalize.amount(value), match, index, given[i], plan)
            span = (number.start, number.end) if number else None
            why = "printed in its row" if number else "not printed in its row"
            result.findings.append(Finding(_path(array, i, key), value, span, float(number is not None), why))
            total += field.spec.weight * (number is not None)
        free = match is not None and not match.number.money  # a part of another row: it earns and costs nothing
        scores.append(None if free else total / whole if whole else 0.0)
    known = [score for score in scores if score is not None]
    mean = fsum(known) / len(known) if known else 0.0
    result.row_points[array] = [mean if score is None else score for score in scores]


def _row(
    name: str, amount: Decimal | None, match: Match | None, plan: RowPlan, index: DocumentIndex
) -> tuple[float, float, str, str, tuple[int, int] | None, tuple[int, int] | None]:
    if match is None:
        where = places(name, plan, index)
        if not where:
            return 0.0, 0.0, "not printed in the table", "no printed line of its own", None, None
        return (
            0.3 * where[0].likeness,
            0.0,
            "printed, but not with this amount",
            "no printed line of its own",
            where[0].span,
            None,
        )
    span = (match.number.start, match.number.end)
    amount_points = 0.3 + 0.7 * min(1.0, match.name / 0.5)
    why_amount = "printed on a line of its own" if match.name >= 0.5 else "printed, but not beside this name"
    if match.place is None:
        return 0.0, amount_points, "not printed beside the amount", why_amount, None, span
    why = match.place.why if match.name == match.place.likeness else "printed, but not beside the amount"
    return match.name, amount_points, why, why_amount, match.place.span, span


def _beside(
    value: Decimal | None, match: Match | None, index: DocumentIndex, row: dict[str, Any], plan: RowPlan
) -> Number | None:
    """The number on the row's lines that has this value and is not its amount; a single piece may share the amount."""
    if value is None or match is None:
        return None
    lines = {match.number.line}
    if match.place is not None:
        lines.update(range(min(match.place.first, match.number.line), max(match.place.last, match.number.line) + 1))
    for line in sorted(lines):
        for number in index.by_line().get(line, ()):
            if number.value == value and number.start != match.number.start:
                return number
    return match.number if match.number.value == value and Decimal(1) in map(normalize.amount, row.values()) else None
