"""Records: groups of labelled numbers, such as the votes for, against and abstaining on each proposal.

A row of an attempt is grounded when a printed record of its own has its numbers under its labels, and its name on the
record's line or in the text above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from rewards import normalize
from rewards.document import DocumentIndex
from rewards.plan import RecordPlan
from rewards.record_reader import STEM, Record, content, records
from rewards.score import Finding
from rewards.support import ELSEWHERE


class Found(NamedTuple):
    """What one row came to: the record that it is, points by leaf (None: left out), why by leaf, span by leaf."""

    record: int | None
    points: dict[str, float | None]
    why: dict[str, str]
    span: dict[str, tuple[int, int] | None]


def match_records(
    plan: RecordPlan, index: DocumentIndex, rows: Sequence[dict[str, Any]], abstain: float
) -> list[Found]:
    """One printed record for each row, the best fit first, each record once."""
    if plan.labels is None:
        return _on_lines(plan, index, rows)
    printed = records(plan, index)
    fits: list[tuple[float, int, int]] = []
    for i, row in enumerate(rows):
        for k, fit in _fits(plan, index, printed, row):
            fits.append((-fit, i, k))
    fits.sort()
    mine: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, k in fits:
        if i not in mine and k not in taken:
            mine[i] = k
            taken.add(k)
    return [_row(plan, index, row, mine.get(i), printed, abstain) for i, row in enumerate(rows)]


def _on_lines(plan: RecordPlan, index: DocumentIndex, rows: Sequence[dict[str, Any]]) -> list[Found]:
    """Without labels: the line that has all numbers of a row, one line for each row."""
    found: list[Found] = []
    taken: set[int] = set()
    for row in rows:
        wanted = {leaf: value for leaf in plan.numbers if (value := normalize.amount(row.get(leaf))) is not None}
        points: dict[str, float | None] = {leaf: 0.0 for leaf in wanted}
        why = dict.fromkeys(wanted, "no line of its own has all numbers of the row")
        span: dict[str, tuple[int, int] | None] = dict.fromkeys(wanted)
        for line, numbers in index.by_line().items():
            left = list(numbers)
            chosen = {}
            for leaf, value in wanted.items():
                number = next((n for n in left if n.value == value), None)
                if number is None:
                    break
                left.remove(number)
                chosen[leaf] = number
            if wanted and len(chosen) == len(wanted) and line not in taken:
                taken.add(line)
                points = dict.fromkeys(wanted, 1.0)
                why = dict.fromkeys(wanted, "printed on the row's line")
                span = {leaf: (number.start, number.end) for leaf, number in chosen.items()}
                break
        found.append(Found(None, points, why, span))
    return found


def _fits(
    plan: RecordPlan, index: DocumentIndex, printed: Sequence[Record], row: dict[str, Any]
) -> list[tuple[int, float]]:
    key = ("record fits", plan.array, repr(row))
    found: list[tuple[int, float]] | None = index.cache.get(key)
    if found is not None:
        return found
    values = {leaf: normalize.amount(row.get(leaf)) for leaf in plan.numbers}
    name = content(str(row.get(plan.name) or "")) if plan.name else frozenset()
    found = []
    for k, record in enumerate(printed):
        fit = sum(
            plan.fields[leaf].spec.weight
            for leaf, value in values.items()
            if value is not None and any(leaf in e.leaves and e.value == value for e in record.entries)
        )
        named = name_points(name, record, printed)
        if fit or (named > 0.9 and record.own):
            found.append((k, fit + 0.5 * named))
    index.cache[key] = found
    return found


TOLD = 0.5  # of a name's points, for saying what tells its record from the others
KINDRED = 0.8  # of a word that is printed in another form: ratification for ratified


def _known(name: frozenset[str], record: Record) -> float:
    """The share of a name's words, by length, that are printed on the record's line or above it."""
    # Whole letters are counted: a sum of fractions would hang on the order of a set.
    same = kindred = 0
    for word in name:
        if word in record.above:
            same += len(word)
        elif word[:STEM] in record.stems:
            kindred += len(word)
    return (same + KINDRED * kindred) / sum(map(len, name))


def name_points(name: frozenset[str], record: Record, printed: Sequence[Record]) -> float:
    """How well a name fits a record: its words must be printed there or above, and the words on the record's own line
    must be in it; where a line has none, no other record may fit the name better."""
    if not name:
        return 0.0
    known = _known(name, record)
    if record.own:
        recall = sum(len(word) for word in name & record.own) / sum(map(len, record.own))
        return recall * (0.5 + 0.5 * known)
    told = [_recall(name, other.above - _FORMAL) for other in printed]
    best = max(told, default=0.0)
    mine = _recall(name, record.above - _FORMAL)
    return known * (1.0 - TOLD + TOLD * (mine / best if best else 1.0)) * min(1.0, len(name) / 3)


# Words that stand above every count of votes, and tell none from the others.
_FORMAL = frozenset(
    "against abstain abstained abstentions broker non approved approval approve company follows following below number"
    " stockholders shareholders meeting special annual stock common".split()
)


def _recall(name: frozenset[str], words: frozenset[str]) -> float:
    return sum(len(word) for word in name & words) / sum(map(len, words)) if words else 0.0


def _row(
    plan: RecordPlan,
    index: DocumentIndex,
    row: dict[str, Any],
    k: int | None,
    printed: Sequence[Record],
    abstain: float,
) -> Found:
    points: dict[str, float | None] = {}
    why: dict[str, str] = {}
    span: dict[str, tuple[int, int] | None] = {}
    record = printed[k] if k is not None else None
    free = list(record.entries) if record is not None else []
    values = {leaf: normalize.amount(row.get(leaf)) for leaf in plan.numbers}
    for leaf, value in values.items():
        span[leaf] = None
        if value is None:
            continue
        entry = next((e for e in free if leaf in e.leaves and e.value == value), None)
        if entry is not None:
            free.remove(entry)
            points[leaf], why[leaf], span[leaf] = 1.0, "printed under its label", entry.span
            continue
        entry = next((e for e in free if leaf in e.leaves and e.value is None), None) if value == 0 else None
        if entry is not None:
            free.remove(entry)
            points[leaf], why[leaf], span[leaf] = 1.0, "printed as a dash", entry.span
        elif record is not None and value == 0 and not any(leaf in e.leaves for e in record.entries):
            points[leaf], why[leaf] = None, "zero, and the record has no such number"
        else:
            points[leaf], why[leaf], span[leaf] = _loose(plan, index, value, bool(printed))
    for leaf, value in values.items():
        if value is not None:
            continue
        left = next((e for e in free if leaf in e.leaves and e.value), None)
        points[leaf] = None if left is None else abstain
        why[leaf] = "null, and the record shows none" if left is None else "null, but the record shows one"
    if plan.name:
        name = content(str(row.get(plan.name) or ""))
        if record is not None:
            points[plan.name] = name_points(name, record, printed)
            whole = points[plan.name] == 1.0
            why[plan.name] = "printed with its record" if whole else "not the words of its record"
            span[plan.name] = record.span
        else:
            points[plan.name], span[plan.name] = (0.0, None) if printed else (_anywhere(index, name), None)
            why[plan.name] = "no printed record of its own" if printed else "words of the document"
    return Found(k, points, why, span)


def _loose(
    plan: RecordPlan, index: DocumentIndex, value: Decimal, known: bool
) -> tuple[float, str, tuple[int, int] | None]:
    """A number that its record does not have under its label."""
    number = next((n for n in index.numbers if n.value == value), None)
    if number is None:
        return 0.0, "not printed in the document", None
    where = (number.start, number.end)
    # In a document without a record that we can read, being printed is all that can be asked.
    return (ELSEWHERE, "printed, but not in its record", where) if known else (0.6, "printed, no label is read", where)


def _anywhere(index: DocumentIndex, name: frozenset[str]) -> float:
    known = index.cache.get("content")
    if known is None:
        known = index.cache["content"] = content(index.text)
    return sum(len(word) for word in name & known) / sum(map(len, name)) if name else 0.0


def ground_records(
    plan: RecordPlan, index: DocumentIndex, given: Any, abstain: float
) -> tuple[list[Found], list[float], list[Finding]]:
    """(what each row came to, points of each row, findings)."""
    rows = [row if isinstance(row, dict) else {} for row in given] if isinstance(given, list) else []
    found = match_records(plan, index, rows, abstain)
    scores: list[float] = []
    findings: list[Finding] = []
    for i, (row, one) in enumerate(zip(rows, found, strict=True)):
        total = weights = 0.0
        for leaf, field in plan.fields.items():
            points = one.points.get(leaf)
            why = one.why.get(leaf, "")
            findings.append(Finding(f"{plan.array}[{i}].{leaf}", row.get(leaf), one.span.get(leaf), points, why))
            if points is not None:
                total += field.spec.weight * points
                weights += field.spec.weight
        scores.append(total / weights if weights else 0.0)
    return found, scores, findings


def uncovered(plan: RecordPlan, index: DocumentIndex, found: Sequence[Found]) -> tuple[float | None, list[Record]]:
    """(share of the printed records that a row is, those that none is); None where the document has none."""
    printed = records(plan, index)
    if not printed:
        return None, []
    right = [one for one in found if any(one.points.get(leaf) == 1.0 for leaf in plan.numbers)]
    good = {one.record for one in right}
    missing = [record for k, record in enumerate(printed) if k not in good]
    return 1.0 - len(missing) / len(printed), missing
