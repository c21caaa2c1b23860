"""Document, and its index: lines, words, printed amounts and dates with their offsets, built once for a whole group."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from rewards import normalize
from rewards.dates import DateFormat, DateMention, find_dates

# What lies beyond these bounds of a page is not looked at: no receipt has it, and a hostile one gains nothing by it.
MAX_LINES = 2_000
MAX_NUMBERS = 60  # on one line


@dataclass(frozen=True, slots=True)
class Document:
    """id; text; group: what must not leak between splits (the vendor); gold: the right answer, or None.

    Rewards never read gold; only rewards.fields and the evaluation do.
    """

    id: str
    text: str
    group: str
    gold: dict[str, Any] | None


class Number(NamedTuple):
    """A printed number: its value, its (start, end) in the text with sign and mark, its line, and whether it is money
    (two decimals or a currency mark, no percent sign, not part of a code)."""

    value: Decimal
    start: int
    end: int
    line: int
    money: bool
    mark: str
    factors: tuple[Decimal, ...]  # the values it has as a quantity: 1,560 is 1560 or 1.56


class Line(NamedTuple):
    """One line: its (start, end) in the text, its words (letters and digits, folded), the same words between spaces, so
    that a phrase is found at word boundaries, and its amounts."""

    start: int
    end: int
    words: list[str]
    spaced: str
    money: list[Number]


@dataclass(slots=True)
class DocumentIndex:
    """What the rewards look up. `cache` holds what was worked out for one document and is shared by its group."""

    text: str
    lines: list[Line]
    numbers: list[Number]
    money: list[Number]
    marks: frozenset[str]
    cache: dict[Any, Any] = field(default_factory=dict)

    def line_at(self, offset: int) -> int:
        """The line of a character offset."""
        return bisect_right(self.lines, offset, key=lambda line: line.start) - 1

    def by_line(self) -> dict[int, list[Number]]:
        """The numbers of each line."""
        found: dict[int, list[Number]] | None = self.cache.get("by line")
        if found is None:
            found = {}
            for number in self.numbers:
                found.setdefault(number.line, []).append(number)
            self.cache["by line"] = found
        return found

    def dates(self, formats: Collection[DateFormat]) -> list[DateMention]:
        """The printed dates of the text that one of the forms reads."""
        key = ("dates", frozenset(formats))
        found: list[DateMention] | None = self.cache.get(key)
        if found is None:
            found = self.cache[key] = find_dates(self.text, formats)
        return found

    def characters(self) -> frozenset[str]:
        """The characters of the text, in both cases."""
        found: frozenset[str] | None = self.cache.get("characters")
        if found is None:
            found = self.cache["characters"] = frozenset(
                self.text + self.text.upper() + self.text.lower() + self.text.title()
            )
        return found

    def span_of(self, phrase: str, line: int, last: int | None = None) -> tuple[int, int]:
        """(start, end) of a printed phrase in its line, or of the whole lines where its print differs."""
        first, final = self.lines[line], self.lines[line if last is None else last]
        at = self.text[first.start : first.end].casefold().find(phrase.casefold())
        return (first.start + at, first.start + at + len(phrase)) if at >= 0 else (first.start, final.end)


# What must come is asked first: at most characters no number begins.
_NUMBER = re.compile(r"(?=[\d.,])(?<!\d)(?<!\d[.,])(?:[.,](?=\d\d(?!\d)))?\d(?:[\d.,']*\d)?")
_DOTLESS = re.compile(r"(?<![A-Z])(?:RM|MYR|USD|EUR|GBP|SGD|AUD|INR)$", re.IGNORECASE)  # RM.50 is 0.50, RS.50 is 50
_BEFORE = re.compile(
    r"(?P<open>\(\s?)?(?P<sign>-\s?)?(?P<mark>(?:(?<![A-Z])|(?<=\dX))(?:"
    + normalize.MARKS
    + r")\.?\s?)?(?P<sign2>-\s?)?$",
    re.IGNORECASE,
)
# A measure is no amount: 22.73 LITRE, 2.25L.
_AFTER = re.compile(
    r"(?P<percent>\s?%|:\d|\s?[AP]M(?![A-Z])|\s?(?:LITRES?|LITERS?|LTR|KG|ML|GM|KM|KWH|MM|CM|OZ|LBS?)(?![A-Z])|[LG](?![A-Z]))|(?P<trail>-(?!\w))?(?P<mark>\s?(?:EUR|CHF|KR|ZŁ|TL|€|£|\$)(?![A-Z]))?(?P<close>\s?\))?",
    re.IGNORECASE,
)


_LEADS = frozenset("(-$.") | {c for mark in normalize.CURRENCY for c in (mark[-1], mark[-1].lower())}
_TAILS = frozenset("%:-)€£$EeCcKkZzTtLlGgAaPpMmOo")
_NOTHING_BEFORE = _BEFORE.search("")
_NOTHING_BEHIND = _AFTER.match("")


@lru_cache(maxsize=65_536)
def _value(body: str) -> tuple[Decimal, bool, tuple[Decimal, ...]] | None:
    """(value, has two decimals, all readings) of a printed number's body; None where it has no reading."""
    found = normalize.readings(body)
    if not found:
        return None
    # 1,234 has two readings: as an amount it is a thousand, 1.234 is more often a weight.
    value = max(found) if "," in body else min(found)
    return value, len(found) == 1 and len(body) > 2 and body[-3] in ".,", found


