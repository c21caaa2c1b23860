"""Grounding of the fields outside arrays: each value must be printed, as what it is, where such a value stands.

The evidence of a field is worked out once a document: every value that the source could justify, its points and its span.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from rapidfuzz import fuzz, process

from rewards import normalize
from rewards.dates import DateMention, find_dates, iso
from rewards.document import DocumentIndex, Number
from rewards.misread import long_words, respaced, short_words
from rewards.plan import FieldPlan, Plan
from rewards.rows import known_zone


class Support(NamedTuple):
    """What the source says for one value: points in [0, 1], the span, why."""

    points: float
    span: tuple[int, int] | None
    why: str


class Evidence(NamedTuple):
    """What the source says about one field: supports by canonical value, and whether null is an abstention."""

    values: dict[Any, Support]
    expected: bool


NOT_PRINTED = Support(0.0, None, "not printed in the document")
TOP = 2  # lines that may be a name, from the top, that are believed
ELSEWHERE = 0.1  # a printed value in the wrong place: below an abstention, above an invention


def _put(values: dict[Any, Support], key: Any, support: Support) -> None:
    if key not in values or values[key].points < support.points:
        values[key] = support


# --- text near the top: a vendor's name -------------------------------------------------------------------------------

_SEGMENTS = re.compile(r"\s{2,}|\s*[|\t]\s*")
# What may follow a name on its line: a registration number, with or without its label and brackets.
_REGISTRATION = re.compile(
    r"\s*(?:\(\s*)?(?:\b(?:co|company|reg|registration|roc|brn|ssm|gst|id|no|nr|uen|abn|fka)\b[\s.:/(]*){0,6}[A-Z]{0,3}\d{4,}.*",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_POSTCODE = re.compile(r"\b\d{5,6}\b")
_DIGITS = re.compile(r"\d\D?\d\D?\d")
_LABEL = re.compile(r"^(?:[^:]{2,20}:\s*|#?\d{4,}\s+)")


class _Name(NamedTuple):
    """One reading of a line as a name: its letters and digits, whether it has a company form, whether it may be one."""

    key: str
    formed: bool
    soft: bool


def _variants(row: str) -> list[tuple[str, bool]]:
    """The row as a name, and whether a label was cut off: whole, in its columns, without a label or a code before it or
    a registration number behind it."""
    found = [(row, False)]
    columns = [part for part in _SEGMENTS.split(row) if part]
    found += [(part, False) for part in columns] if len(columns) > 1 else []
    found += [(stripped, True) for part, _ in list(found) if (stripped := _LABEL.sub("", part)) != part]
    for part, labelled in list(found):
        if _DIGITS.search(part) is None:
            continue
        at = part.find("(")
        while at > 0:  # "(M)" is part of a name, "(139386 X)" is not
            if len(_DIGIT.findall(part[at:].partition(")")[0])) >= 3:
                found.append((part[:at], labelled))
                break
            at = part.find("(", at + 1)
        for match in re.finditer(r"\s", part):
            if _REGISTRATION.fullmatch(part, match.start()):
                found.append((part[: match.start()], labelled))
                break
    return found


def _readings(field: FieldPlan, row: str, spaced_row: str) -> list[_Name]:
    found = []
    soft_row = field.avoid is not None and field.avoid.in_spaced(spaced_row)
    for text, labelled in _variants(row):
        spaced = f" {' '.join(normalize.words(text))} "
        formed = field.prefer is not None and field.prefer.in_spaced(spaced)
        soft = soft_row if labelled else field.avoid is not None and field.avoid.in_spaced(spaced)
        soft |= text.rstrip()[-1:] == "," or _POSTCODE.search(text) is not None
        found.append(_Name(spaced.replace(" ", ""), formed, soft))
    return found


def _top_text(field: FieldPlan, index: DocumentIndex) -> Evidence:
    spec = field.spec
    rows = index.lines[: spec.top]
    names = [_readings(field, index.text[line.start : line.end].strip(), line.spaced) for line in rows]
    blocked = [False] * len(rows)
    for i, line in enumerate(rows):
        if field.other is not None and field.other.in_spaced(line.spaced):
            blocked[i] = True
            # A label of its own (BILL TO:) speaks for the next line; CUSTOMER COPY does not.
            if field.other.fills(line.spaced) and i + 1 < len(rows):
                blocked[i + 1] = True
    # FROM: on the line before.
    cued = [i > 0 and field.cue is not None and field.cue.fills(rows[i - 1].spaced) for i in range(len(rows))]
    formed = [any(n.formed for n in row) and not block for row, block in zip(names, blocked, strict=True)]
    good = [any(_wordy(n.key) and not n.soft for n in row) and not b for row, b in zip(names, blocked, strict=True)]
    # A company form on a line without "owned by" and the like settles where the name is.
    settled = any(any(n.formed and not n.soft for n in names[i]) and not blocked[i] for i in range(len(rows)))
    rank = 0
    values: dict[Any, Support] = {}
    for i, line in enumerate(rows):
        if blocked[i] or not line.words:
            continue
        fragment = line.words[0] == "co" or (field.prefer is not None and field.prefer.starts(line.spaced))
        span = (line.start, line.end)
        for name in names[i]:
            if fragment and formed[i]:
                support = Support(0.3, span, "the end of a name that starts on the line before")
            elif name.formed:
                support = Support(1.0, span, "the company's name near the top")
            elif cued[i] and not name.soft:
                support = Support(1.0, span, "the name behind its label")
            elif formed[i]:
                support = Support(0.3, span, "a part of the name")
            elif name.soft or not _wordy(name.key):
                support = Support(ELSEWHERE, span, "printed, but in an address, a label or a number")
            elif settled:
                support = Support(0.3, span, "printed near the top, but another line names the company")
            elif rank < TOP:
                support = Support(1.0, span, "a name near the top")
            else:
                support = Support(0.3, span, "printed, but not near the top")
            _put(values, name.key, support)
        rank += good[i]
        # A name over two to four lines.
        joined = names[i][0].key
        for j in range(i + 1, min(i + 4, len(rows))):
            if blocked[j] or not rows[j].words:
                break
            early = any(formed[i:j])
            number = len(names[i][0].key) <= 3 and names[i][0].key.isdigit()  # 101 / EM STATION
            for name in names[j]:
                whole = name.formed or early if settled else rank <= TOP and all(good[i + number : j + 1])
                whole |= cued[i] and all(good[i + number : j + 1])
                fit = 1.0 if whole else ELSEWHERE
                if early and not name.formed:
                    fit = min(fit, 0.3)
                _put(values, joined + name.key, Support(fit, (line.start, rows[j].end), "a name over lines"))
            joined += names[j][0].key
    values.pop("", None)
    return Evidence(values, True)


def _wordy(key: str) -> bool:
    digits = len(_DIGIT.findall(key))
    letters = len(key) - digits
    return letters >= 2 and letters * 2 > digits


def _near(key: str, evidence: Evidence, whole: str) -> Support:
    """A text that is not printed as such: partial points for likeness to the best supported values."""
    best = [k for k, support in evidence.values.items() if support.points >= 0.9]
    found = process.extractOne(key, best, scorer=fuzz.ratio) if best else None
    likeness = found[1] / 100 if found else 0.0
    points = 0.6 * max(0.0, (likeness - 0.5) / 0.5)
    if found and points > ELSEWHERE:
        return Support(points, evidence.values[found[0]].span, "like the printed name, but not the same")
    if len(key) > 2 and key in whole:
        return Support(ELSEWHERE, None, "printed, but not where a name stands")
    return Support(points, None, NOT_PRINTED.why)


# --- dates -------------------------------------------------------------------------------------------------------------


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
            for m in (listed.pattern.search(line.spaced) for line in index.lines)
        )
        if wordy or index.marks & marks:
            votes.add(order)
    return votes.pop() if len(votes) == 1 else None


def _dates(field: FieldPlan, index: DocumentIndex) -> Evidence:
    mentions = find_dates(index.text, field.spec.formats or ())
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
            _put(values, day, Support(points, (mention.start, mention.end), why))
    best = max((s.points for s in values.values()), default=1.0)
    if best < 1.0:  # nothing better is printed
        values = {day: s._replace(points=1.0) if s.points == best else s for day, s in values.items()}
    return Evidence(values, bool(values))


# --- money and numbers -------------------------------------------------------------------------------------------------


def _reread(plan: Plan, index: DocumentIndex) -> tuple[list[str], dict[str, str]]:
    """Every line's folded words with misread label words put right, and the corrections; cached."""
    found: tuple[list[str], dict[str, str]] | None = index.cache.get("reread")
    if found is None:
        rows = frozenset(i for row_plan in plan.rows.values() for i in known_zone(row_plan, index).open_)
        long, short = long_words(plan, index), short_words(plan, index, rows)
        both = {**short, **long}
        lines = [respaced(line.spaced, long if i in rows else both) for i, line in enumerate(index.lines)]
        found = index.cache["reread"] = lines, both
    return found


