"""Reconciliation: the task's relations in exact Decimals, worth as much as their operands are grounded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rewards import normalize
from rewards.evidence import Grounded
from rewards.plan import Plan
from rewards.relations import Relation, evaluate
from rewards.score import Finding, Score, not_applicable, scored

# At least this many points make an operand grounded in full: a label may stand apart from its amount.
TRUSTED = 0.5


def _trust(points: float | None) -> float:
    return 0.0 if points is None else 1.0 if points >= TRUSTED else points


def reconciles(plan: Plan, value: dict[str, Any], grounded: Grounded) -> Score:
    """Mean over the relations that apply: 1 where an alternative closes to the cent and its operands are grounded.

    A relation whose operand is missing is 0 where the document shows that operand, and does not apply otherwise; a sum
    over no rows is 0 for the same reason.
    """
    scalars = {
        path: normalize.amount(value.get(path)) for path in plan.scalars if plan.scalars[path].spec.kind in _NUMERIC
    }
    values: list[float] = []
    findings: list[Finding] = []
    for name, alternatives in plan.task.relations.items():
        best: float | None = None
        why = "an operand is missing"
        missing = False
        for relation in alternatives:
            outcome = (
                _rowwise(relation, value, grounded)
                if relation.rows
                else _whole(relation, plan, scalars, value, grounded)
            )
            if outcome is None:
                missing |= any(path.split("[]")[0] in grounded.expected for path in relation.paths)
                continue
            if best is None or outcome > best:
                best, why = outcome, relation.text if outcome else f"does not close: {relation.text}"
        if best is None and missing:
            best = 0.0
        if best is not None:
            values.append(best)
        findings.append(Finding(f"relations.{name}", None, None, best, why))
    if not values:
        return not_applicable("no relation applies")
    return scored(sum(values) / len(values), findings)


_NUMERIC = ("money", "number")


def _whole(
    relation: Relation, plan: Plan, scalars: dict[str, Decimal | None], value: dict[str, Any], grounded: Grounded
) -> float | None:
    sums: dict[str, Decimal] = {}
    trust = 1.0
    for path in relation.paths:
        if "[]" in path:
            array, leaf = path.split("[].", 1)
            rows = value.get(array) or []
            if not rows:
                return None
            amounts = [normalize.amount(row.get(leaf)) for row in rows]
            sums[path] = sum((a for a in amounts if a is not None), Decimal(0))
            if leaf == plan.rows[array].spec.amount:
                named = [m is not None and m.name >= 0.3 for m in grounded.matches[array]]
                trust *= sum(named) / len(named)
        elif scalars.get(path):  # a zero closes nothing that its absence would not
            trust *= _trust(grounded.points.get(path))
    left, right = evaluate(relation.left, scalars, sums), evaluate(relation.right, scalars, sums)
    if left is None or right is None:
        return None
    return trust if left == right else 0.0


def _rowwise(relation: Relation, value: dict[str, Any], grounded: Grounded) -> float | None:
    array = relation.rows
    assert array is not None
    rows = value.get(array) or []
    outcomes: list[float] = []
    for i, row in enumerate(rows):
        scalars = {path: normalize.amount(row.get(path.split("[].", 1)[1])) for path in relation.paths if "[]." in path}
        left, right = evaluate(relation.left, scalars, {}), evaluate(relation.right, scalars, {})
        if left is not None and right is not None:
            outcomes.append(grounded.row_points[array][i] if left == right else 0.0)
    return sum(outcomes) / len(outcomes) if outcomes else None
