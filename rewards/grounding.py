"""Grounding of the fields outside arrays: each value must be printed, as what it is, where such a value stands.

The evidence of a field is worked out once a document: every value that the source could justify, its points, its span.
"""

from __future__ import annotations

import re
from typing import Any

from rewards import normalize
from rewards.amounts import amounts
from rewards.dates import DateMention, iso
from rewards.document import DocumentIndex
from rewards.names import near, top_text
from rewards.plan import FieldPlan, Plan
from rewards.support import ELSEWHERE, NOT_PRINTED, Evidence, Support, put


def _order(field: FieldPlan, index: DocumentIndex, mentions: list[DateMention]) -> str | None:
    """ "mdy" or "dmy" where the document settles it, else None."""
    only = {m.readings[0][0] for m in mentions if len(m.readings) == 1} & {"dmy", "mdy"}
    if len(only) == 1:
        return only.pop()
    votes = set()
    for order, listed, raw in (
        ("dmy", field.day_first, field.spec.day_first),
        ("mdy", field.month_first, field.spec.month_first),
    ):
        if listed is None:
            continue
        marks = {mark.upper() for mark in raw or ()}
        wordy = listed.pattern is not None and any(
            m and m.group().strip().upper() not in normalize.CURRENCY
            for m in (listed.pattern.search(index.lines[i].spaced) for i in listed.lines(index.lines))
        )
        if wordy or index.marks & marks:
            votes.add(order)
    return votes.pop() if len(votes) == 1 else None


def _dates(field: FieldPlan, index: DocumentIndex) -> Evidence:
    mentions = index.dates(field.spec.formats or ())
    order = _order(field, index, mentions)
    values: dict[Any, Support] = {}
    before = -1
    for mention in mentions:
        line_start = index.text.rfind("\n", 0, mention.start) + 1
        same_line = before >= line_start
        label = (
            f" {' '.join(normalize.words(index.text[max(line_start, before if same_line else 0) : mention.start]))} "
        )
        points, why = 1.0, "a printed date"
        if field.avoid is not None and field.avoid.in_spaced(label):
            points, why = ELSEWHERE, "the date of something else"
        elif same_line and label.strip() == "":
            points, why = 0.3, "the second date of its line"
        before = mention.end
        ambiguous = len({day for _, day in mention.readings}) > 1
        for form, day in mention.readings:
            if ambiguous and order and form in ("dmy", "mdy") and form != order:
                continue
            put(values, day, Support(points, (mention.start, mention.end), why))
    best = max((s.points for s in values.values()), default=1.0)
    if best < 1.0:  # nothing better is printed
        values = {day: s._replace(points=1.0) if s.points == best else s for day, s in values.items()}
    return Evidence(values, bool(values))


_CODE = re.compile(r"[^\s,;:()|#]+(?: ?[-/] ?[^\s,;:()|#]+)*")


def _codes(field: FieldPlan, index: DocumentIndex) -> Evidence:
    values: dict[Any, Support] = {}
    expected = False
    fresh = 0  # lines since a label without a code
    for line in index.lines:
        labelled = field.cue is not None and field.cue.in_spaced(line.spaced)
        row = index.text[line.start : line.end]
        marked = field.cue is not None and any(mark in row for mark in field.cue.marks)
        other = field.avoid is not None and field.avoid.in_spaced(line.spaced)
        fresh = 0 if other else 2 if labelled or marked else fresh - 1
        for match in _CODE.finditer(row):
            text = match.group().strip(".")
            if not any(c.isdigit() for c in text):
                continue
            span = (line.start + match.start(), line.start + match.end())
            good = fresh > 0 or field.cue is None
            expected |= good
            put(
                values,
                normalize.plain(text),
                Support(
                    1.0 if good else ELSEWHERE,
                    span,
                    "printed beside its label" if good else "printed, but not beside its label",
                ),
            )
    return Evidence(values, expected or field.spec.expected == "always")


def _classes(field: FieldPlan, index: DocumentIndex) -> Evidence:
    values: dict[Any, Support] = {}
    for value, listed in field.words.items():
        raw = {word.upper() for word in (field.spec.words or {})[value]}
        for i in listed.lines(index.lines):
            line = index.lines[i]
            match = listed.pattern.search(line.spaced) if listed.pattern else None
            if match:
                exact = match.group().strip() == value.lower()
                put(
                    values,
                    value,
                    Support(1.0, (line.start, line.end), "its code is printed" if exact else "its word is printed"),
                )
        marked = index.marks & raw
        if marked:
            number = next(n for n in index.numbers if n.mark in marked)
            put(values, value, Support(1.0, (number.start, number.end), "its mark is printed"))
    named = {v for v, s in values.items() if s.why == "its code is printed"}
    if named:  # a code printed in full settles what a bare $ leaves open
        values = {v: s if v in named else s._replace(points=ELSEWHERE) for v, s in values.items()}
    return Evidence(values, bool(values))


def evidence(field: FieldPlan, plan: Plan, index: DocumentIndex) -> Evidence:
    """The evidence for one scalar field in one document; cached in the index."""
    found: Evidence | None = index.cache.get(field.path)
    if found is None:
        kind = field.spec.kind
        if kind == "date":
            found = _dates(field, index)
        elif kind in ("money", "number"):
            found = amounts(field, plan, index)
        elif kind == "code":
            found = _codes(field, index)
        elif kind == "class":
            found = _classes(field, index)
        else:
            found = top_text(field, index)
        index.cache[field.path] = found
    return found


def canonical(kind: str, value: Any) -> Any:
    """The key under which a value's evidence is kept; None for a value that its kind cannot have."""
    if kind in ("money", "number"):
        return normalize.amount(value)
    if kind == "date":
        return iso(value)
    if not isinstance(value, str):
        return None
    if kind == "text":
        return normalize.letters_digits(value)
    return value if kind == "class" else normalize.plain(value)


def ground(field: FieldPlan, plan: Plan, index: DocumentIndex, value: Any) -> Support | None:
    """Support for a value that is not null; None where the field cannot be grounded in this document."""
    key = (field.path, value if isinstance(value, str) else repr(value))
    found: Support | None = index.cache.get(key)
    if found is not None:
        return found
    kind = field.spec.kind
    proof = evidence(field, plan, index)
    wanted = canonical(kind, value)
    if kind == "class" and not proof.values:
        return None
    found = proof.values.get(wanted) if wanted not in (None, "") else None
    if found is None:
        found = NOT_PRINTED
        if kind == "text" and wanted:
            found = near(wanted, proof, _squeezed(index))
    index.cache[key] = found
    return found


def _squeezed(index: DocumentIndex) -> str:
    """The whole text's letters and digits."""
    found = index.cache.get("squeezed")
    if found is None:
        found = index.cache["squeezed"] = "".join(word for line in index.lines for word in line.words)
    return str(found)
