"""Coverage: the share of the table's printed lines that the attempt explains. Without it, one row that carries the total
passes every other check."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rewards.document import DocumentIndex
from rewards.plan import RowPlan
from rewards.rows import Match, zone

NAMED = 0.3  # a row whose name fits worse than this explains nothing


def covered(
    rows: RowPlan, index: DocumentIndex, matches: Sequence[Match | None], known: frozenset[Decimal]
) -> tuple[float | None, list[int]]:
    """(share of the table's amount lines that the attempt explains, the lines that it does not); None without a table.

    A line is explained by a row's amount, by a scalar's value (`known`: a discount inside the table, a subtotal), or as
    the detail of a row beside it (unit price times quantity).
    """
    area = zone(rows, index)
    owners = {match.number.line: match for match in matches if match is not None and match.name >= NAMED}
    count, missing = 0, []
    for i in sorted(area.open_):
        line = index.lines[i]
        if not any(n.value for n in line.money):
            continue
        if i in owners:
            count += 1
            continue
        if line.money[-1].value in known or abs(line.money[-1].value) in known:
            continue
        if _detail(index, i, owners):
            continue
        count += 1
        missing.append(i)
    if not count:
        return None, []
    return 1.0 - len(missing) / count, missing


def _detail(index: DocumentIndex, i: int, owners: dict[int, Match]) -> bool:
    """Whether line i only details a row beside it: one of its amounts is the row's, or times a number gives it."""
    line = index.lines[i]
    for step in (-1, 1, -2, 2):
        owner = owners.get(i + step)
        if owner is None:
            place_owner = next(
                (m for m in owners.values() if m.place and m.place.first <= i + step <= m.place.last), None
            )
            owner = place_owner
        if owner is None:
            continue
        amount = owner.number.value
        near = [n for j in {i, i + step, owner.number.line} for n in index.by_line().get(j, ())]
        for money in line.money:
            if money.value == amount:
                return True
            for factor in near:
                if factor.start != money.start and abs(money.value * factor.value - amount) <= Decimal("0.01"):
                    return True
    return False
