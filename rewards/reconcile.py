"""Reconciliation: the task's relations in exact Decimals, worth as much as their operands are grounded."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from math import fsum
from typing import Any

from rewards import normalize
from rewards.evidence import Grounded
from rewards.plan import Plan
from rewards.relations import Path, Relation, applies, at_path, evaluate, rows_of
from rewards.score import Finding, Score, not_applicable, scored

# At least this many points make an operand grounded in full: a label may stand apart from its amount.
TRUSTED = 0.5
NAMED = 0.3  # a row whose name fits worse than this is no row of the document
SHARED = 0.1  # of the trust, where two operands stand on one printed number


def _trust(points: float | None) -> float:
    return 0.0 if points is None else 1.0 if points >= TRUSTED else points


def reconciles(plan: Plan, value: dict[str, Any], grounded: Grounded) -> Score:
    """Mean over the relations that apply: 1 where an alternative closes to the cent and its operands are grounded, each
    on a printed number of its own. A relation over rows is worth the mean of its rows, same() the share of its rows
    that agree.

    A relation whose operand is missing is 0 where the document shows that operand, and does not apply otherwise; a sum
    over no rows is 0 for the same reason. One whose condition does not hold does not apply.
    """
    values: list[float] = []
    findings: list[Finding] = []
    # The findings of the scalars come first.
    spans = {f.path: f.span for f in grounded.findings[: len(plan.scalars)] if f.span is not None}
    sums: dict[str, Decimal | None] = {}
    for name, alternatives in plan.task.relations.items():
        best: float | None = None
        why = "its condition does not hold"
        missing = False
        for relation in alternatives:
            if relation.rows is None and not applies(relation, value):
                continue
            if relation.kind == "same":
                outcome = _same(relation, plan, value, grounded)
            elif relation.rows is not None:
                outcome = _rowwise(relation, plan, value, grounded)
            else:
                outcome = _whole(relation, plan, value, grounded, spans, sums)
            if outcome is None:
                why = "an operand is missing" if best is None else why
                if relation.kind == "same" and rows_of(value, relation.rows or ""):
                    why = "a single row has nothing to agree with"
                    continue
                missing |= any(path.split("[]")[0] in grounded.expected for path in relation.paths)
                continue
            if best is None or outcome > best:
                best, why = outcome, relation.text if outcome else f"does not close: {relation.text}"
            if best == 1.0:
                break  # no alternative closes better
        if best is None and missing:
            best = 0.0
        if best is not None:
            values.append(best)
        findings.append(Finding(f"relations.{name}", None, None, best, why))
    if not values:
        return not_applicable("no relation applies")
    return scored(fsum(values) / len(values), findings)


def _whole(
    relation: Relation,
    plan: Plan,
    value: dict[str, Any],
    grounded: Grounded,
    spans: dict[str, tuple[int, int]],
    sums: dict[str, Decimal | None],
) -> float | None:
    left = evaluate(relation.left, value, sums=sums)
    right = evaluate(relation.right, value, sums=sums) if relation.right is not None else None
    if left is None or right is None:
        return None
    if left != right:
        return 0.0
    trust = 1.0
    used: dict[tuple[int, int], set[str]] = {}
    for path in relation.operands:
        if path.array is not None:
            trust *= _summed(path, plan, value, grounded)
        elif number := normalize.amount(at_path(value, path.keys)):  # a zero closes nothing that its absence would not
            trust *= _trust(grounded.points.get(path.text))
            span = spans.get(path.text)
            if span is None:
                continue
            sharing = used.setdefault(span, set())
            sharing.add(path.text)
            if len(sharing) > 1 and len(sharing) > _printed(number, grounded):
                trust *= SHARED
    return trust


def _printed(number: Decimal, grounded: Grounded) -> int:
    """How often a number is printed, whatever its sign."""
    return sum(abs(printed.value) == abs(number) for printed in grounded.index.numbers)


def _summed(path: Path, plan: Plan, value: dict[str, Any], grounded: Grounded) -> float:
    """The trust in a sum over rows: the share of rows that the document has."""
    array = path.array
    assert array is not None
    known = grounded.leaf_points.get(path.text)
    if known is not None:
        points = [_trust(one) for one in known]
    elif path.keys == (plan.rows[array].spec.amount,):
        points = [float(match is not None and match.name >= NAMED) for match in grounded.matches[array]]
    else:
        points = grounded.row_points[array]
    return fsum(points) / len(points) if points else 0.0


def _row_trust(relation: Relation, i: int, row: Any, grounded: Grounded) -> float:
    """The trust in the fields of one row that the relation names."""
    array = relation.rows
    assert array is not None
    trust = 1.0
    for path in relation.operands:
        if path.array != array or not normalize.amount(at_path(row, path.keys)):
            continue
        known = grounded.leaf_points.get(path.text)
        if known is None:
            return grounded.row_points[array][i]
        trust *= _trust(known[i])
    return trust


def _rowwise(relation: Relation, plan: Plan, value: dict[str, Any], grounded: Grounded) -> float | None:
    assert relation.rows is not None and relation.right is not None
    outcomes: list[float] = []
    for i, row in enumerate(rows_of(value, relation.rows)):
        if not applies(relation, value, row):
            continue
        left, right = evaluate(relation.left, value, row), evaluate(relation.right, value, row)
        if left is not None and right is not None:
            outcomes.append(_row_trust(relation, i, row, grounded) if left == right else 0.0)
    return fsum(outcomes) / len(outcomes) if outcomes else None


def _same(relation: Relation, plan: Plan, value: dict[str, Any], grounded: Grounded) -> float | None:
    """The share of the rows that have the most common value, each worth the trust in its fields; rows that lack an
    operand are left out, and a single row has nothing to agree with."""
    assert relation.rows is not None
    found: dict[int, Decimal] = {}
    rows = rows_of(value, relation.rows)
    for i, row in enumerate(rows):
        if applies(relation, value, row) and (result := evaluate(relation.left, value, row)) is not None:
            found[i] = result
    if len(found) < 2:
        return None
    common, count = Counter(found.values()).most_common(1)[0]
    if count < 2:
        return 0.0
    return fsum(_row_trust(relation, i, rows[i], grounded) for i, v in found.items() if v == common) / len(found)
