"""The table of an array in a document: which lines it takes, and where a name is printed in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from rapidfuzz import fuzz

from rewards import normalize
from rewards.document import DocumentIndex, Line
from rewards.misread import long_words, reread, respaced
from rewards.plan import Plan, RowPlan

CENT = Decimal("0.01")  # quantity times unit price may be rounded


class Zone(NamedTuple):
    """The lines start <= i < end are the table; `open_` can hold a row's amount; `summary` are lines of totals;
    `paid` are the open lines with an amount that is not 0, in order."""

    start: int
    end: int
    open_: frozenset[int]
    summary: frozenset[int]
    paid: tuple[int, ...]


class Place(NamedTuple):
    """Where a name is printed: its lines, how well (1 = exactly), and its span."""

    first: int
    last: int
    likeness: float
    span: tuple[int, int]
    why: str


def _is_summary(plan: RowPlan, line: Line, index: DocumentIndex) -> bool:
    """Whether a line says nothing but summary words: "GST 6% 0.42" does, "GIFT CARD 0.42" does not."""
    if not plan.summary.in_spaced(line.spaced):
        return False
    # "2 TAX 25.04" is a row of a page where things have such names; "6% GST" and "8 SUBTOTAL" are not.
    if line.words[0].isdigit() and not plan.end.in_spaced(line.spaced) and "%" not in index.text[line.start : line.end]:
        return False
    return not _multiplied(index, line) and _known_only(plan.vocabulary, line)


def _known_only(known: frozenset[str], line: Line) -> bool:
    """Whether every word of a line is a word of labels; A.M.C CARD has initials, and so a name."""
    words = [word for word in line.spaced.split() if any(c.isalpha() for c in word)]
    # RM6.60 gives the word RM6.
    return sum(len(word) == 1 for word in words) < 2 and all(
        word in known or word.rstrip("0123456789") in known for word in words if len(word) > 1
    )


def _multiplied(index: DocumentIndex, line: Line) -> bool:
    """Whether the line's last amount is a quantity times a price on it: | CARD | 6 | 1.21 | 7.26 |."""
    if len(line.money) < 2:
        return False
    *prices, amount = line.money
    return any(
        factor != 1 and abs(price.value * factor - amount.value) <= CENT
        for price in prices
        for number in index.by_line()[amount.line]
        for factor in number.factors
    )


def _alone(index: DocumentIndex, i: int) -> bool:
    """Whether a line holds an amount and no other number."""
    return i < len(index.lines) and bool(index.lines[i].money) and len(index.by_line()[i]) == 1


def _resumes(plan: RowPlan, index: DocumentIndex, lines: list[Line], endings: frozenset[int], i: int) -> bool:
    """Whether rows go on below a line of totals, before another one: a table in parts (supplies at 0 % and at 6 %)."""
    last = max((j for j in endings if j > i and lines[j].money), default=i)
    for j in range(i + 1, last):
        if len(lines[j].money) > 1 and plan.vocabulary.isdisjoint(lines[j].words) and has_words(index, plan, j):
            return True
    return False


def zone(plan: RowPlan, task: Plan, index: DocumentIndex) -> Zone:
    """Where the rows of this array are in the document; cached."""
    found: Zone | None = index.cache.get(("zone", plan.array))
    if found is not None:
        return found
    fixes = long_words(task, index)
    lines = [line._replace(spaced=respaced(line.spaced, fixes)) for line in index.lines] if fixes else index.lines
    endings = frozenset(plan.end.lines(reread(index.lines, fixes)))
    first = index.money[0].line if index.money else len(lines)
    start = 0
    for i, line in enumerate(lines[: first + 1]):
        if not line.money and len(plan.heading_words.intersection(line.words)) >= 2:
            start = i + 1
    summary = set()
    end = len(lines)
    for i in range(start, len(lines)):
        line = lines[i]
        if not line.words:
            continue
        ends = i in endings
        if ends and fixes and not plan.end.in_spaced(index.lines[i].spaced):
            # Only after a correction (TOTAM): a name of an item may be one letter away from a label.
            ends = _known_only(task.label_words, line)
        if ends:
            below = i + 1 < len(lines) and bool(lines[i + 1].money)
            heading = len(plan.heading_words.intersection(line.words)) >= 2 and not _alone(index, i + 1)
            # The label may stand alone, its amount below it.
            if line.money or (below and not heading and i >= first):
                if _resumes(plan, index, lines, endings, i):
                    summary.add(i)
                    continue
                end = i
                break
        if line.money and _is_summary(plan, line, index):
            summary.add(i)
        # A label, its amount alone on the next line; a price and a quantity there are a row called CARD.
        elif first <= i and _alone(index, i + 1) and _is_summary(plan, line, index):
            summary.add(i + 1)
    open_ = frozenset(i for i in range(start, end) if lines[i].money and i not in summary)
    if not open_ and end < len(lines):
        # No table before the totals: any line that is no summary may hold a row.
        open_ = frozenset(n.line for n in index.money if not _is_summary(plan, lines[n.line], index))
        open_ -= endings
    paid = tuple(i for i in sorted(open_) if any(number.value for number in lines[i].money))
    found = Zone(start, end, open_, frozenset(summary), paid)
    index.cache[("zone", plan.array)] = found
    return found


