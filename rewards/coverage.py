"""Coverage: the share of the table's printed lines that the attempt explains. Without it, one row that carries the
total passes every other check."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rewards.document import DocumentIndex
from rewards.plan import RowPlan
from rewards.rows import Match
from rewards.table import CENT, has_words, known_zone, name_part

MAX_LETTERS = 5  # of words on a line that only details a row (BAG, LITRE)
OWN = 0.5  # from this fit on a line is the row's own
NAMED = 0.3  # a row whose name fits worse than this explains nothing


def covered(
    rows: RowPlan,
    index: DocumentIndex,
    matches: Sequence[Match | None],
    labelled: frozenset[int],
    total: Decimal | None,
) -> tuple[float | None, list[int]]:
    """(share of the table's amount lines that the attempt explains, the lines that it does not); None without a table.

    A line is explained by a row's amount, by a scalar that is printed on it (`labelled`: their lines), as the sum of
    all rows (`total`), or as the detail of a row beside it (unit price times quantity).
    """
    area = known_zone(rows, index)
    owners = {match.number.line: match for match in matches if match is not None and match.name >= NAMED}
    whole = len(owners) == len(matches) and len(owners) > 1
    missing = []
    for i in area.paid:
        if i in owners or i in labelled:
            continue
        if (whole and index.lines[i].money[-1].value == total) or _detail(rows, index, i, owners):
            continue
        missing.append(i)
    count = len(missing) + len(area.open_.intersection(owners))
    if not count:
        return None, []
    return 1.0 - len(missing) / count, missing


def _detail(rows: RowPlan, index: DocumentIndex, i: int, owners: dict[int, Match]) -> bool:
    """Whether line i only details a row beside it: without words it repeats the row's amount, or its price times its
    quantity gives that amount."""
    line = index.lines[i]
    letters = len(name_part(index, rows, i)) if has_words(index, rows, i) else 0
    if letters > MAX_LETTERS:
        # A price beside a row's own name: LED TUBE @16.00, its amount on the next line.
        return any(
            m.place is not None and m.name >= OWN and m.place.first <= i <= m.place.last for m in owners.values()
        )
    for match in owners.values():
        low, high = match.number.line, match.number.line
        if match.place is not None:
            low, high = min(low, match.place.first), max(high, match.place.last)
        if not low - 2 <= i <= high + 2:
            continue
        if match.place is not None and match.place.first <= i <= match.place.last:
            return True  # a price beside the row's own name
        amount = match.number.value
        mine = [n for j in range(low, high + 1) for n in index.by_line().get(j, ())]
        # A discount of this row stands with the amount: 45.90, then -2.75 and 43.15.
        cuts = [n.value for n in mine if n.money and n.value < 0]
        factors = [*index.by_line().get(i, ()), *(mine if not letters else ())]
        for money in line.money:
            if (money.value == amount and not letters) or any(money.value + cut == amount for cut in cuts):
                return True
            for factor in factors:
                if factor.start != money.start and any(abs(money.value * f - amount) <= CENT for f in factor.factors):
                    return True
    return False
