"""Fields against gold: true and false positives by field, with rows aligned. For evaluation; no reward reads this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz import fuzz

from rewards import normalize
from rewards.dates import iso
from rewards.plan import compile_plan
from rewards.task import NUMERIC, Task

HEADER = ("vendor", "date", "total")


@dataclass(frozen=True, slots=True)
class FieldCounts:
    """tp: given and right. fp: given and wrong, or gold has none. fn: gold has one, the attempt's is wrong or missing.

    exact: whether every value of this field in the document is right (null where gold is null is right).
    """

    tp: int
    fp: int
    fn: int
    exact: bool


@dataclass(frozen=True, slots=True)
class FieldReport:
    """fields: path ("items[].amount") -> FieldCounts, for the fields that gold knows.

    document_exact: every such field is right and the rows stand one to one. header_exact: vendor (letters and digits),
    date and total are all right; None where gold lacks one of them.
    """

    document_exact: bool
    header_exact: bool | None
    fields: dict[str, FieldCounts]


def canonical(kind: str, value: Any) -> Any:
    """A value as it is compared: None for missing; a value that its kind cannot read stays itself, so it equals nothing
    but the same text."""
    if value is None or value == "":
        return None
    if kind in NUMERIC:
        amount = normalize.amount(value)
        return str(value) if amount is None else amount.normalize()
    if kind == "date":
        return iso(value) or str(value)
    if kind == "text":
        return normalize.letters_digits(str(value)) or normalize.plain(str(value))
    return str(value) if kind == "class" else normalize.plain(str(value))


def _counts(given: Any, gold: Any) -> tuple[int, int, int]:
    """(tp, fp, fn) of one value; null against null counts nowhere."""
    if given is None and gold is None:
        return 0, 0, 0
    if given == gold:
        return 1, 0, 0
    return 0, int(given is not None), int(gold is not None)


def _likeness(given: Sequence[Any], gold: Sequence[Any], kinds: Sequence[str]) -> float:
    """How like two rows are, over their canonical leaves: equal values count 1, texts their ratio."""
    total = 0.0
    for a, b, kind in zip(given, gold, kinds, strict=True):
        if a == b:
            total += 1.0 if a is not None else 0.01
        elif kind == "text" and a is not None and b is not None:
            total += 0.9 * fuzz.ratio(str(a), str(b)) / 100
    return total


def align(given: Sequence[Sequence[Any]], gold: Sequence[Sequence[Any]], kinds: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (row of the attempt, row of gold), the most alike first; rows that share nothing stay alone.

    Best first is exact where rows are told apart by a value, and equal rows pair in order.
    """
    scored = [(_likeness(a, b, kinds), -abs(i - j), -i, -j) for i, a in enumerate(given) for j, b in enumerate(gold)]
    scored.sort(reverse=True)
    pairs: list[tuple[int, int]] = []
    left, right = set(range(len(given))), set(range(len(gold)))
    for likeness, _, i, j in scored:
        if likeness < 0.3:
            break
        if -i in left and -j in right:
            left.discard(-i)
            right.discard(-j)
            pairs.append((-i, -j))
    return pairs


def _rows(value: Any, leaves: Sequence[str], kinds: Sequence[str]) -> list[list[Any]]:
    rows = value if isinstance(value, list) else []
    return [
        [
            canonical(kind, row.get(leaf)) if isinstance(row, Mapping) else None
            for leaf, kind in zip(leaves, kinds, strict=True)
        ]
        for row in rows
    ]


def compare(task: Task, attempt: Mapping[str, Any] | None, gold: Mapping[str, Any]) -> FieldReport:
    """Counts of every field that gold knows: a key that gold lacks is unknown and ignored; null is "not printed".

    attempt None: nothing was extracted (unparsable), every gold value is missed.
    """
    plan = compile_plan(task)
    given = attempt or {}
    fields: dict[str, FieldCounts] = {}
    for path, field in plan.scalars.items():
        top, *below = path.split(".")
        if top not in gold:
            continue
        kind = field.spec.kind
        tp, fp, fn = _counts(canonical(kind, _get(given, [top, *below])), canonical(kind, _get(gold, [top, *below])))
        # An unparsable attempt is never exact, not even where gold is null.
        fields[path] = FieldCounts(tp, fp, fn, fp + fn == 0 and attempt is not None)
    for array, leaves in plan.arrays.items():
        if array not in gold:
            continue
        known = [key for key in leaves if not gold[array] or any(key in row for row in gold[array])]
        kinds = [leaves[key].spec.kind for key in known]
        mine, right = _rows(given.get(array), known, kinds), _rows(gold[array], known, kinds)
        pairs = align(mine, right, kinds)
        paired = dict(pairs)
        alone = [j for j in range(len(right)) if j not in set(paired.values())]
        for k, key in enumerate(known):
            tp = fp = fn = 0
            for i, row in enumerate(mine):
                a, b, c = _counts(row[k], right[paired[i]][k] if i in paired else None)
                tp, fp, fn = tp + a, fp + b, fn + c
            fn += sum(right[j][k] is not None for j in alone)
            exact = fp + fn == 0 and len(mine) == len(right) and attempt is not None
            fields[f"{array}[].{key}"] = FieldCounts(tp, fp, fn, exact)
    header = [fields[key] for key in HEADER if key in fields and fields[key].tp + fields[key].fn > 0]
    known_header = len(header) == len(HEADER)
    return FieldReport(
        document_exact=attempt is not None and all(counts.exact for counts in fields.values()),
        header_exact=all(counts.exact for counts in header) if known_header else None,
        fields=fields,
    )


def _get(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