def known_zone(plan: RowPlan, index: DocumentIndex) -> Zone:
    """The zone, already worked out for this index."""
    found: Zone = index.cache[("zone", plan.array)]
    return found


def _exact(spaced: str, index: DocumentIndex, i: int, end: int) -> tuple[int, int] | None:
    """(first, last) line where the words stand in a row: on line i, or from there on over the next lines."""
    lines = index.lines
    if spaced in lines[i].spaced:
        return i, i
    words = spaced.split()
    here = lines[i].spaced
    # The beginning stands on this line (other columns may follow it), the rest begins the next line.
    cut = len(words) - 1
    while cut > 0:
        if f" {' '.join(words[:cut])} " in here:
            break
        cut -= 1
    if cut == 0:
        return None
    rest = f" {' '.join(words[cut:])} "
    for j in range(i + 1, min(i + 3, end, len(lines))):
        if lines[j].spaced.startswith(rest):
            return i, j
        if not rest.startswith(lines[j].spaced) or not lines[j].words:
            return None
        rest = " " + rest[len(lines[j].spaced) :]
        if not rest.strip():
            return i, j
    return None


def _whole(words: Sequence[str], plan: RowPlan, index: DocumentIndex, first: int, last: int) -> float:
    """The share of the printed name that a contiguous part of it is: 1 where the print does not go on, in the same
    column, before it or behind it."""
    line, end = index.lines[first], index.lines[last]
    head = index.text[line.start : line.end]
    tail = head if first == last else index.text[end.start : end.end]
    if first == last:
        found = _in_a_row(words, index, first, head)
        if found is None:
            return 1.0
        left, right = head[: found[0]], found[1]
    else:
        start, stop = _start(words[0], index, first, head), _stop(words[-1], index, last, tail)
        if start is None or stop is None:
            return 1.0
        left, right = head[:start], stop
    money = [number.start - end.start for number in end.money if number.start - end.start >= right]
    limit = money[0] if money else len(tail)
    cell = _CELL.match(tail, right, limit)
    behind = cell.group() if cell is not None else ""
    # A number is a part of the name only where the amount alone follows, in another column.
    between = tail[right + len(behind) : limit]
    apart = between[:1].isspace() if money else not between[:1].strip()
    then_money = len(money) > 1 or not apart or not plan.beside.issuperset(normalize.words(between))
    more, doubt = _behind(behind, words[-1], then_money, plan)
    missing, size = _before(left, words[0], plan)
    missing += more
    if missing:
        printed = sum(map(len, words))
        return max(0.3, min(0.8, printed / (printed + missing)))
    return DOUBTFUL if doubt or size else 1.0


def _tokens(index: DocumentIndex, i: int, row: str) -> list[tuple[str, int, int]] | None:
    """(folded, start, end) of each run of letters and digits of a line; None where letters are beyond ASCII, which only
    a pattern compares as it should. Cached."""
    key = ("tokens", i)
    found: list[tuple[str, int, int]] | None = index.cache.get(key)
    if found is None and row.isascii():
        found = [(match.group().lower(), match.start(), match.end()) for match in _WORDS.finditer(row)]
        index.cache[key] = found
    return found


