"""Receipts: 43 layout families, eleven of them held out of pre-training."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from random import Random
from typing import Any

from envs.synthetic_bill import Bill, Family, Line, draw_pen, draw_price, percent, plain, protect, soften
from envs.synthetic_head import head_lines, meta_lines
from envs.synthetic_items import COLUMNS, item_lines
from envs.synthetic_locales import LOCALES, Locale, draw_date, printed_date
from envs.synthetic_totals import payment_lines, total_lines
from envs.words import code, filler, item_name, pick, vendor

_ASIA = ("MY", "MY", "MY", "MY", "MY", "SG", "AU", "IN")
_WEST = ("US", "US", "UK", "UK", "AU", "SG", "MY")
_EURO = ("DE", "FR", "PT")
_ANY = ("MY", "MY", "MY", "US", "UK", "SG", "DE", "FR", "PT", "AU", "IN")

FAMILIES = (
    Family("till", _ANY, "name_amount", "plain", "meta", "plain"),
    Family("till_code", _ASIA, "name_amount", "registered", "meta", "plain"),
    Family("quantity_below", _ASIA, "name_then_quantity", "registered", "meta", "plain"),
    Family("barcode_block", _ASIA, "code_name_quantity", "registered", "with_cashier", "inclusive"),
    Family("barcode_first", _ASIA, "code_row_then_name", "registered", "counter", "inclusive"),
    Family("counter_slip", _WEST, "quantity_name_amount", "plain", "meta", "plain"),
    Family("four_columns", _ANY, "name_quantity_price_amount", "plain", "meta", "plain"),
    Family("four_columns_gst", _ASIA, "quantity_name_price_amount", "registered", "meta", "excl_incl"),
    Family("speed_mart", _ASIA, "code_name_at", "registered", "time_first", "sales_inclusive"),
    Family("canteen", _ASIA, "mark_code_name", "date_second", "none", "amount_tax_nett"),
    Family("wholesale", _ASIA, "numbered", "registered", "footer_label", "excl_incl"),
    Family("wrapped_names", _ASIA, "wrapped", "registered", "meta", "plain"),
    Family("restaurant", _ASIA, "quantity_name_amount", "table", "with_time", "service"),
    Family("wan_sheng", _ASIA, "name_then_quantity", "registered", "with_time", "excl_incl"),
    Family("diy", _ASIA, "name_code_quantity", "brackets", "footer_bare", "diy"),
    Family("furniture", _ASIA, "code_name_pieces", "registered", "meta", "inclusive"),
    Family("euro_bon", _EURO, "name_amount", "plain", "meta", "plain"),
    Family("euro_quantity", _EURO, "quantity_name_amount", "plain", "with_time", "plain"),
    Family("bazaar", _ANY, "drawn", "plain", "anywhere", "plain"),
    Family("depot", _ASIA, "drawn", "registered", "anywhere", "excl_incl"),
    Family("outlet", _ASIA, "drawn", "registered", "anywhere", "inclusive"),
    Family("arcade", _ASIA, "drawn", "registered", "anywhere", "sales_inclusive"),
    Family("kitchen", _WEST, "drawn", "table", "anywhere", "service"),
    Family("kiosk", _ASIA, "drawn", "registered", "anywhere", "amount_tax_nett"),
    Family("stall", _ANY, "free", "plain", "anywhere", "drawn"),
    Family("emporium", _ASIA, "free", "registered", "anywhere", "drawn"),
    Family("boutique", _ANY, "free", "brackets", "anywhere", "plain"),
    Family("agency", _ASIA, "free", "registered", "meta", "inclusive"),
    Family("workshop", _WEST, "free", "plain", "footer_label", "drawn"),
    Family("cantina", _EURO, "free", "plain", "anywhere", "drawn"),
    Family("parlour", _ANY, "name_amount", "table", "with_time", "drawn"),
    Family("yard", _ANY, "drawn", "registered", "footer_bare", "drawn"),
    Family("duck_house", _ASIA, "row_then_name", "registered", "with_time", "plain", held_out=True),
    Family("supply_table", _ASIA, "issue_table", "registered", "meta", "supplies", held_out=True),
    Family("spoken", _WEST, "spoken", "welcome", "spoken", "amount_first", held_out=True),
    Family("pipes", _ANY, "pipes", "plain", "after_items", "split_lines", held_out=True),
    Family("price_first", _WEST, "amount_first", "plain", "head_label", "boxed", held_out=True),
    Family("equation", _ANY, "equation", "brackets", "stamp", "equals", held_out=True),
    Family("dotted", _WEST, "dotted", "welcome", "stamp", "boxed", held_out=True),
    Family("list", _ANY, "listed", "plain", "spoken", "equals", held_out=True),
    Family("arrow", _ANY, "arrow", "welcome", "after_items", "plain", held_out=True),
    Family("bracketed", _WEST, "bracketed", "brackets", "head_label", "boxed", held_out=True),
    Family("slashes", _ANY, "slashes", "plain", "stamp", "split_lines", held_out=True),
)
# The share of bills whose tax comes on top, by style of totals.
_TAX_ADDED = {"plain": 0.3, "drawn": 0.3, "service": 0.5, "excl_incl": 0.5, "supplies": 0.5}


def print_receipt(rng: Random, family: Family) -> tuple[list[str], dict[str, Any]]:
    """(lines with protected spans, gold)."""
    locale = LOCALES[rng.choice(family.locales)]
    upper = rng.random() < (0.9 if family.locales == _ASIA else 0.6)
    case: Callable[[str], str] = str if upper else str.title
    p, day = draw_pen(rng, locale), draw_date(rng)
    name, bill = case(vendor(rng, locale.name)), _draw_bill(rng, locale, family, case)
    date = protect(printed_date(day, pick(rng, locale.dates), upper or rng.random() < 0.5))
    before, between, foot = meta_lines(p, family, date)
    items = item_lines(p, bill, family.item)
    totals, payment = total_lines(p, bill, family.totals), payment_lines(p, bill)
    phrases = locale.labels["thanks"].split("|")
    thanks = rng.sample(phrases, rng.randint(0, min(3, len(phrases))))
    rule = [pick(rng, f"{'-' * 20}|{'=' * 16}|- - - - -")] if rng.random() < 0.1 else []
    heading = rng.choice(COLUMNS.get(family.item, ("",)))
    if family.item in {"equation", "issue_table"} or rng.random() < 0.75:
        items = [heading, *items]
    chatty = rng.random() < 0.6
    aside, tail = filler(rng, locale.name, 0, 2 if chatty else 0), filler(rng, locale.name, 0, 6 if chatty else 1)
    if rng.random() < 0.3:
        foot, tail = [*foot, *tail], []
    head = head_lines(p, name, family, date)
    lines = [*head, *aside, *before, *rule, *items, *rule, *between, *totals, *payment, *foot, *thanks, *tail]
    return (lines if upper else [soften(line) for line in lines]), _gold(name, day, bill)


def _gold(vendor_name: str, day: datetime.date, bill: Bill) -> dict[str, Any]:
    items = [{"name": line.name, "amount": plain(line.amount_cents)} for line in bill.lines]
    gold: dict[str, Any] = {"vendor": vendor_name, "date": day.isoformat(), "items": items}
    if bill.discount:
        gold["discount"] = plain(bill.discount)
    if bill.service:
        gold["service_charge"] = plain(bill.service)
    gold["tax"] = None if bill.tax is None else plain(bill.tax)
    gold["rounding"] = None if bill.rounding is None else plain(bill.rounding)
    gold["total"] = plain(bill.total)
    return gold


def _draw_bill(rng: Random, locale: Locale, family: Family, case: Callable[[str], str]) -> Bill:
    """A bill that closes, with the parts that this family can print."""
    lines = _draw_lines(rng, family, case)
    subtotal = sum(line.amount_cents for line in lines)
    discount = (subtotal * rng.choice([5, 10, 20]) // 100 or None) if rng.random() < 0.10 else None
    base = subtotal - (discount or 0)
    service = (percent(base, 10) or None) if family.totals == "service" and rng.random() < 0.6 else None
    base += service or 0
    rate, draw = rng.choice(locale.rates), rng.random()
    tax_added = draw < _TAX_ADDED.get(family.totals, 0.3 if family.held_out else 0.0)
    tax: int | None = None
    if tax_added:
        tax = percent(base, rate)
    elif draw < 0.8 or family.totals in {"amount_tax_nett", "diy"}:
        tax = (base * rate + (100 + rate) // 2) // (100 + rate)
    due = base + tax if tax is not None and tax_added else base
    rounding: int | None = None
    if locale.name in {"MY", "AU", "SG"} and rng.random() < (0.9 if family.totals == "sales_inclusive" else 0.45):
        rounding = (due + 2) // 5 * 5 - due
    tax_label, total = pick(rng, locale.taxes), due + (rounding or 0)
    return Bill(lines, subtotal, discount, service, tax, tax_added, rate, tax_label, rounding, total)


def _draw_lines(rng: Random, family: Family, case: Callable[[str], str]) -> tuple[Line, ...]:
    coded, marked = rng.random() < 0.5, rng.random() < 0.45
    mark = pick(rng, "SR|S|T|SR|Z|ZRL|*|A") if marked else ""
    count = rng.choice([1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7])
    if rng.random() < 0.05:
        count += rng.randint(1, 5)
    lines = []
    for _ in range(count):
        unit, milli = draw_price(rng), _draw_quantity(rng)
        if family.item == "row_then_name" or (family.item == "wrapped" and rng.random() < 0.6):
            milli = 1000
        name, number = case(item_name(rng)), code(rng) if coded else ""
        lines.append(Line(name, number, mark, milli, unit, (unit * milli + 500) // 1000))
    return tuple(lines)


def _draw_quantity(rng: Random) -> int:
    """Thousandths: mostly a few pieces, sometimes a weight."""
    pieces = rng.random() < 0.93
    return 1000 * rng.choice([1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 10, 12]) if pieces else rng.randint(100, 3500)
