"""Invoices: eight layout families, two of them held out of pre-training."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from random import Random
from typing import Any

from envs.synthetic_bill import LOCALES, Family, Pen, draw_date, draw_price, pen, plain, printed_date, protect
from envs.words import address, code, digits, item_name, person, phone, vendor, word

P = protect
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


def _item(p: Pen, style: str, i: int, name: str, q: str, unit: str, amount: str, article: str) -> list[str]:
    gap = p.gap
    if style == "numbered":
        return [f"{i + 1}{gap}{name}{gap}{q}{gap}{unit}{gap}{amount}"]
    if style == "code_name":
        return [f"{article}{gap}{name}{gap}{q}{gap}{unit}{gap}{amount}"]
    if style == "name_below":
        return [name, f"{q} x {unit}{gap}{amount}"]
    if style == "quantity_first":
        return [f"{q}{gap}{name}{gap}{unit}{gap}{amount}"]
    if style == "cells":
        return [name, q, unit, amount]
    if style == "sentence":
        return [f"{q} of {name} at {unit} makes {amount}"]
    return [f"{name}{gap}{q}{gap}{unit}{gap}{amount}"]


def print_invoice(rng: Random, family: Family) -> tuple[list[str], dict[str, Any]]:
    """(lines with protected spans, gold)."""
    locale = LOCALES[rng.choice(family.locales)]
    p, loc, gap = pen(rng, locale), locale.name, "  "
    case: Callable[[str], str] = str if rng.random() < 0.5 else str.title
    name, customer = case(vendor(rng, loc)), case(vendor(rng, loc))
    number = rng.choice(["INV-{}", "{}", "2018/{}", "F{}", "IV{}", "SI-{}", "{}-A"]).format(digits(rng, rng.randint(3, 7)))
    day, form = draw_date(rng), rng.choice(locale.dates)
    due = day + datetime.timedelta(days=rng.choice([7, 14, 30, 45, 60]))
    printed, printed_due = P(printed_date(day, form, True)), printed_date(due, form, True)
    items, rows, subtotal = [], [], 0
    for i in range(rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6])):
        unit, quantity = draw_price(rng) * rng.choice([1, 1, 10]), rng.choice([1, 1, 2, 3, 4, 5, 8, 10, 12, 20, 25])
        title = case(item_name(rng))
        items.append({"name": title, "quantity": str(quantity), "unit_price": plain(unit), "amount": plain(unit * quantity)})
        rows += _item(p, family.item, i, P(title), P(str(quantity)), p.item_money(unit), p.item_money(unit * quantity), code(rng))
        subtotal += unit * quantity
    discount = (subtotal * rng.choice([5, 10]) // 100 or None) if rng.random() < 0.2 else None
    shipping = draw_price(rng) if rng.random() < 0.2 else None
    rate, net = rng.choice(locale.rates), subtotal - (discount or 0) + (shipping or 0)
    tax = (net * rate + 50) // 100 if rng.random() < 0.8 else None
    total = net + (tax or 0)

    currency = locale.currency
    stated = rng.random() < 0.5
    totals: list[tuple[str, str]] = [(P(p.label("subtotal")), p.money(subtotal))]
    if discount:
        totals.append((p.label("discount"), p.money(-discount if rng.random() < 0.5 else discount)))
    if shipping:
        totals.append((p.label("shipping"), p.money(shipping)))
    if tax is not None:
        totals.append((rng.choice([f"{rng.choice(locale.taxes)} {rate}%", f"{rng.choice(locale.taxes)} ({rate}%)", rng.choice(locale.taxes)]), p.money(tax)))
    totals.append((P(p.label("total")), p.money(total, True)))
    joined = {"colon": f":{gap}", "split_lines": "\n", "equals": " = "}.get(family.totals, gap)
    total_lines = [f"{label}{joined}{value}" for label, value in totals]

    seller = [P(name), *address(rng, loc), *([f"TEL: {phone(rng, loc)}"] if rng.random() < 0.6 else []), *([f"{locale.taxes[0]} NO: {digits(rng, 9)}"] if rng.random() < 0.5 else [])]
    buyer = [rng.choice(["BILL TO:", "BILL TO", "SOLD TO", "CUSTOMER:", "TO:"]), customer, *address(rng, loc)]
    title = rng.choice(["INVOICE", "TAX INVOICE", "COMMERCIAL INVOICE", *locale.labels["title"]])
    number_label = rng.choice(["INVOICE NO", "INVOICE NUMBER", "INVOICE #", "INV NO", "NO."])
    due_line = f"{rng.choice(['DUE DATE', 'PAYMENT DUE', 'DUE'])}: {printed_due}"
    if family.date == "block":
        meta = [f"{number_label}{gap}{rng.choice(['INVOICE DATE', 'DATE'])}{gap}DUE DATE", f"{P(number)}{gap}{printed}{gap}{printed_due}"]
    elif family.date == "sentence":
        meta = [f"Invoice {P(number)} was issued on {printed} and is payable by {printed_due}."]
    else:
        meta = [f"{number_label}: {P(number)}", f"{rng.choice(['INVOICE DATE', 'DATE', 'ISSUED', p.label('date').rstrip(' :')])}: {printed}", *([due_line] if rng.random() < 0.6 else [])]
    money_line = [P(rng.choice([f"CURRENCY: {currency}", f"ALL AMOUNTS IN {currency}"]))] if stated or p.prefix.strip() in {"$", ""} and loc not in {"DE", "FR", "PT"} else []
    if family.head == "customer_first":
        head = [title, *buyer, "FROM:", *seller, *meta]
    elif family.head == "title_first":
        head = [title, *meta, *seller, *buyer]
    elif family.head == "one_line":
        head = [" | ".join(seller[:2]), *seller[2:], *meta, " ".join(buyer[:2])]
    else:
        head = [*seller, title, *meta, *buyer]
    columns = [rng.choice(["DESCRIPTION  QTY  UNIT PRICE  AMOUNT", "ITEM  QUANTITY  PRICE  TOTAL", "DESCRIPTION  QTY  RATE  AMOUNT"])] if family.item not in {"sentence", "name_below"} else []
    foot = [*([f"IBAN {loc}{digits(rng, 18)}"] if rng.random() < 0.3 else []), *([f"CONTACT {person(rng)}, {word(rng)} BANK A/C {digits(rng, 10)}"] if rng.random() < 0.4 else []),
            *([rng.choice(["PAYMENT WITHIN 30 DAYS", "E. & O.E.", "THANK YOU FOR YOUR BUSINESS", "PAYMENT BY BANK TRANSFER"])] if rng.random() < 0.6 else [])]  # fmt: skip
    gold: dict[str, Any] = {"vendor": name, "invoice_number": number, "date": day.isoformat(), "currency": currency, "items": items, "subtotal": plain(subtotal)}
    if discount:
        gold["discount"] = plain(discount)
    if shipping:
        gold["shipping"] = plain(shipping)
    gold["tax"] = None if tax is None else plain(tax)
    gold["total"] = plain(total)
    return [*head, *money_line, *columns, *rows, *total_lines, *foot], gold
