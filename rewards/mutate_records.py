"""Known-worse edits of records (groups of labelled numbers) and of mentions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from random import Random
from typing import Any

from rewards import normalize
from rewards.mutate_shared import INVENTED, LOOKALIKE, Answer, Edit, Page, digit_changed, put, scaled, text
from rewards.plan import MentionPlan, RecordPlan

Change = tuple[str, Answer]
Rows = list[dict[str, Any]]


def _records(page: Page, gold: Answer, least: int = 1) -> Iterator[tuple[RecordPlan, Rows]]:
    for array, plan in page.plan.records.items():
        rows = gold.get(array)
        if isinstance(rows, list) and len(rows) >= least and plan.labels is not None:
            yield plan, [dict(row) for row in rows]


def _done(plan: RecordPlan | MentionPlan, gold: Answer, rows: Rows, leaf: str | None = None) -> Change:
    return f"{plan.array}[].{leaf}" if leaf else plan.array, put(gold, plan.array, rows)


def _given(plan: RecordPlan, row: Mapping[str, Any]) -> list[str]:
    """The leaves of a row that are numbers other than zero."""
    return [leaf for leaf in plan.numbers if normalize.amount(row.get(leaf))]


def _duplicated(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _records(page, gold):
        rows.insert(rng.randint(0, len(rows)), dict(rng.choice(rows)))
        yield _done(plan, gold, rows)


def _dropped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _records(page, gold):
        rows.pop(rng.randrange(len(rows)))
        yield _done(plan, gold, rows)


def _half_dropped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _records(page, gold, 2):
        yield _done(plan, gold, rows[: len(rows) // 2])


def _each_leaf(page: Page, gold: Answer, rng: Random) -> Iterator[tuple[RecordPlan, Rows, dict[str, Any], str]]:
    """For each number leaf a copy of the rows and one row that has a number there."""
    for plan, first in _records(page, gold):
        for leaf in plan.numbers:
            rows = [dict(row) for row in first]
            found = [row for row in rows if normalize.amount(row.get(leaf))]
            if found:
                yield plan, rows, rng.choice(found), leaf


def _digit(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, row, leaf in _each_leaf(page, gold, rng):
        row[leaf] = digit_changed(row[leaf], rng)
        yield _done(plan, gold, rows, leaf)


def _scaled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, row, leaf in _each_leaf(page, gold, rng):
        row[leaf] = scaled(row[leaf], rng)
        yield _done(plan, gold, rows, leaf)


def _nulled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, row, leaf in _each_leaf(page, gold, rng):
        row[leaf] = None
        yield _done(plan, gold, rows, leaf)


def _zeroed(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, row, leaf in _each_leaf(page, gold, rng):
        row[leaf] = text(Decimal(0), row[leaf])
        yield _done(plan, gold, rows, leaf)


def _halves(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A number as a part of itself: 12,345,678 as 345,678."""
    for plan, rows, row, leaf in _each_leaf(page, gold, rng):
        number = normalize.amount(row[leaf])
        if number is not None and number >= 1000 and number % 1000:
            row[leaf] = text(number % 1000, row[leaf])
            yield _done(plan, gold, rows, leaf)


def _leaves_swapped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Two numbers of one record in each other's place: the total still closes."""
    for plan, rows in _records(page, gold):
        found = [(row, _given(plan, row)) for row in rows]
        found = [(row, leaves) for row, leaves in found if len({row[leaf] for leaf in leaves}) > 1]
        if found:
            row, leaves = rng.choice(found)
            one, other = next((a, b) for a in leaves for b in leaves if row[a] != row[b])
            row[one], row[other] = row[other], row[one]
            yield _done(plan, gold, rows, one)


