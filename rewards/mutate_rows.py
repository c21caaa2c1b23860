"""Known-worse edits of the rows of an array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from random import Random
from typing import Any

from rewards import normalize
from rewards.mutate_shared import INVENTED, LOOKALIKE, Answer, Edit, Page, digit_changed, names_of, put, scaled, text
from rewards.plan import RowPlan

Change = tuple[str, Answer]
Rows = list[dict[str, Any]]


def _arrays(page: Page, gold: Answer, least: int = 1) -> Iterator[tuple[RowPlan, Rows]]:
    for array, plan in page.plan.rows.items():
        rows = gold.get(array)
        if isinstance(rows, list) and len(rows) >= least:
            yield plan, [dict(row) for row in rows]


def _amount(plan: RowPlan, row: Mapping[str, Any]) -> Decimal:
    return normalize.amount(row.get(plan.spec.amount)) or Decimal(0)


def _valued(plan: RowPlan, rows: Rows, rng: Random) -> dict[str, Any] | None:
    found = [row for row in rows if _amount(plan, row)]
    return rng.choice(found) if found else None


def _duplicated(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _arrays(page, gold):
        row = _valued(plan, rows, rng)
        if row is not None:
            rows.insert(rng.randint(0, len(rows)), dict(row))
            yield plan.array, put(gold, plan.array, rows)


def _dropped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _arrays(page, gold):
        row = _valued(plan, rows, rng)
        if row is not None:
            rows.remove(row)
            yield plan.array, put(gold, plan.array, rows)


def _swapped(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _arrays(page, gold, 2):
        leaf = plan.spec.amount
        pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i] if _amount(plan, a) != _amount(plan, b)]
        pairs = [(a, b) for a, b in pairs if a[plan.spec.name] != b[plan.spec.name]]
        if pairs:
            a, b = rng.choice(pairs)
            a[leaf], b[leaf] = b[leaf], a[leaf]
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _digit(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One digit of one number of a row, for each leaf that is a number."""
    for plan, _ in _arrays(page, gold):
        for key, field in plan.fields.items():
            rows = [dict(row) for row in gold[plan.array]]
            found = [row for row in rows if field.spec.kind in ("money", "number") and normalize.amount(row.get(key))]
            if found:
                row = rng.choice(found)
                row[key] = digit_changed(row[key], rng)
                yield f"{plan.array}[].{key}", put(gold, plan.array, rows)


