"""Receipts: 24 layout families, six of them held out of pre-training."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from envs.synthetic_bill import LOCALES, Bill, Family, Line, Locale, Pen, clock, draw_date, draw_price, pen, plain, printed_date, protect
from envs.words import CITIES, address, code, digits, filler, initials, item_name, person, phone, vendor, word

P = protect
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
    Family("duck_house", _ASIA, "row_then_name", "registered", "with_time", "plain", held_out=True),
    Family("supply_table", _ASIA, "issue_table", "registered", "meta", "supplies", held_out=True),
    Family("spoken", _WEST, "spoken", "welcome", "spoken", "amount_first", held_out=True),
    Family("pipes", _ANY, "pipes", "plain", "after_items", "split_lines", held_out=True),
    Family("price_first", _WEST, "amount_first", "plain", "head_label", "boxed", held_out=True),
    Family("equation", _ANY, "equation", "brackets", "stamp", "equals", held_out=True),
)


def _rows(p: Pen, line: Line) -> tuple[str, str, str, str]:
    """The four printed cells: name (gold), quantity, unit price, amount (gold)."""
    return P(line.name), p.quantity(line.quantity_milli), p.item_money(line.unit_cents), p.item_money(line.amount_cents)


def _tail(p: Pen, line: Line) -> str:
    return f"{p.rng.choice([' ', p.gap])}{line.mark}" if line.mark else ""


def _name_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    lead = f"{line.code} " if line.code and p.rng.random() < 0.3 else ""
    out = [f"{lead}{name}{p.gap}{a}{_tail(p, line)}"]
    if line.quantity_milli != 1000:
        detail = p.rng.choice([f"{q} X {u}", f"{q} @ {u}", f"{q}X{u}", f"  {q} x {u}"])
        return [detail, *out] if p.rng.random() < 0.4 else [*out, detail]
    return out


def _name_then_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [name, p.rng.choice([f"{q} X{p.gap}{u}{p.gap}{a}", f"{q} {p.rng.choice(['PCS', 'UNIT', 'NOS', 'EA'])} X {u}{p.gap}{a}", f"{q}X {u}{p.gap}{a}"]) + _tail(p, line)]


def _code_name_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    first = [f"{line.code or digits(p.rng, 6)} {name}"] if p.rng.random() < 0.5 else [line.code or digits(p.rng, 6), name]
    return [*first, f"{q} X {u}{p.gap}{a}{_tail(p, line)}"]


def _code_row_then_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{line.code or digits(p.rng, 13)}{p.gap}{q}{p.gap}{u}{p.gap}{a}{line.mark}", name]


def _quantity_name_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{q}{p.rng.choice([' ', p.gap, 'X ', ' X '])}{name}{p.gap}{a}{_tail(p, line)}"]


def _name_quantity_price_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{name}{p.gap}{q}{p.gap}{u}{p.gap}{a}{_tail(p, line)}"]


def _quantity_name_price_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{q}{p.gap}{name}{p.gap}{u}{p.gap}{a}{_tail(p, line)}"]


def _code_name_at(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    out = [f"{line.code or digits(p.rng, 4)} {name}{p.gap}{a}{p.gap}{line.mark}".rstrip()]
    return out if line.quantity_milli == 1000 else [*out, f"@{q} X {u}"]


def _mark_code_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{line.mark or 'SR'} {line.code or 'I00' + digits(p.rng, 9)}- {name}", f"{u}{p.gap}{q}{p.gap}{a}"]


def _numbered(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    lead = f"{line.code}  " if line.code else ""
    return [f"{i + 1}. {lead}{name}", f"{q} X {u}{p.gap}{a}{_tail(p, line)}"]


def _wrapped(p: Pen, line: Line, i: int) -> list[str]:
    _, q, u, a = _rows(p, line)
    words = line.name.split(" ")
    cut = max(1, len(words) // 2) if len(words) > 2 else len(words)
    first, rest = " ".join(words[:cut]), " ".join(words[cut:])
    cells = p.rng.choice([f"{q}{p.gap}{u}{p.gap}{a}", f"{a}"]) if line.quantity_milli == 1000 else f"{q}{p.gap}{u}{p.gap}{a}"
    return [f"{P(first)}{p.gap}{cells}{_tail(p, line)}", *([P(rest)] if rest else [])]


def _name_code_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{name}{p.gap}*{line.mark or 'S'}", *([f"{word(p.rng, 1, 1)[:2]}{digits(p.rng, 2)} - {digits(p.rng, 2)}"] if p.rng.random() < 0.6 else []),
            f"{line.code or digits(p.rng, 7)}{p.gap}{q}{p.gap}X{p.gap}{u}{p.gap}{a}"]  # fmt: skip


def _code_name_pieces(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    lead = f"{line.code or digits(p.rng, 9)} {name}"
    return [f"{lead}{p.gap}{a}{_tail(p, line)}"] if line.quantity_milli == 1000 else [lead, f"{q} PC @ {u}{p.gap}{a}{_tail(p, line)}"]


def _row_then_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, _, a = _rows(p, line)
    return [f"{q}{p.gap}{digits(p.rng, 3)}{p.gap}{a}{_tail(p, line)}", *(["'#TAKE AWAY#'"] if p.rng.random() < 0.3 else []), name]


def _issue_table(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    back = p.rng.randint(0, 3)
    issued = p.quantity(line.quantity_milli + back * 1000)
    return [f"{name}{p.gap}{u}{p.gap}{issued}{p.gap}{back}{p.gap}{q}{p.gap}{a}"]


def _spoken(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"ITEM: {name}", f"QTY: {q}{p.gap}EACH: {u}{p.gap}LINE: {a}"]


def _pipes(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"| {name} | {q} | {u} | {a} |"]


def _amount_first(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{a}{p.gap}{name}", *([f"({q} AT {u})"] if line.quantity_milli != 1000 else [])]


def _equation(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _rows(p, line)
    return [f"{name}", f"{u} * {q} = {a}"]


ITEMS: dict[str, Callable[[Pen, Line, int], list[str]]] = {
    "name_amount": _name_amount, "name_then_quantity": _name_then_quantity, "code_name_quantity": _code_name_quantity, "code_row_then_name": _code_row_then_name,
    "quantity_name_amount": _quantity_name_amount, "name_quantity_price_amount": _name_quantity_price_amount, "quantity_name_price_amount": _quantity_name_price_amount,
    "code_name_at": _code_name_at, "mark_code_name": _mark_code_name, "numbered": _numbered, "wrapped": _wrapped, "name_code_quantity": _name_code_quantity,
    "code_name_pieces": _code_name_pieces, "row_then_name": _row_then_name, "issue_table": _issue_table, "spoken": _spoken, "pipes": _pipes,
    "amount_first": _amount_first, "equation": _equation,
}  # fmt: skip
COLUMNS = {
    "name_amount": ("DESCRIPTION  AMOUNT", "ITEM  PRICE", "", ""), "name_then_quantity": ("DESCRIPTION  QTY  U.PRICE  TOTAL  TAX", "ITEM  QTY  PRICE  AMOUNT", ""),
    "code_name_quantity": ("CODE/DESC  QTY  PRICE  AMT", "ITEM  QTY  U/P  AMOUNT", ""), "code_row_then_name": ("B CODE  QTY  U/PRICE  AMT", "BARCODE  QTY  PRICE  TOTAL"),
    "quantity_name_amount": ("QTY  ITEM  AMOUNT", "QTY DESCRIPTION  TOTAL", ""), "name_quantity_price_amount": ("DESCRIPTION  QTY  PRICE  AMOUNT", "ITEM  QTY  UNIT  AMT"),
    "quantity_name_price_amount": ("QTY  DESCRIPTION  U.PRICE  AMOUNT",), "mark_code_name": ("ITEM  QTY  TOTAL",), "numbered": ("NO  DESCRIPTION  AMOUNT", "RM  CODE", ""),
    "wrapped": ("DESCRIPTION  QTY  PRICE  AMOUNT", "ITEM  AMT", ""), "code_name_pieces": ("DESCRIPTION  AMOUNT TX",), "row_then_name": ("QTY  DESCRIPTION  TOTAL(RM) TAX",),
    "issue_table": ("DESCRIPTION  U.P  ISS  EXC  SALE  AMT",), "pipes": ("| ITEM | QTY | UNIT | SUM |",), "equation": ("PRICE * QTY = SUM",), "amount_first": ("AMOUNT  ITEM",),
}  # fmt: skip


def draw_bill(rng: Random, locale: Locale, family: Family, case: Callable[[str], str]) -> Bill:
    """A bill that closes, with the parts that this family can print."""
    lines = []
    coded, marked = rng.random() < 0.5, rng.random() < 0.45
    mark = rng.choice(["SR", "S", "T", "SR", "Z", "ZRL", "*", "A"]) if marked else ""
    for _ in range(min(rng.choice([1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7]), 7) + (rng.randint(1, 5) if rng.random() < 0.05 else 0)):
        unit = draw_price(rng)
        milli = 1000 * rng.choice([1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 10, 12]) if rng.random() < 0.93 else rng.randint(100, 3500)
        if family.item == "row_then_name" or (family.item == "wrapped" and rng.random() < 0.6):
            milli = 1000
        amount = (unit * milli + 500) // 1000
        if amount == 0:
            unit, milli, amount = 100, 1000, 100
        lines.append(Line(case(item_name(rng)), code(rng) if coded else "", mark, milli, unit, amount))
    subtotal = sum(line.amount_cents for line in lines)
    discount = subtotal * rng.choice([5, 10, 20]) // 100 if rng.random() < 0.10 else None
    discount = discount or None
    base = subtotal - (discount or 0)
    service = (base * 10 + 50) // 100 if (family.totals == "service" and rng.random() < 0.6) else None
    base += service or 0
    rate, draw = rng.choice(locale.rates), rng.random()
    tax_added = draw < {"plain": 0.3, "service": 0.5, "excl_incl": 0.5, "supplies": 0.5}.get(family.totals, 0.3 if family.held_out else 0.0)
    taxed = tax_added or draw < 0.8 or family.totals in {"amount_tax_nett", "diy"}
    tax = ((base * rate + 50) // 100 if tax_added else (base * rate + (100 + rate) // 2) // (100 + rate)) if taxed else None
    due = base + (tax or 0 if tax_added else 0)
    rounding: int | None = None
    if locale.name in {"MY", "AU", "SG"} and rng.random() < (0.9 if family.totals == "sales_inclusive" else 0.45):
        rounding = (due + 2) // 5 * 5 - due
    return Bill(tuple(lines), subtotal, discount, service, tax, tax_added, rate, rng.choice(locale.taxes), rounding, due + (rounding or 0))


def _tax_text(p: Pen, bill: Bill) -> str:
    t, r = bill.tax_label, bill.tax_rate
    return p.rng.choice([f"{t} {r}%", f"{t} @{r}%", f"{t} @ {r}%", f"{t} ({r}%)", f"{t}", f"ADD {t} {r}%", f"TOTAL {t}", f"{t} AMOUNT"] if p.locale.name != "US" else [t, f"{t} {r}%", f"{t}:"])


def _totals(p: Pen, bill: Bill, style: str) -> list[str]:
    """The lines from subtotal to total. The label of the total is protected: it is what makes the number the total."""
    rng, m, gap = p.rng, p.money, p.gap
    colon = rng.choice(["", "", ":", " :"])
    due = bill.total - (bill.rounding or 0)
    tax_in_summary = bill.tax is not None and not bill.tax_added and style not in {"amount_tax_nett", "diy"} and rng.random() < 0.6
    discount = [f"{p.label('discount')}{colon}{gap}{m(-bill.discount if rng.random() < 0.6 else bill.discount)}"] if bill.discount else []
    service = [f"{p.label('service')}{colon}{gap}{m(bill.service)}"] if bill.service else []
    tax = [f"{_tax_text(p, bill)}{colon}{gap}{m(bill.tax)}"] if bill.tax is not None and not tax_in_summary else []
    rounding = [f"{p.label('rounding')}{colon}{gap}{m(bill.rounding)}"] if bill.rounding is not None else []
    subtotal = [f"{p.label('subtotal')}{colon}{gap}{m(bill.subtotal)}"]
    label = P(p.label("total"))
    total = f"{label}{colon}{gap}{m(bill.total)}"
    summary = _summary(p, bill) if tax_in_summary else []
    count = f"{rng.choice(['ITEM COUNT', 'TOTAL ITEM(S)', 'NO. OF ITEMS', 'TOTAL QTY', 'ITEM(S)'])}{colon} {len(bill.lines)}"
    counted = [count] if rng.random() < 0.4 else []
    if style == "inclusive":
        final = [f"{P(rng.choice(['TOTAL ROUNDED', 'NETT TOTAL', 'TOTAL PAYABLE']))}{gap}{m(bill.total)}"] if rounding else []
        head = P(rng.choice(["TOTAL INCL", "TOTAL RM INCLUDING", "TOTAL RM INCL. OF", "TOTAL INCLUDING", "TOTAL INCL OF"])) + f" {bill.tax_label}" + (f" {bill.tax_rate}%" if rng.random() < 0.5 else "")
        return [*(subtotal if discount or rng.random() < 0.4 else []), *discount, *tax, f"{head}{colon}{gap}{m(due)}", *rounding, *final, *counted, *summary]
    if style == "sales_inclusive":
        final = [f"{P(rng.choice(['TOTAL AFTER ROUNDING', 'TOTAL', 'NETT TOTAL', 'TOTAL PAYABLE']))} {gap}{m(bill.total)}"] if rounding else []
        return [*discount, f"{P('TOTAL SALES')} (INCLUSIVE {bill.tax_label}){gap}{m(due)}", *tax, *rounding, *final, *summary]
    if style == "amount_tax_nett":
        return [f"TOTAL AMOUNT{colon}{gap}{m(bill.subtotal)}", *discount, *tax, *rounding, f"{P(rng.choice(['NETT TOTAL', 'NET TOTAL', 'GRAND TOTAL']))}{colon}{gap}{m(bill.total)}"]
    if style == "excl_incl":
        before = due - (bill.tax or 0)
        return [*counted, *discount, f"TOTAL (EXCLUDING {bill.tax_label}){colon}{gap}{m(before)}", *tax, f"TOTAL (INCLUSIVE OF {bill.tax_label}){colon}{gap}{m(due)}", *rounding, total, *summary]
    if style == "service":
        return [*subtotal, *discount, *service, *tax, *rounding, total, *summary]
    if style == "diy":
        included = [f"{bill.tax_label} @{bill.tax_rate}% INCLUDED IN TOTAL{gap}{m(bill.tax)}"] if bill.tax is not None and not bill.tax_added else tax
        return [f"ITEM(S) : {len(bill.lines)}  QTY(S) : {sum(max(1, line.quantity_milli // 1000) for line in bill.lines)}", *discount,
                *([f"TOTAL INCL. {bill.tax_label}@{bill.tax_rate}%{gap}{m(due)}"] if rounding else []), *rounding, f"{P('TOTAL INCL.')} {bill.tax_label}@{bill.tax_rate}%{gap}{m(bill.total)}" if not rounding else total, *included]  # fmt: skip
    if style == "supplies":
        return [f"TOTAL {bill.tax_rate}% SUPPLIES (EXCL. {bill.tax_label}):{gap}{m(due - (bill.tax or 0))}", *discount, *tax, f"TOTAL SUPPLIES (INC. {bill.tax_label}):{gap}{m(due)}", *rounding, f"{P('TOTAL PAYABLE')}:{gap}{m(bill.total)}", *summary]
    if style == "amount_first":
        rows = [*subtotal, *discount, *tax, *rounding]
        return [" ".join(reversed(row.rsplit(gap, 1))) if gap in row else row for row in rows] + [f"{m(bill.total)} {label}", *summary]
    if style == "split_lines":
        return [piece for row in [*subtotal, *discount, *tax, *rounding, total] for piece in row.rsplit(gap, 1)] + summary
    if style == "boxed":
        return [*discount, *tax, *rounding, "*" * 20, f"** {label} {m(bill.total)} **", "*" * 20, *counted, *summary]
    if style == "equals":
        return [f"{row.rsplit(gap, 1)[0].rstrip(' :')} = {row.rsplit(gap, 1)[1]}" for row in [*subtotal, *discount, *tax, *rounding, total]] + summary
    head = subtotal if discount or tax or rng.random() < 0.5 else []
    return [*counted, *head, *discount, *tax, *rounding, total, *summary]


def _summary(p: Pen, bill: Bill) -> list[str]:
    t, r, m = bill.tax_label, bill.tax_rate, p.money
    base = bill.total - (bill.rounding or 0) - (bill.tax or 0)
    mark = p.rng.choice(["SR", "S", "T", "SR", "GST", "A"])
    row = p.rng.choice([f"{mark} @ {r}%", f"{mark} = {r}%", f"{mark} {r}%", f"{mark}=GST @{r}%", f"{mark} ({r}%)"])
    return [p.rng.choice([f"{t} SUMMARY{p.gap}AMOUNT(RM){p.gap}TAX(RM)", f"{t} SUMMARY{p.gap}AMOUNT{p.gap}TAX", f"{t} ANALYSIS{p.gap}GOODS{p.gap}TAX AMOUNT", f"{t}{p.gap}TAXABLE AMT{p.gap}{t} AMT"]),
            f"{row}{p.gap}{m(base, False)}{p.gap}{m(bill.tax or 0, False)}"]  # fmt: skip


def _payment(p: Pen, bill: Bill) -> list[str]:
    rng, colon = p.rng, p.rng.choice(["", "", ":", " :"])
    draw = rng.random()
    if draw < 0.1:
        return []
    if draw < 0.35:
        return [f"{p.label('card')}{colon}{p.gap}{p.money(bill.total)}", *([f"CARD NO: XXXX XXXX XXXX {digits(rng, 4)}"] if rng.random() < 0.4 else []), *([f"{p.label('change')}{p.gap}{p.money(0)}"] if rng.random() < 0.3 else [])]
    step = rng.choice([1, 100, 500, 1000, 5000, 10000])
    cash = (bill.total + step - 1) // step * step
    paid = f"{p.label('cash')}{colon}{p.gap}{p.money(cash if rng.random() < 0.93 else -cash)}"
    return [paid, *([f"{p.label('change')}{colon}{p.gap}{p.money(cash - bill.total)}"] if rng.random() < 0.85 else [])]


def _head(p: Pen, name: str, family: Family, printed: str) -> list[str]:
    rng, loc = p.rng, p.locale.name
    registration = rng.choice([f"({digits(rng, 6)}-{rng.choice('ADHKMPTUVWX')})", f"({digits(rng, 9)}-{rng.choice('ADHKU')})", f"CO. REG NO: {digits(rng, 6)}-{rng.choice('ADHKU')}", f"({digits(rng, 7)}{rng.choice('ADHKU')})",
                               f"REG NO {digits(rng, 9)}", f"ROC NO : {digits(rng, 6)}-{rng.choice('ADHKU')}", f"JM{digits(rng, 7)}-{rng.choice('ADHKU')}", f"CO.REG : {digits(rng, 6)}-{rng.choice('ADHKU')}"])  # fmt: skip
    tax_id = rng.choice([f"GST ID NO: {digits(rng, 12)}", f"GST REG NO: {digits(rng, 12)}", f"(GST ID : {digits(rng, 12)})", f"GST NO.: {digits(rng, 12)}", f"GST ID. : {digits(rng, 12)}"])
    if loc not in {"MY", "SG", "IN", "AU"}:
        tax_id, registration = f"{p.locale.taxes[0]} {rng.choice(['NO', 'ID', 'REG'])} {rng.choice(['', loc])}{digits(rng, 9)}", ""
    place, tel = address(rng, loc), rng.choice([f"TEL: {phone(rng, loc)}", f"TEL : {phone(rng, loc)}  FAX : {phone(rng, loc)}", f"TEL/FAX: {phone(rng, loc)}", f"H/P : {phone(rng, loc)}", phone(rng, loc), f"TEL:{phone(rng, loc)}"])
    words, broken = name.split(" "), [P(name)]
    if len(words) > 2 and rng.random() < 0.16:
        cut = rng.randint(1, len(words) - 1)
        broken = [P(" ".join(words[:cut])), P(" ".join(words[cut:]))]
    if registration and family.head in {"registered", "table"} and rng.random() < 0.3:
        broken[-1] += f" {registration}"
        registration = ""
    above = {"welcome": [f"WELCOME TO {rng.choice(CITIES[loc].split('|'))}", "CUSTOMER COPY"]}.get(family.head, [])
    if not above and rng.random() < 0.08:
        above = [rng.choice([person(rng), "*** COPY ***", initials(rng), "TAX INVOICE", "RECEIPT", "CUSTOMER COPY"])]
    if family.head == "date_second":
        return [*above, *broken, f"{printed} {clock(rng)}", registration, *place, p.label("title")]
    if family.head == "brackets":
        return [*above, *broken, f"(CO.REG :{digits(rng, 6)}-{rng.choice('DKU')})", *place, f"({tax_id})", f"({word(rng)} {word(rng)})", f"-{p.label('title')}-"]
    if family.head == "plain":
        return [*above, *broken, *(place if rng.random() < 0.85 else []), *([tel] if rng.random() < 0.7 else []), *([tax_id] if rng.random() < 0.3 else []), *([p.label("title")] if rng.random() < 0.5 else [])]
    rest = [registration if rng.random() < 0.8 else "", *place, *([tel] if rng.random() < 0.7 else []), *([tax_id] if rng.random() < 0.75 else [])]
    if rng.random() < 0.12:
        rest += [f"OWNED BY : {vendor(rng, loc)}"]
    if rng.random() < 0.15:
        rest += [f"{digits(rng, 4)}-{word(rng)} {word(rng)}"]
    if family.head == "table":
        rest += [f"TABLE {rng.randint(1, 60)}", f"PAX: {rng.randint(1, 9)}"]
    return [*above, *broken, *rest, *([p.label("title")] if rng.random() < 0.8 else [])]


def _meta(p: Pen, family: Family, printed: str) -> tuple[list[str], list[str], list[str]]:
    """Lines with document number, date and cashier: before the items, after them, and at the foot."""
    rng = p.rng
    number = f"{p.label('number')}{rng.choice([': ', ' : ', ' ', '  : ', ':'])}{rng.choice(['', '', 'CS-SA-', 'OR', '01-', 'A'])}{digits(rng, rng.randint(4, 10))}"
    cashier = rng.choice([f"CASHIER: {word(rng)}", f"CASHIER : {digits(rng, 3)}", f"SERVED BY: {person(rng)}", f"COUNTER {rng.randint(1, 9)}", f"STAFF: {digits(rng, 5)}", f"CASHIER #  {word(rng, 1, 1)}"])
    dated = f"{p.label('date')}{rng.choice([' ', ': ', '  : ', '  '])}{printed}"
    timed = [dated] if rng.random() < 0.35 else [f"{dated} {clock(rng)}"] if rng.random() < 0.6 else [dated, f"TIME: {clock(rng)}"]
    some = [cashier] if rng.random() < 0.6 else []
    if family.date == "meta":
        before = [[number, *timed, *some], [*timed, number, *some], [*some, number, *timed], [f"{number}{p.gap}{dated}", *some]][rng.randrange(4)]
        return (before if rng.random() < 0.8 else [f"{printed} {clock(rng)}", number, *some]), [], []
    if family.date == "with_time":
        return [number, *some, f"{dated}{rng.choice([' ', ' - ', '  '])}{clock(rng)}"], [], [f"CLOSED BY {word(rng)} {clock(rng)}"] if rng.random() < 0.2 else []
    if family.date == "with_cashier":
        return [f"{printed} {clock(rng)}{p.gap}{cashier}", number], [], []
    if family.date == "counter":
        return [number, f"{digits(rng, 3)}{p.gap}#{digits(rng, 2)} {digits(rng, 2)}{p.gap}{printed} {clock(rng)}"], [], []
    if family.date == "time_first":
        return [f"{number}", f"{clock(rng)}{p.gap}{digits(rng, 6)}{p.gap}{printed}"], [], []
    if family.date == "none":
        return [number], [], []
    if family.date == "footer_label":
        return some, [], [f"{number}{p.gap}DATE : {printed}"]
    if family.date == "footer_bare":
        return [], [], [f"{printed}{p.gap}{clock(rng)}{p.gap}SH{digits(rng, 2)}{p.gap}T{rng.randint(1, 9)}{p.gap}R{digits(rng, 9)}", f"OPERATOR {word(rng)} CASHIER"]
    if family.date == "spoken":
        return [f"SOLD ON: {printed} AT {clock(rng)}", f"TICKET: {digits(rng, 5)}"], [], []
    if family.date == "after_items":
        return [number], [f"PRINTED {printed}{p.gap}{clock(rng)}"], []
    if family.date == "head_label":
        return [f"REGISTER {rng.randint(1, 9)} / {printed} / {clock(rng)}"], [], []
    return [], [], [f"#{digits(rng, 6)} [{printed}] {clock(rng)}"]


def print_receipt(rng: Random, family: Family) -> tuple[list[str], dict[str, Any]]:
    """(lines with protected spans, gold)."""
    locale = LOCALES[rng.choice(family.locales)]
    upper = rng.random() < (0.9 if family.locales == _ASIA else 0.6)
    case: Callable[[str], str] = str if upper else str.title
    p, day = pen(rng, locale), draw_date(rng)
    name, bill = case(vendor(rng, locale.name)), draw_bill(rng, locale, family, case)
    printed = P(printed_date(day, rng.choice(locale.dates), upper or rng.random() < 0.5))
    before, between, foot = _meta(p, family, printed)
    items = [row for i, line in enumerate(bill.lines) for row in ITEMS[family.item](p, line, i)]
    totals, payment = _totals(p, bill, family.totals), _payment(p, bill)
    thanks = rng.sample(locale.labels["thanks"], rng.randint(0, min(3, len(locale.labels["thanks"]))))
    rule = [rng.choice(["-" * 20, "=" * 16, "- - - - -"])] if rng.random() < 0.1 else []
    columns = [rng.choice(COLUMNS.get(family.item, ("",)))]
    if "=" in columns[0] or family.item == "issue_table" or rng.random() < 0.75:
        items = [*columns, *items]
    chatty = rng.random() < 0.6
    aside, tail = filler(rng, locale.name, 0, 2 if chatty else 0), filler(rng, locale.name, 0, 6 if chatty else 1)
    if rng.random() < 0.3:
        foot, tail = [*foot, *tail], []
    lines = [*_head(p, name, family, printed), *aside, *before, *rule, *items, *rule, *between, *totals, *payment, *foot, *thanks, *tail]
    if not upper:
        lines = [_soften(line) for line in lines]
    gold: dict[str, Any] = {"vendor": name, "date": day.isoformat(), "items": [{"name": line.name, "amount": plain(line.amount_cents)} for line in bill.lines]}
    if bill.discount:
        gold["discount"] = plain(bill.discount)
    if bill.service:
        gold["service_charge"] = plain(bill.service)
    gold["tax"] = None if bill.tax is None else plain(bill.tax)
    gold["rounding"] = None if bill.rounding is None else plain(bill.rounding)
    gold["total"] = plain(bill.total)
    return lines, gold


def _soften(line: str) -> str:
    """Title case outside the protected spans."""
    out, safe = [], False
    for piece in line.replace("\x01", "\x00\x01").replace("\x02", "\x02\x00").split("\x00"):
        safe = piece.startswith("\x01")
        out.append(piece if safe else piece.title())
    return "".join(out)


