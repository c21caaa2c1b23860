"""Amounts outside tables: which printed number is the total, the tax, the rounding, by the words beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from rewards import normalize
from rewards.document import DocumentIndex, Line, Number
from rewards.misread import long_words, reread, respaced, short_words
from rewards.plan import FieldPlan, Phrases, Plan
from rewards.support import BESIDE, ELSEWHERE, UNLABELLED, Evidence, Support, put
from rewards.table import known_zone


def _reread(plan: Plan, index: DocumentIndex) -> tuple[list[Line], dict[str, str]]:
    """The lines with misread label words put right, and the corrections; cached."""
    found: tuple[list[Line], dict[str, str]] | None = index.cache.get("reread")
    if found is None:
        rows = _rows(plan, index)
        # An item's name may stand on the line above its quantity and amount: CHINESE TEA is no misread TVA.
        rows |= {i - 1 for i in rows if i and not index.lines[i - 1].money and len(index.by_line()[i]) > 1}
        long, short = long_words(plan, index), short_words(plan, index, rows)
        both = {**short, **long}
        lines = reread(index.lines, both)
        if len(both) > len(long):  # on a row a short word may be a name
            kept = reread(index.lines, long)
            lines = [kept[i] if i in rows else line for i, line in enumerate(lines)]
        found = index.cache["reread"] = lines, both
    return found


def _labelled(field: FieldPlan, plan: Plan, index: DocumentIndex) -> list[tuple[Number, bool]]:
    """Amounts that stand behind, before or below a cue, in order of place; and whether the cue is on their own line."""
    cue, avoid = field.cue, field.avoid
    assert cue is not None
    read, fixes = _reread(plan, index)
    found: list[tuple[Number, bool]] = []
    for i in cue.lines(read):
        line = index.lines[i]
        if line.money:
            found += [(number, True) for number in _own_line(field, index, i, read[i].spaced, fixes)]
            continue
        if not plan.table_words.isdisjoint(line.words):
            continue
        column = _column(field, index.text[line.start : line.end])
        if column is None and avoid is not None and avoid.in_spaced(read[i].spaced):
            continue
        for j in range(i + 1, min(i + 6, len(index.lines))):
            below = index.lines[j]
            if not below.money:
                if any(word.isalpha() and len(word) > 3 and word not in _MARK_WORDS for word in below.words):
                    break
                continue
            labels = [w for w in below.words if w.isalpha() and w not in _MARK_WORDS]
            if column is not None and len(below.money) > max(column, 1):
                found.append((below.money[-1 - column], False))
            elif not labels and (column is None or not _COLUMNS.search(index.text[line.start : line.end].strip())):
                found.append((below.money[-1], False))
                break
            else:
                break
    return found


_COLUMNS = re.compile(r"\s{2,}|\s*[|\t]\s*")


def _column(field: FieldPlan, row: str) -> int | None:
    """In a heading without amounts: how many columns stand to the right of the one that names the field."""
    columns = [f" {' '.join(normalize.words(part))} " for part in _COLUMNS.split(row.strip()) if part]
    if len(columns) < 2:
        # One space between the columns: only a cue in the last one can be told.
        cue = field.cue.last(columns[0]) if columns and field.cue is not None else None
        return 0 if cue is not None and all(w in _MARK_WORDS | {"amount", "amt"} for w in cue.split()) else None
    for right, column in enumerate(reversed(columns)):
        if (
            field.cue is not None
            and field.cue.in_spaced(column)
            and not (field.avoid and field.avoid.in_spaced(column))
        ):
            return right
    return None


_MARK_WORDS = frozenset(mark.strip(".$").lower() for mark in normalize.CURRENCY if mark.strip(".$").isalpha())


def _own_line(field: FieldPlan, index: DocumentIndex, i: int, read: str, fixes: dict[str, str]) -> list[Number]:
    """The amounts of line i that its cue speaks for: each amount belongs to the words since the amount before it."""
    line = index.lines[i]
    cue, avoid = field.cue, field.avoid
    assert cue is not None
    if len(line.money) == 1:
        if avoid is None or not avoid.in_spaced(read):
            return list(line.money)
        # Of several columns the last one with words counts: QTY: 1  TOTAL: 11.60.
        columns = [part for part in _COLUMNS.split(index.text[line.start : line.money[0].start]) if part]
        labels = [respaced(f" {' '.join(normalize.words(part))} ", fixes) for part in columns]
        last = next((part for part in reversed(labels) if any(c.isalpha() for c in part)), "")
        return list(line.money) if cue.in_spaced(last) and not avoid.in_spaced(last) and len(labels) > 1 else []
    chosen: list[Number] = []
    at, label_is_ours, said = line.start, False, False
    for number in line.money:
        spaced = respaced(f" {' '.join(normalize.words(index.text[at : number.start]))} ", fixes)
        if any(c.isalpha() for c in spaced) and not set(spaced.split()) <= _MARK_WORDS:
            label_is_ours = cue.in_spaced(spaced) and not (avoid is not None and avoid.in_spaced(spaced))
            said = said or cue.in_spaced(spaced)
        if label_is_ours:
            # Of several amounts behind one label the last one counts (base, then tax).
            if chosen and chosen[-1].end >= at - 1 and not any(c.isalpha() for c in spaced):
                chosen.pop()
            chosen.append(number)
        at = number.end
    if not said and not (avoid is not None and avoid.in_spaced(read)):
        chosen.append(line.money[-1])  # the cue stands behind the amounts
    return chosen


def amounts(field: FieldPlan, plan: Plan, index: DocumentIndex) -> Evidence:
    values = dict(_elsewhere(index, field.unsigned))
    fold: Callable[[Decimal], Decimal] = abs if field.unsigned else lambda value: value
    labelled = _labelled(field, plan, index) if field.cue is not None else []
    # A number below its label is weaker evidence than one beside it.
    beside = [number for number, own in labelled if own]
    chosen = beside if beside and field.spec.last else [number for number, _ in labelled]
    if field.spec.at_rate:
        chosen = [number for number in chosen if not number.value or not _at_rate_0(index, number)]
    last: Decimal | None = None
    if field.spec.last and chosen:
        first = chosen[0].line
        stops = field.stop.lines(index.lines) if field.stop is not None else []
        stop = next((i for i in stops if i > first), len(index.lines))
        last = [n for n in chosen if n.line < stop or n.line == first][-1].value
        adjusted = _adjusted(field, plan, index, chosen)
        if adjusted is not None:
            chosen = [*chosen, adjusted]
            last = adjusted.value
    # Where rounding is printed too, a half-read table would close on the sum before it.
    corrected = 0.5 if field.spec.adjusted_by is None else 0.2
    for number in chosen:
        span = (number.start, number.end)
        if last is not None and number.value != last:
            put(values, fold(number.value), Support(corrected, span, "beside its label, but a later line corrects it"))
        else:
            put(values, fold(number.value), Support(1.0, span, BESIDE))
    for number in _paid(field, index) if field.spec.last and field.stop is not None else ():
        put(values, fold(number.value), Support(1.0, (number.start, number.end), "what was paid less the change"))
    if not chosen and field.spec.expected == "always":
        for number in _unlabelled(field, index):
            put(
                values,
                fold(number.value),
                Support(1.0, (number.start, number.end), UNLABELLED),
            )
    rows = _rows(plan, index)
    # A word of an item's name (SERVICE 70%) is no sign of a service charge.
    expected = (
        bool(index.money) if field.spec.expected == "always" else any(n.value and n.line not in rows for n in chosen)
    )
    return Evidence(values, expected)


_RATE_0 = re.compile(r"(?<![\d.,'])(?<![\d.,'] )0+(?:[.,]0+)?\s*[%％][\s:;=|)\](,.*@]*$")
_RATE_SIZE = 24  # characters that a rate and the marks behind it take


def _at_rate_0(index: DocumentIndex, number: Number) -> bool:
    """Whether an amount stands right behind a rate of nothing, so that it is what the rate is of: GST 0% 8.20."""
    line_start = index.lines[number.line].start
    return _RATE_0.search(index.text, max(line_start, number.start - _RATE_SIZE), number.start) is not None


def _rows(plan: Plan, index: DocumentIndex) -> frozenset[int]:
    """The lines that are rows of a table."""
    return frozenset(i for row_plan in plan.rows.values() for i in known_zone(row_plan, index).open_)


def _unlabelled(field: FieldPlan, index: DocumentIndex) -> Sequence[Number]:
    """Where no amount stands at a label of its own: those on lines that speak of the field. Else a subtotal that is
    the last amount before the payment; else all but those on lines that speak of something else; else all."""

    def on(listed: Phrases | None) -> frozenset[int]:
        return frozenset(listed.lines(index.lines) if listed is not None else ())

    cued, halted, avoided = on(field.cue), on(field.stop), on(field.avoid)
    following = {a: b for a, b in pairwise(dict.fromkeys(number.line for number in index.money)) if b in halted}
    tiers: tuple[Callable[[int], bool], ...] = (
        lambda line: line in cued and line not in halted and line not in avoided,
        lambda line: line in cued and line not in halted and line in following,
        lambda line: line not in halted and (line not in avoided or line in following),
        lambda line: line not in halted,
    )
    for holds in tiers:
        found = [number for number in index.money if holds(number.line)]
        if found:
            return found
    return index.money


def _paid(field: FieldPlan, index: DocumentIndex) -> list[Number]:
    """Amounts that are what was given less what came back (CASH 50.00, CHANGE 20.20), and printed apart from these."""
    assert field.stop is not None
    lines: list[int] = []
    for i in field.stop.lines(index.lines):
        # The amount may stand below its label, without words of its own.
        lines += [i] if index.lines[i].money else [i + 1] if _bare(index, i + 1) else []
    lines = lines[:MAX_TILL]
    if len(lines) < 2:
        return []
    given = [index.lines[i].money[-1].value for i in lines]
    closes = {a - b for k, a in enumerate(given) for b in given[k + 1 :] if a > b >= 0}
    return [n for n in index.money if n.value in closes and n.line < lines[0]]


MAX_TILL = 6  # lines of a payment


def _bare(index: DocumentIndex, i: int) -> bool:
    """Whether a line holds an amount and no words but marks."""
    if i >= len(index.lines) or not index.lines[i].money:
        return False
    return not any(word.isalpha() and word not in _MARK_WORDS for word in index.lines[i].words)


def _elsewhere(index: DocumentIndex, unsigned: bool) -> dict[Any, Support]:
    """Every printed amount, as the weakest support; cached for all the fields."""
    found: dict[Any, Support] | None = index.cache.get(("elsewhere", unsigned))
    if found is None:
        found = {}
        for number in index.money:
            key = abs(number.value) if unsigned else number.value
            if key not in found:
                found[key] = Support(ELSEWHERE, (number.start, number.end), "printed, but not as this")
        index.cache[("elsewhere", unsigned)] = found
    return found


def _adjusted(field: FieldPlan, plan: Plan, index: DocumentIndex, chosen: list[Number]) -> Number | None:
    """The amount that a printed adjustment (rounding) makes of a labelled one, where it is printed too."""
    if field.spec.adjusted_by is None:
        return None
    path = field.spec.adjusted_by
    proof: Evidence | None = index.cache.get(path)
    if proof is None:
        proof = index.cache[path] = amounts(plan.scalars[path], plan, index)
    steps = [value for value, support in proof.values.items() if support.points == 1.0]
    labelled = {number.value for number in chosen}
    for step in steps:
        before = next((value for value in labelled if abs(value) > abs(step) and value + step not in labelled), None)
        if step and before is not None and not any(value - step in labelled for value in labelled if value != step):
            for number in index.money:
                if number.value == before + step:
                    return number
    return None
