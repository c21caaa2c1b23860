"""Wholesale hacks: answers that cost a policy nothing and say nothing. A rubric must pay them far less than gold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rewards import normalize
from rewards.document import Document
from rewards.errors import DataError
from rewards.mutate_shared import get, of_kind, text
from rewards.plan import Plan, compile_plan
from rewards.task import Task

HACKS: Mapping[str, str] = {
    "all_null": "null for every field, no row",
    "empty_rows": "the right header fields, no row",
    "one_row": "the right header fields, one row that carries the total",
    "one_row_of_totals": "the right header fields, and the line of the total as the only row",
    "echo_document": "the document itself",
    "echo_in_fields": "the document's beginning as every text, and nothing else",
    "echo_schema": "the JSON Schema",
    "constant": "one right answer to another document, for all documents",
}


def complete(task: Task, document: Document) -> bool:
    """Whether gold says something about every required key: what it does not know cannot be asked for."""
    return document.gold is not None and all(key in document.gold for key in task.schema.get("required", ()))


def hacks(task: Task, document: Document, constants: Sequence[Document]) -> dict[str, str]:
    """Completions by hack, for a document with complete gold; a hack that is no hack here (one row where gold has one)
    is left out. constants: documents of which the first with another gold is the constant answer."""
    assert document.gold is not None
    plan = compile_plan(task)
    gold = json.loads(task.canonical(document.gold))
    found = {
        "all_null": _nothing(task),
        "echo_document": document.text,
        "echo_in_fields": _echo(task, plan, document.text),
        "echo_schema": json.dumps(task.schema),
    }
    arrays = [array for array in plan.arrays if gold.get(array)]
    if arrays:
        found["empty_rows"] = task.canonical(gold | {array: [] for array in arrays})
    one = _one_row(plan, gold)
    if one is not None:
        found["one_row"] = task.canonical(one)
    totals = _row_of_totals(plan, gold, document.text)
    if totals is not None:
        found["one_row_of_totals"] = task.canonical(totals)
    other = next((d for d in constants if d.gold is not None and task.canonical(d.gold) != task.canonical(gold)), None)
    if other is not None and other.gold is not None:
        found["constant"] = task.canonical(other.gold)
    return {name: found[name] for name in HACKS if name in found}


def _nothing(task: Task) -> str:
    try:
        return task.canonical({})
    except DataError:  # a required key that may not be null
        return "{}"


def _echo(task: Task, plan: Plan, page: str) -> str:
    value: dict[str, Any] = {}
    known = task.schema.get("properties", {})
    for field in of_kind(plan, "text", "code"):
        if "." not in field.path:
            value[field.path] = page[: known[field.path].get("maxLength", len(page))]
    try:
        return task.canonical(value)
    except DataError:
        return json.dumps(value)


def _whole(plan: Plan, gold: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The path and value of the amount that the rows come to: the money field that is the last of its page."""
    for field in of_kind(plan, "money"):
        given = get(gold, field.path)
        if field.spec.last and normalize.amount(given):
            return field.path, given
    return None


def _one_row(plan: Plan, gold: dict[str, Any]) -> dict[str, Any] | None:
    """Gold with the rows of every array put together in one; None where no array has two rows with a number."""
    changed: dict[str, Any] = {}
    whole = _whole(plan, gold)
    for array, leaves in plan.arrays.items():
        numeric = [leaf for leaf, field in leaves.items() if field.spec.kind in ("money", "count")]
        rows = [row for row in gold.get(array) or [] if any(normalize.amount(row.get(leaf)) for leaf in numeric)]
        if len(rows) < 2:
            continue
        first = dict(rows[0])
        for leaf in numeric:
            amounts = [amount for row in rows if (amount := normalize.amount(row.get(leaf))) is not None]
            if amounts:
                like = next(row[leaf] for row in rows if row.get(leaf) is not None)
                first[leaf] = text(sum(amounts, Decimal(0)), like)
        if array in plan.rows and whole is not None:
            first[plan.rows[array].spec.amount] = whole[1]
        changed[array] = [first]
    return gold | changed if changed else None


def _row_of_totals(plan: Plan, gold: dict[str, Any], page: str) -> dict[str, Any] | None:
    whole = _whole(plan, gold)
    if whole is None or not isinstance(whole[1], str):
        return None
    for array, rows in plan.rows.items():
        given = gold.get(array) or []
        if sum(bool(normalize.amount(row.get(rows.spec.amount))) for row in given) < 2:
            continue
        line = next((line for line in page.splitlines() if whole[1] in line and "total" in line.lower()), "TOTAL")
        name = line.split(whole[1])[0].strip() or "TOTAL"
        return gold | {array: [given[0] | {rows.spec.name: name[:200], rows.spec.amount: whole[1]}]}
    return None
