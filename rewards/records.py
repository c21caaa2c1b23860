"""Records: groups of labelled numbers, such as the votes for, against and abstaining on each proposal.

Three prints are read: a heading of labels over lines of numbers, a label before each number ("For: 1,204"), and a label
behind each number ("1,204 votes for"). A row of an attempt is grounded when a record of its own has its numbers under
its labels and its name on the record's line or in the text above it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from rewards import normalize
from rewards.dates import find_dates
from rewards.document import DocumentIndex
from rewards.plan import RecordPlan
from rewards.score import Finding
from rewards.support import ELSEWHERE

MAX_RECORDS = 400
CONTEXT = 1_500  # characters above a record that can name it
STEM = 5  # characters of a word that are compared: ratified, ratification


class Entry(NamedTuple):
    """One labelled number of a record: the leaves that it can be, its value (None: a dash, "N/A") and its span."""

    leaves: tuple[str, ...]
    value: Decimal | None
    span: tuple[int, int]


class Record(NamedTuple):
    """A printed record: its entries, its span, the stems of the words on its own line and of those above it."""

    entries: tuple[Entry, ...]
    span: tuple[int, int]
    own: frozenset[str]
    above: frozenset[str]


class _Token(NamedTuple):
    """A label (its leaves), or a number (value None: a dash)."""

    start: int
    end: int
    line: int
    leaves: tuple[str, ...]
    value: Decimal | None
    label: bool


_DASH = re.compile(r"(?<!\S)(?:[-–—]{1,3}|\*|N/?A|NIL|NONE)(?!\S)", re.IGNORECASE)
_MARKS = r"[\s:;,.=\"'“”‘’()|*•-]*"
_FILLER = re.compile(
    _MARKS + r"(?:(?:the|number|of|shares?|votes?|voted|cast|were|was)" + _MARKS + "){0,5}", re.IGNORECASE
)
_HEADING = frozenset(
    "shares share votes vote number of cast broker total percent percentage nominee name director".split()
)
_WORD = re.compile(r"[^\W\d_]{2,}")
# Words that say nothing about which proposal is meant.
_EMPTY = frozenset(
    "the and for with that this from have been were was are its our their his her not any all each such other"
    " votes vote voted voting shares share proposal proposals item matter results result".split()
)


def stems(text: str) -> frozenset[str]:
    """The beginnings of a text's content words, folded."""
    return frozenset(word[:STEM] for word in normalize.words(text) if len(word) > 2 and word not in _EMPTY)


def _tokens(plan: RecordPlan, index: DocumentIndex) -> list[_Token]:
    """Labels and numbers, in order of place."""
    found: list[_Token] = []
    text = index.text
    if plan.labels is None:
        return []
    dates = {(m.start, m.end) for m in find_dates(text, ("d_mon_y", "mon_d_y", "mdy", "dmy"))}
    for match in plan.labels.finditer(text, 0, index.lines[-1].end if index.lines else 0):
        leaves = plan.leaves_of[" ".join(normalize.words(match.group()))]
        found.append(_Token(match.start(), match.end(), index.line_at(match.start()), leaves, None, True))
    for number in index.numbers:
        behind = text[number.end : number.end + 2].lstrip()[:1]
        if behind == "%" or (plan.whole and number.value != number.value.to_integral_value()):
            continue
        if any(low <= number.start < high for low, high in dates):
            continue
        found.append(_Token(number.start, number.end, number.line, (), number.value, False))
    for match in _DASH.finditer(text):
        found.append(_Token(match.start(), match.end(), index.line_at(match.start()), (), None, False))
    found.sort(key=lambda token: (token.start, -token.end))
    kept: list[_Token] = []
    for token in found:
        if kept and token.start < kept[-1].end:
            continue
        kept.append(token)
    return kept


def records(plan: RecordPlan, index: DocumentIndex) -> list[Record]:
    """Every printed record of a document; cached."""
    found: list[Record] | None = index.cache.get(("records", plan.array))
    if found is None:
        found = index.cache[("records", plan.array)] = _Reader(plan, index).read()
    return found


