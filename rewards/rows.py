"""Rows of an array: which printed line each extracted row is.

A row is grounded when its amount is printed on a line of its own and its name is printed on that line or beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from rewards import normalize
from rewards.document import DocumentIndex, Number
from rewards.plan import RowPlan
from rewards.table import CENT, Place, has_words, known_zone, name_part, places

GOES_ON = 0.7  # of a name's points, where it seems to go on on the next line
CROSSED = 0.4  # of a name's points, where the lines of two rows cross
NOWHERE = Place(0, 0, 0.0, (0, 0), "")
ZERO = Decimal(0)
OWN = 0.5  # likeness from which a printed name is a row's
ABOUT = 0.15  # what a place may fit less than the best one, to be a row's where that is taken
NEAR = 3  # lines between a row's name and its amount, at most


class Match(NamedTuple):
    """The printed amount and name of one row; `name` in [0, 1] says how well the name fits."""

    number: Number
    place: Place | None
    name: float


class Option(NamedTuple):
    """A printed amount that a row can be, with the best place of its name, how well that fits, and every place that
    fits about as well, best first."""

    number: Number
    place: Place | None
    name: float
    spots: list[tuple[float, Place]]


def _breaks(plan: RowPlan, index: DocumentIndex, low: int, high: int) -> bool:
    """Whether a line strictly between two lines is a row of its own: words and an amount."""
    return any(index.lines[i].money and has_words(index, plan, i) for i in range(low + 1, high))


def _priced(index: DocumentIndex, prices: Sequence[Number], line: int) -> bool:
    """Whether an amount of the line is one of the prices times a number of the line, or that price again."""
    numbers = index.by_line().get(line, ())
    for money in index.lines[line].money:
        for price in prices:
            if money.value == price.value or any(
                abs(price.value * factor - money.value) <= CENT for n in numbers for factor in n.factors
            ):
                return True
    return False


def _proximity(plan: RowPlan, index: DocumentIndex, place: Place, line: int) -> float:
    """1 where an amount's line belongs to a name's, less where it may belong to another row, 0 where it is far."""
    if place.first <= line <= place.last:
        return 1.0
    low, high = (place.last, line) if line > place.last else (line, place.first)
    if high - low > NEAR or _breaks(plan, index, low, high):
        return 0.0
    distance = 1 + sum(has_words(index, plan, i) for i in range(low + 1, high))
    # A name beside an amount of its own does not take that of another line, unless its own is the price of one piece.
    beside = [*index.lines[place.first].money, *index.lines[place.last].money]
    if beside and not _priced(index, beside, line):
        return 0.3
    return 1.0 if distance <= 2 else 0.6


def _options(name: str, amount: Decimal, plan: RowPlan, index: DocumentIndex) -> tuple[Option, ...]:
    """The printed amounts that this row can be, each with the best place of its name; best first. Cached."""
    key = ("row", plan.array, name, amount)
    found: tuple[Option, ...] | None = index.cache.get(key)
    if found is not None:
        return found
    area = known_zone(plan, index)
    candidates: dict[int, Number] = {}
    for number in index.money:
        if number.value == amount and number.line in area.open_:
            candidates[number.line] = number  # the last on its line
    where = places(name, plan, index)
    if not candidates:
        candidates = _products(amount, where, area.open_, index)
    result = []
    for line, number in candidates.items():
        fits = [(fit, p) for p in where if (fit := p.likeness * _proximity(plan, index, p, line)) > 0]
        fits.sort(key=lambda f: -f[0])
        best, place = fits[0] if fits else (0.0, None)
        result.append(Option(number, place, best, [f for f in fits if f[0] >= best - ABOUT]))
    # Of equals the line nearest to the name: the price of the row above may be the same amount.
    result.sort(key=lambda m: (-m.name, abs(m.number.line - m.place.last) if m.place else NEAR))
    found = tuple(result)
    index.cache[key] = found
    return found


def _products(
    amount: Decimal, where: Sequence[Place], open_: frozenset[int], index: DocumentIndex
) -> dict[int, Number]:
    """Amounts on the lines of a name that come to this amount: by price times quantity (2 x 60.00, where 127.20 is
    printed behind it, with the tax), or less a cut that is printed below (45.90 and -2.75)."""
    found: dict[int, Number] = {}
    by_line = index.by_line()
    for place in where:
        if place.likeness < OWN:
            continue
        for i in range(place.first - 1, place.last + 2):
            if i not in open_ or i in found:
                continue
            cuts = (n.value for j in range(i + 1, min(i + 3, len(index.lines))) for n in index.lines[j].money)
            if any(cut < 0 and index.lines[i].money[-1].value + cut == amount for cut in cuts):
                found[i] = index.lines[i].money[-1]
                continue
            beside = [n for j in range(min(i, place.first), max(i, place.last) + 1) for n in by_line.get(j, ())]
            for price in beside:
                # The amount of the row itself is no price, whatever number stands beside it.
                if price.start != index.lines[i].money[-1].start and (price.money or price.value % 1):
                    others = (f for n in beside if n.start != price.start for f in n.factors)
                    if any(price.value * factor == amount for factor in others):
                        found[i] = index.lines[i].money[-1]
    return found


def match_rows(rows: Sequence[tuple[str, Decimal | None]], plan: RowPlan, index: DocumentIndex) -> list[Match | None]:
    """One printed amount line for each (name, amount): one to one, names used once, the best total first. In whatever
    order the rows are given, each gets the same match."""
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], rows[row][1] is None, rows[row][1] or ZERO))
    ordered = tuple(rows[row] for row in order)
    # Attempts at one document often have the same rows.
    key = ("rows", plan.array, ordered)
    found: list[Match | None] | None = index.cache.get(key)
    if found is None:
        found = index.cache[key] = _matched(ordered, plan, index)
    result: list[Match | None] = [None] * len(rows)
    for row, match in zip(order, found, strict=True):
        result[row] = match
    return result


def _matched(rows: Sequence[tuple[str, Decimal | None]], plan: RowPlan, index: DocumentIndex) -> list[Match | None]:
    options = [_options(name, amount, plan, index) if amount is not None else () for name, amount in rows]
    taken: dict[int, int] = {}  # line -> row
    chosen: dict[int, Option] = {}

    def assign(row: int, floor: float, seen: set[int]) -> bool:
        for option in options[row]:
            line = option.number.line
            if option.name < floor or line in seen:
                continue
            # No row gives way to one that fits as well elsewhere.
            if line in taken and any(o.name == option.name and o.number.line not in taken for o in options[row]):
                continue
            seen.add(line)
            if line not in taken or assign(taken[line], floor, seen):
                taken[line] = row
                chosen[row] = option
                return True
        return False

    # Rows with a good name first, so that a nameless amount never takes the line of a named one.
    for floor in (0.85, 0.5, 0.0):
        for row in range(len(rows)):
            if row not in chosen and options[row]:
                assign(row, floor, set())
    _uncross(rows, chosen, options)
    return _with_parts(rows, _in_order(_own_names(len(rows), chosen), plan, index), plan, index)


def _with_parts(
    rows: Sequence[tuple[str, Decimal | None]], matches: list[Match | None], plan: RowPlan, index: DocumentIndex
) -> list[Match | None]:
    """A row of 0.00 that is a part of the row above (the drink of a meal), printed without an amount, has a match."""
    free = [row for row, (_, amount) in enumerate(rows) if matches[row] is None and amount == 0]
    if not free:
        return matches
    used: set[int] = set()
    for match in matches:
        if match is not None and match.place is not None:
            used.update((*range(match.place.first, match.place.last + 1), match.number.line))
    spots = {row: _alone(rows[row][0], plan, index) for row in free}
    result = list(matches)
    # From the top down: a part stands below a row, or below another part of it.
    for i in sorted({i for lines in spots.values() for i in lines}):
        line = index.lines[i]
        if line.money or i in used or i - 1 not in used:
            continue
        for row in free:
            place = spots[row].get(i)
            if result[row] is None and place is not None:
                result[row] = Match(Number(Decimal(0), line.start, line.start, i, False, "", ()), place, place.likeness)
                used.add(i)
                break
    return result


def _alone(name: str, plan: RowPlan, index: DocumentIndex) -> dict[int, Place]:
    """The lines on which a name is printed whole, or nearly so."""
    return {p.first: p for p in places(name, plan, index) if p.likeness >= OWN and p.first == p.last}


def _uncross(
    rows: Sequence[tuple[str, Decimal | None]], chosen: dict[int, Option], options: Sequence[Sequence[Option]]
) -> None:
    """Rows of equal amounts take their lines in the order of their names, where that fits as well."""
    equal: dict[Decimal | None, list[int]] = {}
    for row, match in chosen.items():
        if match.place is not None:
            equal.setdefault(rows[row][1], []).append(row)
    for members in equal.values():
        if len(members) < 2:
            continue
        members.sort(key=lambda row: (chosen[row].place or NOWHERE).first)
        lines = sorted(chosen[row].number.line for row in members)
        fresh = {}
        for row, line in zip(members, lines, strict=True):
            option = next((o for o in options[row] if o.number.line == line), None)
            if option is None or option.name < chosen[row].name - 1e-9:
                break
            fresh[row] = option
        if len(fresh) == len(members):
            chosen.update(fresh)


def _own_names(count: int, chosen: dict[int, Option]) -> list[Match | None]:
    """The matches with a printed name for each row alone; a row whose name another row uses up loses its match."""
    taken: dict[tuple[int, int], int] = {}
    result: list[Match | None] = [None] * count

    def assign(row: int, seen: set[tuple[int, int]]) -> bool:
        for fit, place in chosen[row].spots:
            if place.span in seen:
                continue
            seen.add(place.span)
            if place.span not in taken or assign(taken[place.span], seen):
                taken[place.span] = row
                result[row] = Match(chosen[row].number, place, fit)
                return True
        return False

    for row in sorted(chosen, key=lambda row: -chosen[row].name):
        option = chosen[row]
        if option.place is None:
            result[row] = Match(option.number, None, option.name)
        else:
            assign(row, set())
    return result


def _in_order(matches: list[Match | None], plan: RowPlan, index: DocumentIndex) -> list[Match | None]:
    """Lowers rows whose lines cross those of another row (two amounts swapped), and rows whose name goes on below."""
    blocks = []
    used: set[int] = set()
    for row, match in enumerate(matches):
        if match is not None and match.place is not None:
            lines = (match.place.first, match.place.last, match.number.line)
            blocks.append((min(lines), max(lines), row))
            used.update(range(match.place.first, match.place.last + 1))
            used.add(match.number.line)
    blocks.sort()
    worth: dict[int, float] = {}
    reach, holder = -1, -1
    for low, high, row in blocks:
        if low <= reach:
            worth[row] = worth[holder] = CROSSED
        if high > reach:
            reach, holder = high, row
    end = known_zone(plan, index).end
    for _, _, row in blocks:
        match = matches[row]
        assert match is not None and match.place is not None
        below = match.place.last + 1
        if match.place.likeness == 1.0 and below < end and below not in used and _words_only(plan, index, below):
            worth[row] = worth.get(row, 1.0) * GOES_ON
    return [
        m._replace(name=m.name * worth[row]) if m is not None and row in worth else m for row, m in enumerate(matches)
    ]


_SIZE = re.compile(r"\(?\d+(?:[./]\d+)?\s?(?:\"|''|(?:mm|cm|kg|g|ml|l)?\s?x\s?\d|(?:mm|cm|kg|g|ml|l)\b)", re.IGNORECASE)


def _words_only(plan: RowPlan, index: DocumentIndex, i: int) -> bool:
    """Whether a line is the rest of a name: letters only, more than a mark, begun like a name (#TAKE AWAY# is not), or
    a size (5"X8", 40G)."""
    line = index.lines[i]
    text = index.text[line.start : line.end].strip()
    if not line.money and _SIZE.match(text):
        return True
    if line.money or not text[:1].isalpha() or text[-1:] in ":#*" or any(c.isdigit() for c in text):
        return False
    return len(name_part(index, plan, i)) > 2


def as_rows(value: Any, plan: RowPlan) -> list[tuple[str, Decimal | None]]:
    """(name, amount) of each row of an attempt's array; a malformed row gives ("", None)."""
    rows = []
    for row in value if isinstance(value, list) else []:
        given = row if isinstance(row, dict) else {}
        name = given.get(plan.spec.name)
        rows.append((name if isinstance(name, str) else "", normalize.amount(given.get(plan.spec.amount))))
    return rows