def _labelled(field: FieldPlan, plan: Plan, index: DocumentIndex) -> list[tuple[Number, bool]]:
    """Amounts that stand behind, before or below a cue, in order of place; and whether the cue is on their own line."""
    cue, avoid = field.cue, field.avoid
    assert cue is not None
    read, fixes = _reread(plan, index)
    found: list[tuple[Number, bool]] = []
    for i, line in enumerate(index.lines):
        if not cue.in_spaced(read[i]):
            continue
        if line.money:
            found += [(number, True) for number in _own_line(field, index, i, read[i], fixes)]
            continue
        if not plan.table_words.isdisjoint(line.words):
            continue
        column = _column(field, index.text[line.start : line.end])
        if column is None and avoid is not None and avoid.in_spaced(read[i]):
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


def _money(field: FieldPlan, plan: Plan, index: DocumentIndex) -> Evidence:
    values: dict[Any, Support] = {}
    fold: Callable[[Decimal], Decimal] = abs if field.unsigned else lambda value: value
    labelled = _labelled(field, plan, index) if field.cue is not None else []
    # A number below its label is weaker evidence than one beside it.
    beside = [number for number, own in labelled if own]
    chosen = beside if beside and field.spec.last else [number for number, _ in labelled]
    last: Decimal | None = None
    if field.spec.last and chosen:
        first = chosen[0].line
        stops = (
            i for i, row in enumerate(index.lines) if i > first and field.stop and field.stop.in_spaced(row.spaced)
        )
        stop = next(stops, len(index.lines))
        last = [n for n in chosen if n.line < stop or n.line == first][-1].value
        adjusted = _adjusted(field, plan, index, chosen)
        if adjusted is not None:
            chosen = [*chosen, adjusted]
            last = adjusted.value
    for number in chosen:
        span = (number.start, number.end)
        if last is not None and number.value != last:
            _put(values, fold(number.value), Support(0.5, span, "beside its label, but a later line corrects it"))
        else:
            _put(values, fold(number.value), Support(1.0, span, "printed beside its label"))
    if not chosen and field.spec.expected == "always":
        lines = [row.spaced for row in index.lines]
        halted = [field.stop is not None and field.stop.in_spaced(row) for row in lines]
        cued = [
            field.cue is not None and field.cue.in_spaced(row) and not halt
            for row, halt in zip(lines, halted, strict=True)
        ]
        rest = [n for n in index.money if cued[n.line]] or [n for n in index.money if not halted[n.line]]
        for number in rest or index.money:
            _put(
                values,
                fold(number.value),
                Support(1.0, (number.start, number.end), "printed, and no amount is labelled so"),
            )
    for number in index.money:
        _put(values, fold(number.value), Support(ELSEWHERE, (number.start, number.end), "printed, but not as this"))
    rows = frozenset(i for row_plan in plan.rows.values() for i in known_zone(row_plan, index).open_)
    # A word of an item's name (SERVICE 70%) is no sign of a service charge.
    expected = (
        bool(index.money) if field.spec.expected == "always" else any(n.value and n.line not in rows for n in chosen)
    )
    return Evidence(values, expected)


