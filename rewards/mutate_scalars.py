"""Known-worse edits of the fields outside arrays: amounts, dates, names, codes and classes."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from random import Random
from typing import Any

from rewards import normalize
from rewards.dates import DATE_FORMATS, find_dates, iso
from rewards.mutate_shared import (
    INVENTED,
    LOOKALIKE,
    Answer,
    Edit,
    Page,
    digit_changed,
    get,
    of_kind,
    put,
    scaled,
    text,
    without,
)
from rewards.plan import FieldPlan, Phrases
from rewards.relations import evaluate

CENT = Decimal("0.01")
_RATE = re.compile(r"(?<![\d.,])(\d{1,2}(?:[.,]\d{1,2})?)\s?%")
Change = tuple[str, Answer]


def _amounts(page: Page, gold: Answer) -> Iterator[tuple[FieldPlan, Any, Decimal]]:
    """The amounts outside arrays that are not zero."""
    for field in of_kind(page.plan, "money", "number"):
        given = get(gold, field.path)
        number = normalize.amount(given)
        if number:
            yield field, given, number


def _amount_digit(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given, _ in _amounts(page, gold):
        yield field.path, put(gold, field.path, digit_changed(given, rng))


def _amount_cent(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given, number in _amounts(page, gold):
        if field.spec.kind == "money":
            yield field.path, put(gold, field.path, text(number + rng.choice([CENT, -CENT]), given))


def _amount_scaled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given, _ in _amounts(page, gold):
        yield field.path, put(gold, field.path, scaled(given, rng))


def _amount_sign(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given, number in _amounts(page, gold):
        if not field.unsigned:
            yield field.path, put(gold, field.path, text(-number, given))


def _amount_elsewhere(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Another amount of the page, whatever it is there."""
    for field, given, number in _amounts(page, gold):
        others = sorted({n.value for n in page.index.money if n.value > 0 and n.value != number})
        if others and field.spec.kind == "money":
            yield field.path, put(gold, field.path, text(rng.choice(others), given))


def _on_lines(page: Page, marks: Phrases | None, own: Decimal) -> list[Decimal]:
    found: set[Decimal] = set()
    for line in page.index.lines:
        if marks is not None and line.money and marks.in_spaced(line.spaced):
            found.update(n.value for n in line.money if n.value > 0 and n.value != own)
    return sorted(found)


