"""How receipts print what stands below the items: thirteen styles of totals, the tax summary, the payment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envs.synthetic_bill import Bill, Pen, protect, steady
from envs.words import digits, maybe, pick


@dataclass(frozen=True, slots=True)
class _Rows:
    """The printed rows that a style arranges; a list is empty where this page has no such row.

    total_label is protected: it is what makes the number the total. colon: what ends the labels of this page.
    """

    colon: str
    subtotal: list[str]
    discount: list[str]
    service: list[str]
    tax: list[str]
    rounding: list[str]
    total_label: str
    total: str
    summary: list[str]
    counted: list[str]


def total_lines(p: Pen, bill: Bill, style: str) -> list[str]:
    """The lines from the subtotal to the total, and the tax summary."""
    return _STYLES[style](p, bill, _draw_rows(p, bill, style))


def _draw_rows(p: Pen, bill: Bill, style: str) -> _Rows:
    rng, colon = p.rng, pick(p.rng, "||:| :")
    bare = style in {"amount_tax_nett", "diy"}
    summarised = bill.tax is not None and not bill.tax_added and not bare and rng.random() < 0.6

    def row(label: str, cents: int) -> str:
        return p.row(steady(label + colon), p.money(cents))

    off = bill.discount
    discount = [row(p.label("discount"), -off if rng.random() < 0.6 else off)] if off else []
    service = [row(p.label("service"), bill.service)] if bill.service else []
    tax = [row(_tax_text(p, bill), bill.tax)] if bill.tax is not None and not summarised else []
    rounding = [row(p.label("rounding"), bill.rounding)] if bill.rounding is not None else []
    subtotal = [row(p.label("subtotal"), bill.subtotal)]
    label = protect(p.label("total"))
    summary = _summary(p, bill) if summarised else []
    count = f"{pick(rng, 'ITEM COUNT|TOTAL ITEM(S)|NO. OF ITEMS|TOTAL QTY|ITEM(S)')}{colon} {len(bill.lines)}"
    counted = maybe(rng, 0.4, count)
    total = row(label, bill.total)
    return _Rows(colon, subtotal, discount, service, tax, rounding, label, total, summary, counted)


def _tax_text(p: Pen, bill: Bill) -> str:
    t, r = bill.tax_label, bill.tax_rate
    if p.locale.name == "US":
        return pick(p.rng, f"{t}|{t} {r}%|{t}:")
    return pick(p.rng, f"{t} {r}%|{t} @{r}%|{t} @ {r}%|{t} ({r}%)|{t}|ADD {t} {r}%|TOTAL {t}|{t} AMOUNT")


def _summary(p: Pen, bill: Bill) -> list[str]:
    """The little table of rates, taxed amounts and taxes."""
    t, r = bill.tax_label, bill.tax_rate
    mark = pick(p.rng, "SR|S|T|SR|GST|A")
    rate = pick(p.rng, f"{mark} @ {r}%|{mark} = {r}%|{mark} {r}%|{mark}=GST @{r}%|{mark} ({r}%)")
    headings = (
        (f"{t} SUMMARY", "AMOUNT(RM)", "TAX(RM)"),
        (f"{t} SUMMARY", "AMOUNT", "TAX"),
        (f"{t} ANALYSIS", "GOODS", "TAX AMOUNT"),
        (t, "TAXABLE AMT", f"{t} AMT"),
    )
    heading = p.row(*map(steady, p.rng.choice(headings)))
    return [heading, p.row(rate, p.money(bill.untaxed, False), p.money(bill.tax or 0, False))]


def _plain(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    subtotal = r.subtotal if r.discount or r.tax or p.rng.random() < 0.5 else []
    return [*r.counted, *subtotal, *r.discount, *r.tax, *r.rounding, r.total, *r.summary]


def _service(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    return [*r.subtotal, *r.discount, *r.service, *r.tax, *r.rounding, r.total, *r.summary]


def _inclusive(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    final = protect(pick(p.rng, "TOTAL ROUNDED|NETT TOTAL|TOTAL PAYABLE")) if r.rounding else ""
    label = protect(pick(p.rng, "TOTAL INCL|TOTAL RM INCLUDING|TOTAL RM INCL. OF|TOTAL INCLUDING|TOTAL INCL OF"))
    rate = f" {bill.tax_rate}%" if p.rng.random() < 0.5 else ""
    due = p.row(f"{label} {bill.tax_label}{rate}{r.colon}", p.money(bill.unrounded))
    subtotal = r.subtotal if r.discount or p.rng.random() < 0.4 else []
    rounded = [*r.rounding, p.row(final, p.money(bill.total))] if r.rounding else []
    return [*subtotal, *r.discount, *r.tax, due, *rounded, *r.counted, *r.summary]


def _sales_inclusive(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    due = p.row(f"{protect('TOTAL SALES')} (INCLUSIVE {bill.tax_label})", p.money(bill.unrounded))
    rounded: list[str] = []
    if r.rounding:
        label = protect(pick(p.rng, "TOTAL AFTER ROUNDING|TOTAL|NETT TOTAL|TOTAL PAYABLE"))
        rounded = [*r.rounding, p.row(f"{label} ", p.money(bill.total))]
    return [*r.discount, due, *r.tax, *rounded, *r.summary]


def _amount_tax_nett(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    amount = p.row(f"TOTAL AMOUNT{r.colon}", p.money(bill.subtotal))
    nett = p.row(protect(pick(p.rng, "NETT TOTAL|NET TOTAL|GRAND TOTAL")) + r.colon, p.money(bill.total))
    return [amount, *r.discount, *r.tax, *r.rounding, nett]


def _excl_incl(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    exclusive = p.row(f"TOTAL (EXCLUDING {bill.tax_label}){r.colon}", p.money(bill.untaxed))
    inclusive = p.row(f"TOTAL (INCLUSIVE OF {bill.tax_label}){r.colon}", p.money(bill.unrounded))
    return [*r.counted, *r.discount, exclusive, *r.tax, inclusive, *r.rounding, r.total, *r.summary]


def _diy(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    pieces = sum(max(1, line.quantity_milli // 1000) for line in bill.lines)
    counted = f"ITEM(S) : {len(bill.lines)}  QTY(S) : {pieces}"
    rate = f"{bill.tax_label}@{bill.tax_rate}%"
    totals = [p.row(f"{protect('TOTAL INCL.')} {rate}", p.money(bill.total))]
    if r.rounding:
        totals = [p.row(f"TOTAL INCL. {rate}", p.money(bill.unrounded)), *r.rounding, r.total]
    included = r.tax
    if bill.tax is not None and not bill.tax_added:
        included = [p.row(steady(f"{bill.tax_label} @{bill.tax_rate}% INCLUDED IN TOTAL"), p.money(bill.tax))]
    return [counted, *r.discount, *totals, *included]


def _supplies(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    exclusive = p.row(f"TOTAL {bill.tax_rate}% SUPPLIES (EXCL. {bill.tax_label}):", p.money(bill.untaxed))
    inclusive = p.row(f"TOTAL SUPPLIES (INC. {bill.tax_label}):", p.money(bill.unrounded))
    payable = p.row(f"{protect('TOTAL PAYABLE')}:", p.money(bill.total))
    return [exclusive, *r.discount, *r.tax, inclusive, *r.rounding, payable, *r.summary]


def _amount_first(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    rows = [*r.subtotal, *r.discount, *r.tax, *r.rounding]
    turned = [" ".join(reversed(row.rsplit(p.gap, 1))) for row in rows]
    return [*turned, f"{p.money(bill.total)} {r.total_label}", *r.summary]


def _drawn(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    """Labels and amounts set apart by what this page uses, the count above or below."""
    joint = pick(p.rng, f"{p.gap}|{p.gap}|: | : | >> ")
    subtotal = r.subtotal if r.discount or r.tax or p.rng.random() < 0.5 else []
    parts = [r.discount, r.service, r.tax]
    if p.rng.random() < 0.3:
        p.rng.shuffle(parts)
    rows = [*subtotal, *(row for part in parts for row in part), *r.rounding, r.total]
    rows = [joint.join(row.rsplit(p.gap, 1)) for row in rows]
    return [*r.counted, *rows, *r.summary] if p.rng.random() < 0.6 else [*rows, *r.summary, *r.counted]


def _split_lines(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    rows = [*r.subtotal, *r.discount, *r.tax, *r.rounding, r.total]
    return [*(piece for row in rows for piece in row.rsplit(p.gap, 1)), *r.summary]


def _boxed(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    stars, total = "*" * 20, f"** {r.total_label} {p.money(bill.total)} **"
    return [*r.discount, *r.tax, *r.rounding, stars, total, stars, *r.counted, *r.summary]


def _equals(p: Pen, bill: Bill, r: _Rows) -> list[str]:
    rows = [row.rsplit(p.gap, 1) for row in (*r.subtotal, *r.discount, *r.tax, *r.rounding, r.total)]
    return [*(f"{label.rstrip(' :')} = {money}" for label, money in rows), *r.summary]


_STYLES: dict[str, Callable[[Pen, Bill, _Rows], list[str]]] = {
    "plain": _plain,
    "service": _service,
    "inclusive": _inclusive,
    "sales_inclusive": _sales_inclusive,
    "amount_tax_nett": _amount_tax_nett,
    "excl_incl": _excl_incl,
    "diy": _diy,
    "supplies": _supplies,
    "amount_first": _amount_first,
    "drawn": _drawn,
    "split_lines": _split_lines,
    "boxed": _boxed,
    "equals": _equals,
}


def payment_lines(p: Pen, bill: Bill) -> list[str]:
    """Card, or cash and change, or nothing."""
    rng, colon, draw = p.rng, pick(p.rng, "||:| :"), p.rng.random()
    if draw < 0.1:
        return []
    if draw < 0.35:
        lines = [p.row(p.label("card") + colon, p.money(bill.total))]
        if rng.random() < 0.4:
            lines.append(f"CARD NO: XXXX XXXX XXXX {digits(rng, 4)}")
        if rng.random() < 0.3:
            lines.append(p.row(p.label("change"), p.money(0)))
        return lines
    note = rng.choice([1, 100, 500, 1000, 5000, 10000])
    cash = (bill.total + note - 1) // note * note
    lines = [p.row(p.label("cash") + colon, p.money(cash if rng.random() < 0.93 else -cash))]
    if rng.random() < 0.85:
        lines.append(p.row(p.label("change") + colon, p.money(cash - bill.total)))
    return lines