def _adjusted(field: FieldPlan, plan: Plan, index: DocumentIndex, chosen: list[Number]) -> Number | None:
    """The amount that a printed adjustment (rounding) makes of a labelled one, where it is printed too."""
    if field.spec.adjusted_by is None:
        return None
    steps = [
        value
        for value, s in evidence(plan.scalars[field.spec.adjusted_by], plan, index).values.items()
        if s.points == 1.0
    ]
    labelled = {number.value for number in chosen}
    for step in steps:
        before = next((value for value in labelled if abs(value) > abs(step) and value + step not in labelled), None)
        if step and before is not None and not any(value - step in labelled for value in labelled if value != step):
            for number in index.money:
                if number.value == before + step:
                    return number
    return None


# --- codes and classes -------------------------------------------------------------------------------------------------

_CODE = re.compile(r"[^\s,;:()|#]+(?: ?[-/] ?[^\s,;:()|#]+)*")


def _codes(field: FieldPlan, index: DocumentIndex) -> Evidence:
    values: dict[Any, Support] = {}
    expected = False
    fresh = 0  # lines since a label without a code
    for line in index.lines:
        labelled = field.cue is not None and field.cue.in_spaced(line.spaced)
        row = index.text[line.start : line.end]
        marked = field.cue is not None and any(mark in row for mark in field.cue.marks)
        fresh = 2 if labelled or marked else fresh - 1
        for match in _CODE.finditer(row):
            text = match.group().strip(".")
            if not any(c.isdigit() for c in text):
                continue
            span = (line.start + match.start(), line.start + match.end())
            good = fresh > 0 or field.cue is None
            expected |= good
            _put(
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
        for line in index.lines:
            match = listed.pattern.search(line.spaced) if listed.pattern else None
            if match:
                exact = match.group().strip() == value.lower()
                _put(
                    values,
                    value,
                    Support(1.0, (line.start, line.end), "its code is printed" if exact else "its word is printed"),
                )
        marked = index.marks & raw
        if marked:
            number = next(n for n in index.numbers if n.mark in marked)
            _put(values, value, Support(1.0, (number.start, number.end), "its mark is printed"))
    named = {v for v, s in values.items() if s.why == "its code is printed"}
    if named:  # a code printed in full settles what a bare $ leaves open
        values = {v: s if v in named else s._replace(points=ELSEWHERE) for v, s in values.items()}
    return Evidence(values, bool(values))


# --- one entry ---------------------------------------------------------------------------------------------------------


def evidence(field: FieldPlan, plan: Plan, index: DocumentIndex) -> Evidence:
    """The evidence for one scalar field in one document; cached in the index."""
    found: Evidence | None = index.cache.get(field.path)
    if found is None:
        kind = field.spec.kind
        if kind == "date":
            found = _dates(field, index)
        elif kind in ("money", "number"):
            found = _money(field, plan, index)
        elif kind == "code":
            found = _codes(field, index)
        elif kind == "class":
            found = _classes(field, index)
        else:
            found = _top_text(field, index)
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
            found = _near(wanted, proof, _squeezed(index))
    index.cache[key] = found
    return found


def _squeezed(index: DocumentIndex) -> str:
    """The whole text's letters and digits."""
    found = index.cache.get("squeezed")
    if found is None:
        found = index.cache["squeezed"] = "".join(word for line in index.lines for word in line.words)
    return str(found)