def _plain(word: str) -> bool:
    return word.isascii() and word.isalnum()


def _in_a_row(words: Sequence[str], index: DocumentIndex, i: int, row: str) -> tuple[int, int] | None:
    """(start, end) of the first place where the words stand one after the other, apart or glued. A pattern says the
    same, and costs more to compile than a name is worth."""
    tokens = _tokens(index, i, row) if _plain("".join(words)) else None
    if tokens is None:
        pattern = r"[\W_]*".join(map(re.escape, words))
        found = re.search(rf"(?<![^\W_]){pattern}(?![^\W_])", row, re.IGNORECASE)
        return None if found is None else found.span()
    wanted = [word.lower() for word in words]
    for at, (token, begin, _) in enumerate(tokens):
        if not token.startswith(wanted[0]):
            continue
        k, rest = at, token
        for j, word in enumerate(wanted):
            if not rest.startswith(word):
                break
            rest = rest[len(word) :]
            if j == len(wanted) - 1:
                if not rest:
                    return begin, tokens[k][2]
            elif not rest:
                k += 1
                if k == len(tokens):
                    break
                rest = tokens[k][0]
    return None


def _start(word: str, index: DocumentIndex, i: int, row: str) -> int | None:
    """Where the first token starts that begins with a word."""
    tokens = _tokens(index, i, row) if _plain(word) else None
    if tokens is None:
        found = re.search(rf"(?<![^\W_]){re.escape(word)}", row, re.IGNORECASE)
        return None if found is None else found.start()
    return next((begin for token, begin, _ in tokens if token.startswith(word.lower())), None)


def _stop(word: str, index: DocumentIndex, i: int, row: str) -> int | None:
    """Where the first token ends that ends with a word."""
    tokens = _tokens(index, i, row) if _plain(word) else None
    if tokens is None:
        found = re.search(rf"{re.escape(word)}(?![^\W_])", row, re.IGNORECASE)
        return None if found is None else found.end()
    return next((end for token, _, end in tokens if token.endswith(word.lower())), None)


def _before(text: str, first: str, plan: RowPlan) -> tuple[int, bool]:
    """(letters of the words of the column before a name, whether a size there may belong to it). Numbers and codes
    stand before a name more often than they belong to it."""
    missing = 0
    column = _BREAKS.split(text)[-1]
    for match in reversed(list(_WORDS.finditer(column))):
        word = match.group()
        if word.isdigit():
            # 1" NYLON BRUSH, I00100000060- 4 VEGE
            before = column[: match.start()]
            piece = len(word) == 1 and before.rstrip()[-1:] == "-"
            return missing, not missing and (piece or column[match.end() : match.end() + 1] in ('"', "'"))
        if not word.isalpha():
            return missing, word[0].isdigit() and not missing and not _COUNT.fullmatch(word)  # 350PCS
        if word in "xX" or (word.casefold() in plan.beside and first not in plan.beside):
            break
        missing += len(word)
    return missing, False


def _behind(text: str, last: str, then_money: bool, plan: RowPlan) -> tuple[int, bool]:
    """(letters of the words behind a name in its column, whether a number there may belong to it)."""
    missing = 0
    found = list(_WORDS.finditer(text))
    for i, match in enumerate(found):
        word, mark = match.group(), text[: match.start()].rstrip()[-1:]
        if word.casefold() in plan.beside and last not in plan.beside and mark != "(":
            break
        if _COUNT.fullmatch(word):
            following = found[i + 1].group() if i + 1 < len(found) else ""
            if len(following) > 1 and following.isalpha() and following.casefold() not in plan.beside:
                continue  # 12 GRAIN
            if text[match.end() : match.end() + 1] == "." and following[-1:].isalpha():
                continue  # 1.5L
            # A quantity, where the amount or a unit follows in the same column.
            return missing, not missing and not then_money and not following
        if len(word) == 1 and mark not in ("(", "-") and i == len(found) - 1:
            break
        missing += len(word)
    return missing, False


_COUNT = re.compile(r"\d+[xX]?")
DOUBTFUL = 0.95  # of a name, where a number or a code beside it may belong to it
_BREAKS = re.compile(r"\s{2,}|[|\t=*:;@>]")
_WORDS = re.compile(r"[^\W_]+")
_CELL = re.compile(r"(?:(?!\s\s)[^|=*:@])*")  # up to the next column