def _numbers(text: str, start: int, end: int, line: int) -> list[Number]:
    found: list[Number] = []
    for match in _NUMBER.finditer(text, start, end):
        at, stop = match.span()
        body = match.group()
        before = text[at - 1] if at > start else " "
        if body[0] in ".," and (
            before in ").," or (before.isalnum() and not _DOTLESS.search(text, max(start, at - 4), at))
        ):
            body, at = body[1:], at + 1  # "NO.12" is 12
        read = _value(body)
        if read is None:
            continue
        if len(found) >= MAX_NUMBERS:
            break
        value, decimals, factors = read
        money, mark, sign = decimals, "", 1
        bare = before.isspace() and (stop >= end or text[stop : stop + 2].isspace())
        if bare and text[at - 2 : at - 1].isspace():
            found.append(Number(value, at, stop, line, money, mark, factors))  # the common case: a column of its own
            continue
        # Most numbers have no sign and no mark: look twice only where one can be.
        near = before if not before.isspace() else text[at - 2 : at - 1]
        lead = _BEFORE.search(text, max(start, at - 8), at) if near in _LEADS and near else _NOTHING_BEFORE
        behind = text[stop : stop + 1] if not text[stop : stop + 1].isspace() else text[stop + 1 : stop + 2]
        tail = _AFTER.match(text, stop, end) if behind in _TAILS and stop < end else _NOTHING_BEHIND
        assert lead is not None and tail is not None
        mark = (lead["mark"] or tail["mark"] or "").strip().rstrip(".").upper()
        glued = stop < end and text[stop].isalpha()
        # A dash for the cents: 12,- and Fr. 5.- and Rs.500/-, but 1.- begins a paragraph.
        dashed = text[stop + 1 : stop + 2] == "-" and text[stop] in (",./" if mark else ",")
        if dashed and not text[stop + 2 : stop + 3].isalnum():
            stop, decimals, money = stop + 2, True, True
        if tail["percent"] or (glued and body[-3:-2] == "," and not mark):
            money = False
        elif mark:
            # Without decimals only a sign that touches the number makes it money, or letters before groups: KR600 and
            # RM5 stand in names.
            touches = lead["mark"] and not lead["sign2"] and not lead["mark"].endswith(" ")
            touches = touches or (tail["mark"] and tail["mark"][0] != " ")
            money = decimals or bool(touches and (not mark.isalpha() or len(factors) > 1))
        elif before.isalpha() and not (before in "xX" and (at - 2 < start or not text[at - 2].isalpha())):
            money = False  # part of a code such as A12.50
        if money:
            opened = bool(lead["open"] and tail["close"])
            signs = [lead["sign"], lead["sign2"], tail["trail"]]
            dashed = any(signs)
            if lead["sign"] and not lead["mark"]:
                # A dash that touches a word is a hyphen: SUB-12.00.
                dash = lead.start("sign")
                dashed = not (dash > start and text[dash - 1].isalnum())
            sign = -1 if opened or dashed else 1
            at = lead.start() if opened or lead["mark"] or (dashed and lead is not _NOTHING_BEFORE) else at
            stop = tail.end() if opened else max(stop, tail.end("trail"), tail.end("mark"))
        found.append(Number(value * sign, at, stop, line, money, mark, factors))
    return found


_SPACED = re.compile(r"(?<![\d.,'])\d{1,3}(?:[\u00a0\u2007\u2009\u202f]\d{3})+(?!\d)")  # 1 234 with spaces that hold
_SPACE = re.compile("[\u00a0\u2007\u2009\u202f]")


def _foldable(text: str) -> str:
    """The text, character for character, with full-width digits, dashes that are a minus and the like as ASCII."""
    if text.isascii():
        return text
    return _SPACED.sub(lambda match: _SPACE.sub("'", match.group()), text).translate(normalize.PRINTED)


def _decimal_mark(numbers: list[Number], text: str) -> str | None:
    """The decimal mark of a page: that of its amounts with two decimals, where nearly all have the same one."""
    printed = [text[n.start : n.end].rstrip("-) ") for n in numbers if n.money and len(n.factors) == 1]
    points, commas = sum(p[-3:-2] == "." for p in printed), sum(p[-3:-2] == "," for p in printed)
    return "." if points > 3 * commas else "," if commas > 3 * points else None


def _settled(number: Number, decimal: str | None, text: str) -> Number:
    """A number with two readings (1,234), as the page's decimal mark has it. No amount where nothing settles it."""
    if len(number.factors) < 2:
        return number
    low, high = sorted(number.factors)
    if number.money and number.mark in normalize.WHOLE_ONLY:
        value = high
    elif decimal is not None:
        value = low if decimal in text[number.start : number.end] else high
    else:
        return number._replace(money=False)
    return number._replace(value=-value if number.value < 0 else value)


def read(text: str) -> DocumentIndex:
    """The index of a document's text."""
    text = normalize.known_characters(text)
    printed = _foldable(text)
    rows: list[tuple[int, int, list[Number]]] = []
    start, doubtful = 0, False
    for i, row in enumerate(printed.split("\n")):
        if i >= MAX_LINES:
            break
        end = start + len(row)
        found = _numbers(printed, start, end, i)
        doubtful = doubtful or any(len(n.factors) > 1 for n in found)
        rows.append((start, end, found))
        start = end + 1
    numbers = [n for _, _, found in rows for n in found]
    if doubtful:
        decimal = _decimal_mark(numbers, printed)
        rows = [(start, end, [_settled(n, decimal, printed) for n in found]) for start, end, found in rows]
        numbers = [n for _, _, found in rows for n in found]
    lines = []
    for start, end, found in rows:
        line_words = normalize.words(text[start:end])
        lines.append(
            Line(start, end, line_words, f" {' '.join(line_words)} ", [n for n in found if n.money] if found else [])
        )
    money = [n for n in numbers if n.money]
    return DocumentIndex(text, lines, numbers, money, frozenset(n.mark for n in numbers if n.mark))