def _shifted(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Every number of one record one column further."""
    for plan, rows in _records(page, gold):
        found = [row for row in rows if len({row.get(leaf) for leaf in plan.numbers}) > 1]
        if found:
            row = rng.choice(found)
            values = [row.get(leaf) for leaf in plan.numbers]
            row.update(zip(plan.numbers, [values[-1], *values[:-1]], strict=True))
            yield _done(plan, gold, rows)


def _between_rows(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One column of two records swapped."""
    for plan, first in _records(page, gold, 2):
        for leaf in plan.numbers:
            rows = [dict(row) for row in first]
            pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i] if a.get(leaf) != b.get(leaf)]
            if pairs:
                a, b = rng.choice(pairs)
                a[leaf], b[leaf] = b[leaf], a[leaf]
                yield _done(plan, gold, rows, leaf)


def _filled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A number that a record has not, copied from another record: the error that models make most."""
    for plan, first in _records(page, gold, 2):
        for leaf in plan.numbers:
            rows = [dict(row) for row in first]
            empty = [row for row in rows if not normalize.amount(row.get(leaf))]
            full = [row for row in rows if normalize.amount(row.get(leaf))]
            if empty and full:
                rng.choice(empty)[leaf] = rng.choice(full)[leaf]
                yield _done(plan, gold, rows, leaf)


def _amends(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One number up and another down by as much: the total still closes."""
    for plan, rows in _records(page, gold):
        found = [(row, _given(plan, row)) for row in rows]
        found = [(row, leaves) for row, leaves in found if len(leaves) > 1]
        if found:
            row, leaves = rng.choice(found)
            one, other = leaves[0], leaves[1]
            row[one], row[other] = row[one] + 1, row[other] - 1
            yield _done(plan, gold, rows, one)


