"""Invoices: eight layout families, two of them held out of pre-training."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from envs.synthetic_bill import Family, Pen, draw_pen, draw_price, percent, plain, protect, steady
from envs.synthetic_locales import LOCALES, Locale, draw_date, printed_date
from envs.words import address, code, digits, item_name, maybe, person, phone, pick, vendor, word

_ANY = ("US", "UK", "MY", "SG", "AU", "IN", "DE", "FR", "PT")

FAMILIES = (
    Family("letter", _ANY, "name_quantity_price_amount", "seller_first", "labelled", "plain"),
    Family("number_first", _ANY, "numbered", "title_first", "labelled", "plain"),
    Family("code_table", _ANY, "code_name", "seller_first", "block", "plain"),
    Family("services", _ANY, "name_below", "seller_first", "labelled", "colon"),
    Family("bill_to_first", _ANY, "name_quantity_price_amount", "customer_first", "block", "colon"),
    Family("compact", _ANY, "quantity_first", "one_line", "labelled", "plain"),
    Family("cells", _ANY, "cells", "title_first", "block", "split_lines", held_out=True),
    Family("sentence", _ANY, "sentence", "one_line", "sentence", "equals", held_out=True),
)
_COLUMNS = "DESCRIPTION  QTY  UNIT PRICE  AMOUNT|ITEM  QUANTITY  PRICE  TOTAL|DESCRIPTION  QTY  RATE  AMOUNT"
_FEET = "PAYMENT WITHIN 30 DAYS|E. & O.E.|THANK YOU FOR YOUR BUSINESS|PAYMENT BY BANK TRANSFER"


@dataclass(frozen=True, slots=True)
class _Sums:
    """subtotal - discount + shipping + tax == total. Money in cents, the rate in percent."""

    subtotal: int
    discount: int | None
    shipping: int | None
    rate: int
    tax: int | None
    total: int


def print_invoice(rng: Random, family: Family) -> tuple[list[str], dict[str, Any]]:
    """(lines with protected spans, gold)."""
    locale = LOCALES[rng.choice(family.locales)]
    p, loc = draw_pen(rng, locale), locale.name
    case: Callable[[str], str] = str if rng.random() < 0.5 else str.title
    name, customer = case(vendor(rng, loc)), case(vendor(rng, loc))
    number = pick(rng, "INV-{}|{}|2018/{}|F{}|IV{}|SI-{}|{}-A").format(digits(rng, rng.randint(3, 7)))
    day, form = draw_date(rng), pick(rng, locale.dates)
    due = day + datetime.timedelta(days=rng.choice([7, 14, 30, 45, 60]))
    items, rows = _draw_items(p, family.item, case)
    sums = _draw_sums(rng, locale, sum(quantity * unit for _, quantity, unit in items))

    # A bare or shared currency sign does not say which currency it is: then the page has to.
    ambiguous = p.prefix.strip() in {"$", ""} and not locale.suffix
    stated = rng.random() < 0.5 or ambiguous
    totals = _total_lines(p, family.totals, sums)
    seller = _seller(rng, locale, name)
    buyer = [steady(pick(rng, "BILL TO:|BILL TO|SOLD TO|CUSTOMER:|TO:")), customer, *address(rng, loc)]
    title = pick(rng, f"INVOICE|TAX INVOICE|COMMERCIAL INVOICE|{locale.labels['title']}")
    meta = _meta(p, family.date, number, protect(printed_date(day, form, True)), printed_date(due, form, True))
    currencies = f"CURRENCY: {locale.currency}|ALL AMOUNTS IN {locale.currency}"
    currency = [protect(pick(rng, currencies))] if stated else []
    head = _head(family.head, title, seller, buyer, meta)
    columns = [pick(rng, _COLUMNS)] if family.item not in {"sentence", "name_below"} else []
    lines = [*head, *currency, *columns, *rows, *totals, *_foot(rng, loc)]
    header = {"vendor": name, "invoice_number": number, "date": day.isoformat(), "currency": locale.currency}
    return lines, header | _gold(items, sums)


def _gold(items: list[tuple[str, int, int]], sums: _Sums) -> dict[str, Any]:
    rows = [
        {"name": name, "quantity": str(quantity), "unit_price": plain(unit), "amount": plain(quantity * unit)}
        for name, quantity, unit in items
    ]
    gold: dict[str, Any] = {"items": rows, "subtotal": plain(sums.subtotal)}
    if sums.discount:
        gold["discount"] = plain(sums.discount)
    if sums.shipping:
        gold["shipping"] = plain(sums.shipping)
    gold["tax"] = None if sums.tax is None else plain(sums.tax)
    gold["total"] = plain(sums.total)
    return gold


def _draw_items(p: Pen, style: str, case: Callable[[str], str]) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Items as (name, quantity, unit price in cents), and their printed rows."""
    rng = p.rng
    items: list[tuple[str, int, int]] = []
    rows: list[str] = []
    for i in range(rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6])):
        unit, quantity = draw_price(rng) * rng.choice([1, 1, 10]), rng.choice([1, 1, 2, 3, 4, 5, 8, 10, 12, 20, 25])
        name, article = case(item_name(rng)), code(rng)
        items.append((name, quantity, unit))
        cells = protect(name), protect(str(quantity)), p.item_money(unit), p.item_money(quantity * unit)
        rows += _item_lines(p, style, i, article, *cells)
    return items, rows