def places(name: str, plan: RowPlan, index: DocumentIndex) -> tuple[Place, ...]:
    """Where a name is printed in the table, best first; likeness below 1 where it is printed differently. Cached."""
    key = ("name", plan.array, name)
    found: tuple[Place, ...] | None = index.cache.get(key)
    if found is not None:
        return found
    area = known_zone(plan, index)
    lines = index.lines
    words, letters = normalize.words(name), any(char.isalpha() for char in name)
    spaced = f" {' '.join(words)} "
    result: list[Place] = []
    if words:
        low, high = area.start, area.end
        for i in range(low, high):
            if words[0] not in lines[i].spaced or i in area.summary:
                continue
            exact = _exact(spaced, index, i, high)
            if exact is None:
                continue
            first, last = exact
            share = _whole(words, plan, index, first, last)
            why = "printed" if share == 1.0 else "the printed name goes on"
            if not letters and has_words(index, plan, first):
                share, why = min(share, 0.3), "a number of a line that has words"
            result.append(Place(first, last, share, index.span_of(name, first, last), why))
        if not result:
            words = [word for word in words if not _code(word)] or words
            squeezed = "".join(words)
            for i in range(low, high):
                if i in area.summary or not lines[i].words:
                    continue
                likeness, last = _likeness(words, squeezed, plan, index, i, high)
                if likeness > 0.3:
                    result.append(
                        Place(
                            i,
                            last,
                            likeness,
                            (lines[i].start, lines[last].end),
                            "like the printed name, but not the same",
                        )
                    )
            result.sort(key=lambda p: -p.likeness)
            result = result[:6]
    found = tuple(result)
    index.cache[key] = found
    return found


def name_part(index: DocumentIndex, plan: RowPlan, i: int) -> str:
    """The letters and digits of a line without its amounts and lone numbers."""
    key = ("name part", plan.array, i)
    found = index.cache.get(key)
    if found is None:
        line = index.lines[i]
        text = index.text[line.start : line.end]
        for number in reversed(line.money):
            text = text[: number.start - line.start] + "  " + text[number.end - line.start :]
        kept = [w for w in normalize.words(text) if len(w) > 1 and w not in plan.glue and any(c.isalpha() for c in w)]
        found = index.cache[key] = "".join(w for w in kept if not _code(w))
    return str(found)


def _code(word: str) -> bool:
    """Whether a word is an article number, which no two readers copy alike: I00100000027."""
    return _LONG_NUMBER.search(word) is not None


_LONG_NUMBER = re.compile(r"\d{6}")


def has_words(index: DocumentIndex, plan: RowPlan, i: int) -> bool:
    """Whether a line says something beside its numbers, units and marks."""
    key = ("words", plan.array, i)
    found = index.cache.get(key)
    if found is None:
        line = index.lines[i]
        text = index.text[line.start : line.end]
        for number in reversed(index.by_line().get(i, ())):
            text = text[: number.start - line.start] + "  " + text[number.end - line.start :]
        found = any(len(w) > 1 and w.isalpha() and w not in plan.glue for w in normalize.words(text))
        index.cache[key] = found
    return bool(found)


def _likeness(
    words: Sequence[str], squeezed: str, plan: RowPlan, index: DocumentIndex, i: int, end: int
) -> tuple[float, int]:
    """How like a name is to line i, or to lines i and i + 1 together; at most 0.7, and the last line it used."""
    here = name_part(index, plan, i)
    if not here:
        return 0.0, i
    best, last = fuzz.ratio(squeezed, here, score_cutoff=40.0) / 100, i
    if i + 1 < end:
        following = name_part(index, plan, i + 1)
        if following and (both := fuzz.ratio(squeezed, here + following, score_cutoff=40.0) / 100) > best:
            best, last = both, i + 1
    found = sum(len(word) for word in words if f" {word} " in index.lines[i].spaced)
    return max(0.7 * max(0.0, (best - 0.4) / 0.6), 0.6 * max(0.0, found / len(squeezed) - 0.4) / 0.6), last