def _amount_paid(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """What stands beside cash, change and the like."""
    for field, given, number in _amounts(page, gold):
        others = _on_lines(page, field.stop, number)
        if others:
            yield field.path, put(gold, field.path, text(rng.choice(others), given))


def _amount_mislabelled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """What stands beside a label that the task says to avoid: a subtotal, a total before tax."""
    for field, given, number in _amounts(page, gold):
        if field.spec.last:
            paid = _on_lines(page, field.stop, number)
            others = [value for value in _on_lines(page, field.avoid, number) if value not in paid]
            if others:
                yield field.path, put(gold, field.path, text(rng.choice(others), given))


def _amount_of_another_field(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    known = list(_amounts(page, gold))
    for field, given, number in known:
        others = [other for rest, _, other in known if rest is not field and abs(other) != abs(number)]
        if others:
            yield field.path, put(gold, field.path, text(abs(rng.choice(others)), given))


def _missing(page: Page, gold: Answer) -> Iterator[FieldPlan]:
    """The money fields that gold does not have, required or optional."""
    known = page.task.schema.get("properties", {})
    for field in of_kind(page.plan, "money"):
        if get(gold, field.path) is None and field.path in known:
            yield field


def _invented(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A value for a field that the page does not have, out of the air."""
    for field in _missing(page, gold):
        yield field.path, put(gold, field.path, f"{rng.uniform(0.1, 9):.2f}")


def _invented_from_page(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """A value for a field that the page does not have: another amount of the page."""
    others = sorted({n.value for n in page.index.money if n.value > 0})
    for field in _missing(page, gold):
        left_out = _left_out(page, gold, field)
        wrong = [other for other in others if other not in left_out]
        if wrong:
            yield field.path, put(gold, field.path, f"{rng.choice(wrong):.2f}")


def _left_out(page: Page, gold: Answer, field: FieldPlan) -> set[Decimal]:
    """Amounts that the page prints as this field though gold does not have it, such as the tax that the total holds
    (GST 6%: 8.38 of 148.00). The page must name the field, with the rate on that line or on the amount's own."""
    named = field.cue.lines(page.index.lines) if field.cue is not None else []
    if not named:
        return set()
    totals = [normalize.amount(get(gold, field.path)) for field in of_kind(page.plan, "money") if field.spec.last]
    rates: dict[int, set[Decimal]] = {}
    for i in {*named, *(n.line for n in page.index.money)}:
        line = page.index.lines[i]
        printed = _RATE.findall(page.index.text, line.start, line.end)
        rates[i] = {Decimal(rate.replace(",", ".")) for rate in printed}
    everywhere = set().union(*(rates[i] for i in named))
    return {
        number.value
        for number in page.index.money
        for rate in everywhere | rates[number.line]
        for total in totals
        if total and abs(number.value - total * rate / (100 + rate)) <= CENT
    }


def _invented_with_amends(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """An invented amount, and the total changed so that a relation over both closes again."""
    totals = [field for field in of_kind(page.plan, "money") if field.spec.last]
    for field in _missing(page, gold):
        for total in totals:
            number = normalize.amount(get(gold, total.path))
            if not number or field.path == total.path:
                continue
            extra = Decimal(rng.randint(10, 900)) / 100
            for amends in (extra, -extra):
                changed = put(gold, field.path, f"{extra:.2f}")
                changed = put(changed, total.path, text(number + amends, get(gold, total.path)))
                if _closes(page, changed, field.path):
                    yield field.path, changed
                    break


def _closes(page: Page, value: Answer, path: str) -> bool:
    """Whether a relation with this field closes."""
    for relation in (relation for listed in page.task.relations.values() for relation in listed):
        if path in relation.paths and relation.rows is None and relation.right is not None:
            left = evaluate(relation.left, value)
            if left is not None and left == evaluate(relation.right, value):
                return True
    return False


def _nulled(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """null, or no key, where there is a value."""
    for field in page.plan.scalars.values():
        if get(gold, field.path) is None or normalize.amount(get(gold, field.path)) == 0:
            continue
        if field.nullable:
            yield field.path, put(gold, field.path, None)
        elif field.path not in page.task.schema.get("required", ()) and "." not in field.path:
            yield field.path, without(gold, field.path)


def _dates(page: Page, gold: Answer) -> Iterator[tuple[FieldPlan, datetime.date]]:
    for field in of_kind(page.plan, "date"):
        day = iso(get(gold, field.path))
        if day is not None:
            yield field, day


def _date_shifted(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, day in _dates(page, gold):
        days = rng.choice([1, -1, 7, 10, -10, 30, 365, -365])
        yield field.path, put(gold, field.path, (day + datetime.timedelta(days)).isoformat())


def _date_year(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, day in _dates(page, gold):
        year = day.year + rng.choice([1, -1, 10, -10])
        last = calendar.monthrange(year, day.month)[1]
        yield field.path, put(gold, field.path, day.replace(year=year, day=min(day.day, last)).isoformat())


def _date_day_month(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, day in _dates(page, gold):
        if day.day <= 12 and day.day != day.month:
            yield field.path, put(gold, field.path, day.replace(month=day.day, day=day.month).isoformat())


def _date_elsewhere(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Another printed date; not the same digits read in another order."""
    for field, day in _dates(page, gold):
        others = set()
        for mention in find_dates(page.index.text, field.spec.formats or DATE_FORMATS):
            days = {found for _, found in mention.readings}
            if day not in days:
                others |= days
        if others:
            yield field.path, put(gold, field.path, rng.choice(sorted(others)).isoformat())


def _texts(page: Page, gold: Answer) -> Iterator[tuple[FieldPlan, str]]:
    for field in of_kind(page.plan, "text"):
        given = get(gold, field.path)
        if isinstance(given, str) and given.strip():
            yield field, given


def _near_top(page: Page, field: FieldPlan) -> list[tuple[str, str]]:
    """(text, letters and digits) of the lines where such a name is looked for."""
    rows = page.index.lines[: field.spec.top or 12]
    lines = [page.index.text[line.start : line.end].strip() for line in rows]
    return [(line, key) for line in lines if len(key := normalize.letters_digits(line)) > 2]


def _text_other_line(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given in _texts(page, gold):
        own = normalize.letters_digits(given)
        others = [line for line, key in _near_top(page, field) if key not in own and own not in key]
        if others:
            yield field.path, put(gold, field.path, rng.choice(others)[:120])


def _text_joined(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """The name with the line above it (a brand) or below it (an address)."""
    for field, given in _texts(page, gold):
        own = normalize.letters_digits(given)
        lines = _near_top(page, field)
        at = next((i for i, (_, key) in enumerate(lines) if own == key or key.startswith(own)), None)
        if at is None:
            continue
        joined = [f"{lines[at - 1][0]} {given}"] if at > 0 else []
        joined += [f"{given} {lines[at + 1][0]}"] if at + 1 < len(lines) and own == lines[at][1] else []
        if joined:
            yield field.path, put(gold, field.path, rng.choice(joined)[:120])


def _text_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given in _texts(page, gold):
        parts = given.split()
        if len(parts) > 1:
            shorter = rng.choice([parts[:-1], parts[1:], parts[: len(parts) // 2]])
            yield field.path, put(gold, field.path, " ".join(shorter))


def _text_word_added(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given in _texts(page, gold):
        parts = given.split()
        parts.insert(rng.randint(0, len(parts)), rng.choice(INVENTED))
        yield field.path, put(gold, field.path, " ".join(parts)[:120])


def _text_misspelt(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given in _texts(page, gold):
        places = [i for i, char in enumerate(given) if char.isascii() and char.isalpha()]
        if places:
            at = rng.choice(places)
            other = rng.choice([c for c in "ABDEGHKLMNOPRSTU" if c != given[at].upper()])
            yield field.path, put(gold, field.path, given[:at] + other + given[at + 1 :])


def _text_lookalike(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    """Letters of another alphabet that look the same: no reader sees it, every database does."""
    for field, given in _texts(page, gold):
        changed = given.translate(LOOKALIKE)
        if changed != given and not any("\u0400" <= char <= "\u04ff" for char in page.index.text):
            yield field.path, put(gold, field.path, changed)


def _text_invisible(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field, given in _texts(page, gold):
        if len(given) > 2 and not normalize.invisible(page.index.text):
            at = rng.randint(1, len(given) - 1)
            yield field.path, put(gold, field.path, given[:at] + rng.choice("\u200b\u200d\u2060") + given[at:])


def _code_digit(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field in of_kind(page.plan, "code"):
        given = get(gold, field.path)
        if isinstance(given, str) and any(char.isdigit() for char in given):
            yield field.path, put(gold, field.path, digit_changed(given, rng))


def _code_cut(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field in of_kind(page.plan, "code"):
        given = get(gold, field.path)
        if isinstance(given, str) and len(given) > 3:
            yield field.path, put(gold, field.path, rng.choice([given[1:], given[:-1]]).strip())


def _class_other(page: Page, gold: Answer, rng: Random) -> Iterator[Change]:
    for field in of_kind(page.plan, "class"):
        given = get(gold, field.path)
        others = [word for word in field.words if word != given]
        if given is not None and others:
            yield field.path, put(gold, field.path, rng.choice(others))


SCALAR_KINDS: Mapping[str, Edit] = {
    "amount_digit": _amount_digit,
    "amount_cent": _amount_cent,
    "amount_scaled": _amount_scaled,
    "amount_sign": _amount_sign,
    "amount_elsewhere": _amount_elsewhere,
    "amount_paid": _amount_paid,
    "amount_mislabelled": _amount_mislabelled,
    "amount_of_another_field": _amount_of_another_field,
    "invented": _invented,
    "invented_from_page": _invented_from_page,
    "invented_with_amends": _invented_with_amends,
    "nulled": _nulled,
    "date_shifted": _date_shifted,
    "date_year": _date_year,
    "date_day_month": _date_day_month,
    "date_elsewhere": _date_elsewhere,
    "text_other_line": _text_other_line,
    "text_joined": _text_joined,
    "text_cut": _text_cut,
    "text_word_added": _text_word_added,
    "text_misspelt": _text_misspelt,
    "text_lookalike": _text_lookalike,
    "text_invisible": _text_invisible,
    "code_digit": _code_digit,
    "code_cut": _code_cut,
    "class_other": _class_other,
}