def _near_misses_with_amends(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One amount up and another down by the same sum: the total still closes."""
    for plan, rows in _arrays(page, gold, 2):
        found = [row for row in rows if _amount(plan, row)]
        if len(found) > 1:
            a, b = rng.sample(found, 2)
            leaf, extra = plan.spec.amount, Decimal(rng.randint(1, 90)) / 100
            a[leaf], b[leaf] = text(_amount(plan, a) + extra, a[leaf]), text(_amount(plan, b) - extra, b[leaf])
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _scaled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _arrays(page, gold):
        row = _valued(plan, rows, rng)
        if row is not None:
            row[plan.spec.amount] = scaled(row[plan.spec.amount], rng)
            yield f"{plan.array}[].{plan.spec.amount}", put(gold, plan.array, rows)


def _rows_merged(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Two rows as one: the first one's name, both amounts together."""
    for plan, rows in _arrays(page, gold, 2):
        at = rng.randint(0, len(rows) - 2)
        one, other = rows[at], rows.pop(at + 1)
        if _amount(plan, other):
            one[plan.spec.amount] = text(_amount(plan, one) + _amount(plan, other), one[plan.spec.amount])
            yield plan.array, put(gold, plan.array, rows)


def _row_split(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One row as two that add up to it."""
    for plan, rows in _arrays(page, gold):
        row = _valued(plan, rows, rng)
        if row is not None:
            leaf = plan.spec.amount
            part = (_amount(plan, row) / 2).quantize(Decimal("0.01"))
            extra = {**row, leaf: text(_amount(plan, row) - part, row[leaf])}
            row[leaf] = text(part, row[leaf])
            rows.insert(rows.index(row) + 1, extra)
            yield plan.array, put(gold, plan.array, rows)


def _row_collapsed(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """One row that carries the sum of all."""
    for plan, rows in _arrays(page, gold, 2):
        whole = sum((_amount(plan, row) for row in rows), Decimal(0))
        rows[0][plan.spec.amount] = text(whole, rows[0][plan.spec.amount])
        yield plan.array, put(gold, plan.array, rows[:1])


def _row_of_totals(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A line of totals or of payment as one more row."""
    for plan, rows in _arrays(page, gold):
        lines = [line for line in page.index.lines if line.money and plan.summary.in_spaced(line.spaced)]
        own = {normalize.letters_digits(str(row.get(plan.spec.name))) for row in rows}
        lines = [line for line in lines if line.money[-1].value and "".join(line.words) not in own]
        if lines:
            line = rng.choice(lines)
            name = page.index.text[line.start : line.money[0].start].strip(" :|-$") or "TOTAL"
            extra = {**rows[0], plan.spec.name: name, plan.spec.amount: f"{abs(line.money[-1].value):.2f}"}
            yield plan.array, put(gold, plan.array, [*rows, extra])


def _row_invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows in _arrays(page, gold):
        extra = {
            **rows[0],
            plan.spec.name: f"{rng.choice(INVENTED)} ITEM",
            plan.spec.amount: f"{rng.uniform(1, 9):.2f}",
        }
        yield plan.array, put(gold, plan.array, [*rows, extra])


def _named(page: Page, gold: Answer, least: int = 1) -> Iterator[tuple[RowPlan, Rows, str]]:
    for plan, rows in _arrays(page, gold, least):
        if plan.fields[plan.spec.name].spec.kind == "text":
            yield plan, rows, plan.spec.name


def _name_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """The last word, the first word or the second half of a name left out."""
    for plan, rows, leaf in _named(page, gold):
        found = [row for row in rows if len(str(row[leaf]).split()) > 1]
        if found:
            row = rng.choice(found)
            parts = str(row[leaf]).split()
            row[leaf] = " ".join(rng.choice([parts[:-1], parts[1:], parts[: len(parts) // 2]]))
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _names_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Every name cut to its first word."""
    for plan, rows, leaf in _named(page, gold):
        for row in rows:
            row[leaf] = str(row[leaf]).split()[0] if str(row[leaf]).split() else row[leaf]
        yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_of_another_row(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _named(page, gold, 2):
        one, other = rng.sample(rows, 2)
        one[leaf] = other[leaf]
        yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_word_added(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _named(page, gold):
        row = rng.choice(rows)
        parts = str(row[leaf]).split()
        parts.insert(rng.randint(0, len(parts)), rng.choice(INVENTED))
        row[leaf] = " ".join(parts)
        yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _named(page, gold):
        rng.choice(rows)[leaf] = f"{rng.choice(INVENTED)} {rng.choice(['GOODS', 'ITEM', 'SERVICE'])}"
        yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_misspelt(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _named(page, gold):
        row = rng.choice(rows)
        given = str(row[leaf])
        places = [i for i, char in enumerate(given) if char.isascii() and char.isalpha()]
        if places:
            at = rng.choice(places)
            other = rng.choice([c for c in "ABDEGHKLMNOPRSTU" if c != given[at].upper()])
            row[leaf] = given[:at] + other + given[at + 1 :]
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_lookalike(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for plan, rows, leaf in _named(page, gold):
        row = rng.choice(rows)
        changed = str(row[leaf]).translate(LOOKALIKE)
        if changed != row[leaf] and not any("\u0400" <= char <= "\u04ff" for char in page.index.text):
            row[leaf] = changed
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


def _name_from_head(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A line of the page's head as a row's name."""
    for plan, rows, leaf in _named(page, gold):
        own = [normalize.letters_digits(name) for name in names_of(page, {plan.array: rows})]
        lines = [page.index.text[line.start : line.end].strip() for line in page.index.lines[:8]]
        lines = [line for line in lines if len(key := normalize.letters_digits(line)) > 3 and key not in own]
        if lines:
            rng.choice(rows)[leaf] = rng.choice(lines)
            yield f"{plan.array}[].{leaf}", put(gold, plan.array, rows)


ROW_KINDS: Mapping[str, Edit] = {
    "row_duplicated": _duplicated,
    "row_dropped": _dropped,
    "row_amounts_swapped": _swapped,
    "row_digit": _digit,
    "row_near_misses_with_amends": _near_misses_with_amends,
    "row_scaled": _scaled,
    "rows_merged": _rows_merged,
    "row_split": _row_split,
    "rows_collapsed": _row_collapsed,
    "row_of_totals": _row_of_totals,
    "row_invented": _row_invented,
    "row_name_cut": _name_cut,
    "row_names_cut": _names_cut,
    "row_name_of_another": _name_of_another_row,
    "row_name_word_added": _name_word_added,
    "row_name_invented": _name_invented,
    "row_name_misspelt": _name_misspelt,
    "row_name_lookalike": _name_lookalike,
    "row_name_from_head": _name_from_head,
}