def _merged(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Two records as one that carries their sums."""
    for plan, rows in _records(page, gold, 2):
        at = rng.randint(0, len(rows) - 2)
        _add(plan, rows[at], rows.pop(at + 1))
        yield _done(plan, gold, rows)


def _add(plan: RecordPlan, one: dict[str, Any], other: Mapping[str, Any]) -> None:
    for leaf in plan.numbers:
        if normalize.amount(other.get(leaf)) is not None:
            one[leaf] = (one.get(leaf) or 0) + other[leaf]


def _collapsed(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One record that carries the sums of all."""
    for plan, rows in _records(page, gold, 2):
        for other in rows[1:]:
            _add(plan, rows[0], other)
        yield _done(plan, gold, rows[:1])


def _invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _records(page, gold):
        extra = {leaf: rng.randint(1000, 9_999_999) for leaf in plan.numbers}
        name = {plan.name: f"{rng.choice(INVENTED)} proposal"} if plan.name else {}
        yield _done(plan, gold, [*rows, {**rows[0], **extra, **name}])


def _of_loose_numbers(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One more record, of numbers that stand elsewhere in the text."""
    for plan, rows in _records(page, gold):
        own = {normalize.amount(row.get(leaf)) for row in rows for leaf in plan.numbers}
        loose = [int(n.value) for n in page.index.numbers if n.value == int(n.value) and n.value not in own]
        loose = [number for number in loose if 0 < number < 10**12]
        if loose:
            extra = {leaf: rng.choice(loose) for leaf in plan.numbers}
            yield _done(plan, gold, [*rows, {**rows[0], **extra}])


def _null(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _records(page, gold):
        yield _done(plan, gold, [{**row, **dict.fromkeys(plan.numbers)} for row in rows])


def _constant(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """The first record's numbers for every record: all totals are the same."""
    for plan, rows in _records(page, gold, 2):
        first = {leaf: rows[0].get(leaf) for leaf in plan.numbers}
        yield _done(plan, gold, [{**row, **first} for row in rows])


def _names(page: Page, gold: Answer, least: int = 1) -> Iterator[tuple[RecordPlan, Rows, str]]:
    for plan, rows in _records(page, gold, least):
        if plan.name:
            yield plan, rows, plan.name


def _name_of_another(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _names(page, gold, 2):
        one, other = rng.sample(rows, 2)
        one[leaf] = other[leaf]
        yield _done(plan, gold, rows, leaf)


def _names_swapped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _names(page, gold, 2):
        one, other = rng.sample(rows, 2)
        one[leaf], other[leaf] = other[leaf], one[leaf]
        yield _done(plan, gold, rows, leaf)


def _name_invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _names(page, gold):
        rng.choice(rows)[leaf] = f"{rng.choice(INVENTED)} scheme of the moon"
        yield _done(plan, gold, rows, leaf)


def _names_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _names(page, gold):
        yield _done(plan, gold, [{**row, leaf: (str(row[leaf]).split() or [""])[0]} for row in rows], leaf)


def _name_lookalike(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _names(page, gold):
        row = rng.choice(rows)
        row[leaf] = str(row[leaf]).translate(LOOKALIKE)
        yield _done(plan, gold, rows, leaf)


RECORD_KINDS: Mapping[str, Edit] = {
    "record_duplicated": _duplicated,
    "record_dropped": _dropped,
    "record_half_dropped": _half_dropped,
    "record_digit": _digit,
    "record_scaled": _scaled,
    "record_nulled": _nulled,
    "record_zeroed": _zeroed,
    "record_part_of_number": _halves,
    "record_leaves_swapped": _leaves_swapped,
    "record_shifted": _shifted,
    "record_column_swapped": _between_rows,
    "record_filled_from_another": _filled,
    "record_near_misses_with_amends": _amends,
    "records_merged": _merged,
    "records_collapsed": _collapsed,
    "record_invented": _invented,
    "record_of_loose_numbers": _of_loose_numbers,
    "records_null": _null,
    "records_constant": _constant,
    "record_name_of_another": _name_of_another,
    "record_names_swapped": _names_swapped,
    "record_name_invented": _name_invented,
    "record_names_cut": _names_cut,
    "record_name_lookalike": _name_lookalike,
}


def _mentions(page: Page, gold: Answer, least: int = 1) -> Iterator[tuple[MentionPlan, Rows]]:
    for array, plan in page.plan.mentions.items():
        rows = gold.get(array)
        if isinstance(rows, list) and len(rows) >= least:
            yield plan, [dict(row) for row in rows]


def _mention_dropped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _mentions(page, gold):
        rows.pop(rng.randrange(len(rows)))
        yield _done(plan, gold, rows)


def _mention_duplicated(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _mentions(page, gold):
        yield _done(plan, gold, [*rows, dict(rng.choice(rows))])


def _mention_invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _mentions(page, gold):
        yield _done(plan, gold, [*rows, {**rows[0], plan.spec.name: f"{rng.choice(INVENTED).title()} Vandermoon"}])


def _mention_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _mentions(page, gold):
        leaf = plan.spec.name
        found = [row for row in rows if len(str(row[leaf]).split()) > 1]
        if found:
            row = rng.choice(found)
            row[leaf] = str(row[leaf]).split()[0]
            yield _done(plan, gold, rows, leaf)


def _mention_word_added(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _mentions(page, gold):
        row = rng.choice(rows)
        row[plan.spec.name] = f"{row[plan.spec.name]} {rng.choice(INVENTED).title()}"
        yield _done(plan, gold, rows, plan.spec.name)


def _mention_moved(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A row of one array in another."""
    arrays = list(_mentions(page, gold))
    for plan, rows in arrays:
        others = [other for other in page.plan.mentions if other != plan.array]
        if others:
            row = rows.pop(rng.randrange(len(rows)))
            target = page.plan.mentions[rng.choice(others)]
            moved = {target.spec.name: row[plan.spec.name]}
            moved |= {key: None for key in target.fields if key != target.spec.name}
            moved_to = put(gold, target.array, [*(gold.get(target.array) or []), moved])
            yield plan.array, put(moved_to, plan.array, rows)


MENTION_KINDS: Mapping[str, Edit] = {
    "mention_dropped": _mention_dropped,
    "mention_duplicated": _mention_duplicated,
    "mention_invented": _mention_invented,
    "mention_cut": _mention_cut,
    "mention_word_added": _mention_word_added,
    "mention_moved": _mention_moved,
}
