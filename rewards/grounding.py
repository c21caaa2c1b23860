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
from rewards.plan import FieldPlan, Plan


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
ELSEWHERE = 0.1  # a printed value in the wrong place: below an abstention, above an invention


def _put(values: dict[Any, Support], key: Any, support: Support) -> None:
    if key not in values or values[key].points < support.points:
        values[key] = support


# --- text near the top: a vendor's name -------------------------------------------------------------------------------

_SEGMENTS = re.compile(r"\s{2,}|\s*[|\t]\s*")
# What may follow a name on its line: a registration number, with or without its label and brackets.
_REGISTRATION = re.compile(
    r"\s*(?:\(\s*)?(?:\b(?:co|company|reg|registration|roc|brn|ssm|gst|id|no|nr|uen|abn|fka)\b[\s.:/(]*){0,6}[A-Z]{0,3}\d.*",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d\D?\d\D?\d")
_LABEL = re.compile(r"^(?:[^:]{2,20}:\s*|#?\d{4,}\s+)")


def _names(row: str) -> list[str]:
    """The row as a name: whole, in its columns, without a label or a code before it or a registration number behind it."""
    found = [row]
    columns = [part for part in _SEGMENTS.split(row) if part]
    found += columns if len(columns) > 1 else []
    found += [stripped for part in list(found) if (stripped := _LABEL.sub("", part)) != part]
    for part in list(found):
        match = _DIGITS.search(part)
        if match is None:
            continue
        at = part.find("(")
        while at > 0:  # "(M)" is part of a name, "(139386 X)" is not
            if sum(c.isdigit() for c in part[at:].split(")")[0]) >= 3:
                found.append(part[:at])
                break
            at = part.find("(", at + 1)
        for match in re.finditer(r"\s", part):
            tail = part[match.start() :]
            if _REGISTRATION.fullmatch(tail) and sum(c.isdigit() for c in tail) >= 4:
                found.append(part[: match.start()])
                break
    return found


def _top_text(field: FieldPlan, index: DocumentIndex) -> Evidence:
    spec = field.spec
    rows = index.lines[: spec.top]
    texts = [index.text[line.start : line.end].strip() for line in rows]
    blocked = [False] * len(rows)
    good = [False] * len(rows)
    formed = [False] * len(rows)
    for i, line in enumerate(rows):
        if field.other is not None and field.other.in_spaced(line.spaced):
            blocked[i] = True
            if len(line.words) <= 3 and i + 1 < len(rows):
                blocked[i + 1] = True
        soft = field.avoid is not None and field.avoid.in_spaced(line.spaced)
        formed[i] = not blocked[i] and field.prefer is not None and field.prefer.in_spaced(line.spaced)
        letters = sum(c.isalpha() for c in texts[i])
        good[i] = not blocked[i] and not soft and letters >= 2 and letters * 2 > sum(c.isdigit() for c in texts[i])
    spaced = [[f" {' '.join(normalize.words(name))} " for name in _names(text)] for text in texts]
    keys = [[name.replace(" ", "") for name in names] for names in spaced]
    forms = [[field.prefer is not None and field.prefer.in_spaced(name) for name in names] for names in spaced]
    # A company form on a line without "owned by" and the like settles where the name is.
    settled = any(f and g for f, g in zip(formed, good, strict=True))
    rank = 0
    values: dict[Any, Support] = {}
    for i, line in enumerate(rows):
        if blocked[i] or not line.words:
            continue
        if formed[i]:
            points, why = 1.0, "the company's name near the top"
        elif not good[i]:
            points, why = ELSEWHERE, "printed, but in an address, a label or a number"
        elif settled:
            points, why = 0.3, "printed near the top, but another line names the company"
        else:
            points, why = (1.0, "a name near the top") if rank < 3 else (0.3, "printed, but not near the top")
        if formed[i] and (line.words[0] == "co" or (field.prefer is not None and field.prefer.starts(line.spaced))):
            points, why = 0.3, "the end of a name that starts on the line before"
        rank += good[i]
        span = (line.start, line.end)
        for key, has_form in zip(keys[i], forms[i], strict=True):
            cut = 0.3 if formed[i] and not has_form else points
            _put(values, key, Support(cut, span, why if cut == points else "a part of the name"))
        # A name over two or three lines.
        joined = keys[i][0]
        for j in range(i + 1, min(i + 4, len(rows))):
            if blocked[j] or not rows[j].words:
                break
            whole = any(formed[i : j + 1]) if settled else all(good[i : j + 1]) and rank <= 3
            fit = 1.0 if whole else ELSEWHERE
            if any(formed[i:j]) and not formed[j]:
                fit = min(fit, 0.3)
            for key in keys[j]:
                _put(values, joined + key, Support(fit, (line.start, rows[j].end), "a name over lines"))
            joined += keys[j][0]
    values.pop("", None)
    return Evidence(values, True)


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


def _labelled(field: FieldPlan, index: DocumentIndex, table_words: frozenset[str]) -> list[tuple[Number, bool]]:
    """Amounts that stand behind, before or below a cue, in order of place; and whether the cue is on their own line."""
    cue, avoid = field.cue, field.avoid
    assert cue is not None
    found: list[tuple[Number, bool]] = []
    for i, line in enumerate(index.lines):
        if not cue.in_spaced(line.spaced):
            continue
        if line.money:
            found += [(number, True) for number in _own_line(field, index, i)]
            continue
        if not table_words.isdisjoint(line.words):
            continue
        column = _column(field, index.text[line.start : line.end])
        if column is None and avoid is not None and avoid.in_spaced(line.spaced):
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
            elif not labels and column is None:
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
        return None
    for right, column in enumerate(reversed(columns)):
        if (
            field.cue is not None
            and field.cue.in_spaced(column)
            and not (field.avoid and field.avoid.in_spaced(column))
        ):
            return right
    return None


_MARK_WORDS = frozenset(mark.strip(".$").lower() for mark in normalize.CURRENCY if mark.strip(".$").isalpha())


def _own_line(field: FieldPlan, index: DocumentIndex, i: int) -> list[Number]:
    """The amounts of line i that its cue speaks for: each amount belongs to the words since the amount before it."""
    line = index.lines[i]
    cue, avoid = field.cue, field.avoid
    assert cue is not None
    if len(line.money) == 1:
        if avoid is None or not avoid.in_spaced(line.spaced):
            return list(line.money)
        # Of several columns the last one with words counts: QTY: 1  TOTAL: 11.60.
        columns = [part for part in _COLUMNS.split(index.text[line.start : line.money[0].start]) if part]
        labels = [f" {' '.join(normalize.words(part))} " for part in columns]
        last = next((part for part in reversed(labels) if any(c.isalpha() for c in part)), "")
        return list(line.money) if cue.in_spaced(last) and not avoid.in_spaced(last) and len(labels) > 1 else []
    chosen: list[Number] = []
    at, label_is_ours, said = line.start, False, False
    for number in line.money:
        spaced = f" {' '.join(normalize.words(index.text[at : number.start]))} "
        if any(c.isalpha() for c in spaced) and not set(spaced.split()) <= _MARK_WORDS:
            label_is_ours = cue.in_spaced(spaced) and not (avoid is not None and avoid.in_spaced(spaced))
            said = said or cue.in_spaced(spaced)
        if label_is_ours:
            # Of several amounts behind one label the last one counts (base, then tax).
            if chosen and chosen[-1].end >= at - 1 and not any(c.isalpha() for c in spaced):
                chosen.pop()
            chosen.append(number)
        at = number.end
    if not said and not (avoid is not None and avoid.in_spaced(line.spaced)):
        chosen.append(line.money[-1])  # the cue stands behind the amounts
    return chosen


def _money(field: FieldPlan, plan: Plan, index: DocumentIndex) -> Evidence:
    values: dict[Any, Support] = {}
    fold: Callable[[Decimal], Decimal] = abs if field.unsigned else lambda value: value
    labelled = _labelled(field, index, plan.table_words) if field.cue is not None else []
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
    expected = bool(index.money) if field.spec.expected == "always" else any(n.value for n in chosen)
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