class _Reader:
    """Reads a document line by line; `header` holds the labels over the columns, `run` the numbers of a record that is
    printed one number a line, `partial` the labelled numbers of one that is printed with labels."""

    def __init__(self, plan: RecordPlan, index: DocumentIndex) -> None:
        self.plan = plan
        self.index = index
        self.header: list[tuple[str, ...]] = []
        self.heading = -9  # the header's last line
        self.fresh = False  # no record since the header
        self.run: list[_Token] = []
        self.partial: list[Entry] = []
        self.found: list[tuple[tuple[Entry, ...], tuple[int, int]]] = []
        self.section = 0  # the first record under the header

    def read(self) -> list[Record]:
        by_line: dict[int, list[_Token]] = {}
        tokens = _tokens(self.plan, self.index)
        paired = self._pairs(tokens)
        for token in tokens:
            by_line.setdefault(token.line, []).append(token)
        for i, line in enumerate(self.index.lines):
            here = by_line.get(i, [])
            numbers = [token for token in here if not token.label]
            labels = [token for token in here if token.label]
            entries = [paired[token.start] for token in numbers if token.start in paired]
            if entries and (len(entries) == len([t for t in numbers if t.value is not None]) or not self.header):
                self.run = []
                for entry in entries:
                    self._labelled(entry)
            elif labels and not any(token.value is not None for token in numbers):
                self._head(i, labels)
            elif any(token.value is not None for token in numbers) and self.header:
                self._columns(i, numbers)
            elif not line.words:
                continue
            if len(self.found) >= MAX_RECORDS:
                break
        self._flush()
        return self._named()

    def _pairs(self, tokens: Sequence[_Token]) -> dict[int, Entry]:
        """Numbers with a label of their own, before or behind them: start of the number -> Entry."""
        before: dict[int, Entry] = {}
        behind: dict[int, Entry] = {}
        text = self.index.text
        for first, second in pairwise(tokens):
            if first.label == second.label or second.line - first.line > 1 or not (first.leaves or second.leaves):
                continue
            gap = text[first.end : second.start]
            if len(gap) > 40 or _FILLER.fullmatch(gap) is None:
                continue
            if first.label:
                if "\n" not in gap:
                    before[second.start] = Entry(first.leaves, second.value, (second.start, second.end))
            elif "." not in gap:
                behind[first.start] = Entry(second.leaves, first.value, (first.start, first.end))
        result: dict[int, Entry] = {}
        # A number between two labels belongs to the side on which its neighbours' labels stand.
        previous: dict[int, Entry] | None = None
        last = -10
        for token in tokens:
            if token.label:
                continue
            sides = [side for side in (before, behind) if token.start in side]
            if not sides:
                continue
            near = previous is not None and token.line - last <= 2
            side = previous if near and previous in sides else sides[0]
            assert side is not None
            result[token.start] = side[token.start]
            previous, last = side, token.line
        return result

    def _labelled(self, entry: Entry) -> None:
        known = {leaves for leaves, _, _ in self.partial}
        far = bool(self.partial) and self.index.text.count("\n", self.partial[-1].span[1], entry.span[0]) > 6
        if entry.leaves in known or far:
            self._flush()
        self.partial.append(entry)

    def _flush(self) -> None:
        partial, self.partial = self.partial, []
        if len({leaves for leaves, value, _ in partial if value is not None}) >= 2:
            self._add(partial)
        elif len(partial) == 1 and partial[0].value is not None:
            # "There were 11,539,759 broker non-votes" below a table speaks for each of its lines.
            extra = partial[0]
            for k in range(self.section, len(self.found)):
                entries, span = self.found[k]
                if not any(set(entry.leaves) & set(extra.leaves) for entry in entries):
                    self.found[k] = ((*entries, extra), span)

    def _head(self, i: int, labels: Sequence[_Token]) -> None:
        line = self.index.lines[i]
        collapsed: list[tuple[str, ...]] = []
        for label in labels:
            if not collapsed or collapsed[-1] != label.leaves or not label.leaves:
                collapsed.append(label.leaves)
        named = [leaves for leaves in collapsed if leaves]
        if len(named) == len(set(named)) + 1 and named[-1] in named[:-1]:
            # The last column is the share of one of the others: % VOTES FOR.
            collapsed = collapsed[: len(collapsed) - 1 - collapsed[::-1].index(named.pop())]
        letters = sum(len(word) for word in line.words if word not in _HEADING)
        said = (w for t in labels for w in normalize.words(self.index.text[t.start : t.end]) if w not in _HEADING)
        share = sum(map(len, said)) / max(1, letters)
        goes_on = self.fresh and i - self.heading <= 2 and share > 0.5
        if len(named) >= 2 and share > 0.25:
            repeats = len(named) != len(set(named))
            both = [*self.header, *collapsed]
            if goes_on and not repeats and not set(named) & set(self.header):
                collapsed = both
            self._begin([] if repeats else collapsed, i)
        elif share > 0.5 and collapsed:
            if goes_on and not set(named) & set(self.header):
                self._begin([*self.header, *collapsed], i)
            elif not goes_on and named:
                self._begin(collapsed, i)

    def _begin(self, header: list[tuple[str, ...]], i: int) -> None:
        if not self.fresh:
            self._flush()
        self.header, self.heading, self.fresh, self.run = header, i, True, []
        self.section = len(self.found)

    def _columns(self, i: int, numbers: Sequence[_Token]) -> None:
        """A line of numbers under a header: its last numbers, after the last word."""
        count = len(self.header)
        end = self.index.lines[i].end
        run: list[_Token] = []
        for token in reversed(numbers):
            if _WORD.search(self.index.text, token.end, run[0].start if run else end):
                break
            run.insert(0, token)
        words = bool(run) and _WORD.search(self.index.text, self.index.lines[i].start, run[0].start) is not None
        if not run or (not any(token.value is not None for token in run)):
            return
        if (self.run and not words and len(self.run) + len(run) <= count) or (
            self.run and words and len(self.run) + len(run) == count
        ):
            run = [*self.run, *run]
        if len(run) > count:
            merged = [t for k, t in enumerate(run) if k == 0 or t.value is None or t.value != run[k - 1].value]
            run = merged if len(merged) == count else run[-count:]
        if len(run) < count and not words and len(run) <= 2 and count > 2:
            self.run = run  # one number a line: the rest stands below
            return
        self.run = []
        if len(run) < max(1, min(2, count), count - 2):
            return
        pairs = zip(self.header, run, strict=False)
        entries = [Entry(leaves, token.value, (token.start, token.end)) for leaves, token in pairs if leaves]
        self._flush()
        self._add(entries)
        self.fresh = False

    def _add(self, entries: Sequence[Entry]) -> None:
        first = self.plan.needs
        if not entries or (first and not any(first in e.leaves and e.value is not None for e in entries)):
            return
        low, high = min(e.span[0] for e in entries), max(e.span[1] for e in entries)
        self.found.append((tuple(entries), (low, high)))

    def _named(self) -> list[Record]:
        """The records with the words on their own line and above them."""
        result: list[Record] = []
        text, lines = self.index.text, self.index.lines
        end = 0
        above = ""
        for entries, span in self.found:
            line = lines[self.index.line_at(span[0])]
            own = self._unlabelled(text[line.start : span[0]])
            between = text[max(end, span[0] - CONTEXT) : line.start]
            # Lines of one table share what stands above it.
            above = between if len(_WORD.findall(self._unlabelled(between))) > 2 else above
            result.append(Record(entries, span, stems(own), stems(above) | stems(own)))
            end = span[1]
        return result

    def _unlabelled(self, text: str) -> str:
        return self.plan.labels.sub(" ", text) if self.plan.labels is not None else text


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
    name = stems(str(row.get(plan.name) or "")) if plan.name else frozenset()
    found = []
    for k, record in enumerate(printed):
        fit = sum(
            plan.fields[leaf].spec.weight
            for leaf, value in values.items()
            if value is not None and any(leaf in e.leaves and e.value == value for e in record.entries)
        )
        named = name_points(name, record)
        if fit or (named > 0.9 and record.own):
            found.append((k, fit + 0.5 * named))
    index.cache[key] = found
    return found


def name_points(name: frozenset[str], record: Record) -> float:
    """How well a name fits a record: the words on the record's own line must be in it, its own words must be printed
    there or above."""
    if not name:
        return 0.0
    known = sum(len(stem) for stem in name & record.above) / sum(map(len, name))
    if record.own:
        recall = sum(len(stem) for stem in name & record.own) / sum(map(len, record.own))
        return min(1.0, recall / 0.8) * min(1.0, 0.4 + known)
    return min(1.0, known / 0.6) * (1.0 if len(name) > 1 else 0.5)


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
        name = stems(str(row.get(plan.name) or ""))
        if record is not None:
            points[plan.name] = name_points(name, record)
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
    known = index.cache.get("stems")
    if known is None:
        known = index.cache["stems"] = stems(index.text)
    return sum(len(stem) for stem in name & known) / sum(map(len, name)) if name else 0.0


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