def _item_lines(p: Pen, style: str, i: int, article: str, name: str, q: str, unit: str, amount: str) -> list[str]:
    match style:
        case "numbered":
            return [p.row(str(i + 1), name, q, unit, amount)]
        case "code_name":
            return [p.row(article, name, q, unit, amount)]
        case "name_below":
            return [name, p.row(f"{q} x {unit}", amount)]
        case "quantity_first":
            return [p.row(q, name, unit, amount)]
        case "cells":
            return [name, q, unit, amount]
        case "sentence":
            return [f"{q} {steady('of')} {name} {steady('at')} {unit} {steady('makes')} {amount}"]
    return [p.row(name, q, unit, amount)]


def _draw_sums(rng: Random, locale: Locale, subtotal: int) -> _Sums:
    discount = (subtotal * rng.choice([5, 10]) // 100 or None) if rng.random() < 0.2 else None
    shipping = draw_price(rng) if rng.random() < 0.2 else None
    rate, net = rng.choice(locale.rates), subtotal - (discount or 0) + (shipping or 0)
    tax = percent(net, rate) if rng.random() < 0.8 else None
    return _Sums(subtotal, discount, shipping, rate, tax, net + (tax or 0))


def _total_lines(p: Pen, style: str, sums: _Sums) -> list[str]:
    """From subtotal to total; the labels of these two are protected."""
    rng, taxes = p.rng, p.locale.taxes
    rows = [(protect(p.label("subtotal")), p.money(sums.subtotal))]
    if sums.discount:
        rows.append((steady(p.label("discount")), p.money(-sums.discount if rng.random() < 0.5 else sums.discount)))
    if sums.shipping:
        rows.append((steady(p.label("shipping")), p.money(sums.shipping)))
    if sums.tax is not None:
        forms = f"{pick(rng, taxes)} {sums.rate}%|{pick(rng, taxes)} ({sums.rate}%)|{pick(rng, taxes)}"
        rows.append((steady(pick(rng, forms)), p.money(sums.tax)))
    rows.append((protect(p.label("total")), p.money(sums.total, True)))
    between = {"colon": ":  ", "split_lines": "\n", "equals": " = "}.get(style, "  ")
    return [f"{label}{between}{money}" for label, money in rows]


def _seller(rng: Random, locale: Locale, name: str) -> list[str]:
    lines = [protect(name), *address(rng, locale.name)]
    if rng.random() < 0.6:
        lines.append(f"TEL: {phone(rng, locale.name)}")
    if rng.random() < 0.5:
        lines.append(f"{locale.tax} NO: {digits(rng, 9)}")
    return lines


def _meta(p: Pen, style: str, number: str, date: str, due: str) -> list[str]:
    """The lines with number (gold), date (gold) and due date."""
    rng, number = p.rng, protect(number)
    number_label = steady(pick(rng, "INVOICE NO|INVOICE NUMBER|INVOICE #|INV NO|NO."))
    due_line = f"{pick(rng, 'DUE DATE|PAYMENT DUE|DUE')}: {due}"
    if style == "block":
        return [f"{number_label}  {pick(rng, 'INVOICE DATE|DATE')}  DUE DATE", f"{number}  {date}  {due}"]
    if style == "sentence":
        return [f"{steady('Invoice')} {number} was issued on {date} and is payable by {due}."]
    date_label = pick(rng, f"INVOICE DATE|DATE|ISSUED|{p.label('date').rstrip(' :')}")
    return [f"{number_label}: {number}", f"{date_label}: {date}", *maybe(rng, 0.6, due_line)]


def _head(style: str, title: str, seller: list[str], buyer: list[str], meta: list[str]) -> list[str]:
    match style:
        case "customer_first":
            return [title, *buyer, "FROM:", *seller, *meta]
        case "title_first":
            return [title, *meta, *seller, *buyer]
        case "one_line":
            return [" | ".join(seller[:2]), *seller[2:], *meta, " ".join(buyer[:2])]
    return [*seller, title, *meta, *buyer]


def _foot(rng: Random, loc: str) -> list[str]:
    lines = []
    if rng.random() < 0.3:
        lines.append(f"IBAN {loc}{digits(rng, 18)}")
    if rng.random() < 0.4:
        lines.append(f"CONTACT {person(rng)}, {word(rng)} BANK A/C {digits(rng, 10)}")
    if rng.random() < 0.6:
        lines.append(pick(rng, _FEET))
    return lines
