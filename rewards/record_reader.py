"""Reads the records of a document: groups of labelled numbers, such as the votes for and against each proposal.

Three prints are read: a heading of labels over lines of numbers, a label before each number ("For: 1,204"), and a label
behind each number ("1,204 votes for").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from rewards import normalize
from rewards.dates import find_dates
from rewards.document import DocumentIndex
from rewards.plan import RecordPlan

MAX_RECORDS = 400
CONTEXT = 1_500  # characters above a record that can name it
STEM = 5  # characters with which kindred words begin: ratified, ratification


class Entry(NamedTuple):
    """One labelled number of a record: the leaves that it can be, its value (None: a dash, "N/A") and its span."""

    leaves: tuple[str, ...]
    value: Decimal | None
    span: tuple[int, int]


class Record(NamedTuple):
    """A printed record: its entries, its span, the content words on its own line, those on it and above it, and how
    these begin."""

    entries: tuple[Entry, ...]
    span: tuple[int, int]
    own: frozenset[str]
    above: frozenset[str]
    stems: frozenset[str]


class _Token(NamedTuple):
    """A label (its leaves), or a number (value None: a dash)."""

    start: int
    end: int
    line: int
    leaves: tuple[str, ...]
    value: Decimal | None
    label: bool


# Also where it touches the number beside it: "23,711,610  -630,656", "20,440--".
_DASH = re.compile(
    r"(?<!\S)(?:[-–—]{1,3}(?=[1-9]|\s|$)|(?:\*|N/?A|NIL|NONE)(?!\S))|(?<=\d)[-–—]{2}(?!\S)", re.IGNORECASE
)
_MARKS = r"[\s:;,.=\"'“”‘’()|*•-]*"
_FILLER = re.compile(
    _MARKS
    + r"(?:(?:the|number|of|approval|common|stock|shares?|votes?|voted|voting|cast|were|was)"
    + _MARKS
    + "){0,6}",
    re.IGNORECASE,
)
_HEADING = frozenset(
    "shares share votes vote number of cast broker total percent percentage nominee name director".split()
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_WORD = re.compile(r"[^\W\d_]{2,}")
# Words that say nothing about which proposal is meant.
_EMPTY = frozenset(
    "the and for with that this from have been were was are its our their his her not any all each such other"
    " votes vote voted voting shares share proposal proposals item matter results result".split()
)


def content(text: str) -> frozenset[str]:
    """A text's content words, folded."""
    return frozenset(word for word in normalize.words(text) if len(word) > 2 and word not in _EMPTY)


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
        if any(low <= number.start < high for low, high in dates) or _YEAR.fullmatch(text, number.start, number.end):
            continue
        found.append(_Token(number.start, number.end, number.line, (), number.value, False))
    for match in _DASH.finditer(text):
        found.append(_Token(match.start(), match.end(), index.line_at(match.start()), (), None, False))
    found.sort(key=lambda token: (token.start, -token.end))
    kept: list[_Token] = []
    for token in found:
        if kept and token.start < kept[-1].end:
            continue
        if kept and token.label and kept[-1].label and text[kept[-1].end : token.start].strip() == "/":
            both = (*kept[-1].leaves, *(leaf for leaf in token.leaves if leaf not in kept[-1].leaves))
            kept[-1] = kept[-1]._replace(end=token.end, line=token.line, leaves=both)  # AGAINST/WITHHELD is one column
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
        self.labels: list[_Token] = []

    def read(self) -> list[Record]:
        by_line: dict[int, list[_Token]] = {}
        tokens = _tokens(self.plan, self.index)
        self.labels = [token for token in tokens if token.label]
        paired = self._pairs(tokens)
        for token in tokens:
            by_line.setdefault(token.line, []).append(token)
        for i, line in enumerate(self.index.lines):
            here = by_line.get(i, [])
            numbers = [token for token in here if not token.label]
            labels = [token for token in here if token.label]
            entries = [paired[token.start] for token in numbers if token.start in paired]
            valued = sum(token.value is not None for token in numbers)
            if entries and (len(entries) in (2, 3, 4) or len(entries) == valued or not self.header):
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
        alone = True  # the label has no other label before it, as it would have in a heading
        for k, (first, second) in enumerate(pairwise(tokens)):
            alternates, alone = alone, not first.label
            if first.label == second.label or second.line - first.line > 2 or not (first.leaves or second.leaves):
                continue
            gap = text[first.end : second.start]
            if len(gap) > 45 or _FILLER.fullmatch(gap) is None:
                continue
            if first.label:
                if "\n" not in gap or (alternates and not gap.strip()):
                    before[second.start] = Entry(first.leaves, second.value, (second.start, second.end))
            elif "." not in gap and (
                "\n" not in gap or gap.strip() or not (k + 2 < len(tokens) and tokens[k + 2].label)
            ):
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
        collapsed: list[tuple[str, ...]] = []
        for label in labels:
            if not collapsed or collapsed[-1] != label.leaves or not label.leaves:
                collapsed.append(label.leaves)
        named = [leaves for leaves in collapsed if leaves]
        if len(named) == len(set(named)) + 1 and named[-1] in named[:-1]:
            # The last column is the share of one of the others: % VOTES FOR.
            collapsed = collapsed[: len(collapsed) - 1 - collapsed[::-1].index(named.pop())]
        said = "".join(self._words_of(self.index.text[t.start : t.end]) for t in labels)
        rest = self._words_of(self._unlabelled_line(i))
        share = len(said) / max(1, len(said) + len(rest))
        goes_on = self.fresh and i - self.heading <= 2 and share >= 0.5
        if len(named) >= 2 and share > 0.25:
            repeats = len(named) != len(set(named))
            both = [*self.header, *collapsed]
            if goes_on and not repeats and not set(named) & set(self.header):
                collapsed = both
            self._begin([] if repeats else collapsed, i)
        elif share >= 0.5 and collapsed:
            if goes_on and not set(named) & set(self.header):
                self._begin([*self.header, *collapsed], i)
            elif named and (not goes_on or len(collapsed) > 1):
                self._begin(collapsed, i)

    def _words_of(self, text: str) -> str:
        return "".join(word for word in normalize.words(text) if word not in _HEADING)

    def _unlabelled_line(self, i: int) -> str:
        """A line without its labels, and without the end of one that begins on the line before."""
        line = self.index.lines[i]
        kept, at = "", line.start
        for token in self.labels:
            if token.end > line.start and token.start < line.end:
                kept += self.index.text[at : max(at, token.start)] + " "
                at = max(at, token.end)
        return kept + self.index.text[min(at, line.end) : line.end]

    def _begin(self, header: list[tuple[str, ...]], i: int) -> None:
        if not self.fresh:
            self._flush()
        self.header, self.heading, self.fresh, self.run = header, i, True, []
        self.section = len(self.found)

    def _columns(self, i: int, numbers: Sequence[_Token]) -> None:
        """A line of numbers under a header: its last numbers, after the last word."""
        count = len(self.header)
        if count < 2:
            return
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
        while len(run) > count and run[-1].value is None:
            run.pop()
        if len(run) > count:
            merged = [t for k, t in enumerate(run) if k == 0 or t.value is None or t.value != run[k - 1].value]
            run = merged if len(merged) == count else run[-count:]
        if len(run) < count and not words and len(run) <= 2 and count > 2:
            self.run = run  # one number a line: the rest stands below
            return
        self.run = []
        if len(run) < max(2, count - 2):
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
            words = content(above) | content(own)
            result.append(Record(entries, span, content(own), words, frozenset(word[:STEM] for word in words)))
            end = span[1]
        return result

    def _unlabelled(self, text: str) -> str:
        return self.plan.labels.sub(" ", text) if self.plan.labels is not None else text
