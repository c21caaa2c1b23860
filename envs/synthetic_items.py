"""How receipts print their items: 24 styles, two that are drawn anew for each page, and the headings above them."""

from __future__ import annotations

from collections.abc import Callable

from envs.synthetic_bill import Bill, Line, Pen, protect
from envs.words import digits, maybe, pick, word

COLUMNS: dict[str, tuple[str, ...]] = {
    "name_amount": ("DESCRIPTION  AMOUNT", "ITEM  PRICE", "", ""),
    "name_then_quantity": ("DESCRIPTION  QTY  U.PRICE  TOTAL  TAX", "ITEM  QTY  PRICE  AMOUNT", ""),
    "code_name_quantity": ("CODE/DESC  QTY  PRICE  AMT", "ITEM  QTY  U/P  AMOUNT", ""),
    "code_row_then_name": ("B CODE  QTY  U/PRICE  AMT", "BARCODE  QTY  PRICE  TOTAL"),
    "quantity_name_amount": ("QTY  ITEM  AMOUNT", "QTY DESCRIPTION  TOTAL", ""),
    "name_quantity_price_amount": ("DESCRIPTION  QTY  PRICE  AMOUNT", "ITEM  QTY  UNIT  AMT"),
    "quantity_name_price_amount": ("QTY  DESCRIPTION  U.PRICE  AMOUNT",),
    "mark_code_name": ("ITEM  QTY  TOTAL",),
    "numbered": ("NO  DESCRIPTION  AMOUNT", "RM  CODE", ""),
    "wrapped": ("DESCRIPTION  QTY  PRICE  AMOUNT", "ITEM  AMT", ""),
    "code_name_pieces": ("DESCRIPTION  AMOUNT TX",),
    "row_then_name": ("QTY  DESCRIPTION  TOTAL(RM) TAX",),
    "issue_table": ("DESCRIPTION  U.P  ISS  EXC  SALE  AMT",),
    "pipes": ("| ITEM | QTY | UNIT | SUM |",),
    "equation": ("PRICE * QTY = SUM",),
    "amount_first": ("AMOUNT  ITEM",),
    "free": ("DESCRIPTION  QTY  AMOUNT", "ITEM  AMT", "PARTICULARS", "QTY  DESC  U/P  SUM", "", "", ""),
    "drawn": ("DESCRIPTION  AMOUNT", "ITEM  QTY  PRICE  TOTAL", "ITEM", "DESC  U/P  AMT", "", ""),
}


def item_lines(p: Pen, bill: Bill, style: str) -> list[str]:
    """The printed lines of all items."""
    if style in {"drawn", "free"}:
        return _drawn(p, bill) if style == "drawn" else _free(p, bill)
    return [row for i, line in enumerate(bill.lines) for row in _STYLES[style](p, line, i)]


def _cells(p: Pen, line: Line) -> tuple[str, str, str, str]:
    """Name (gold), quantity, unit price, amount (gold)."""
    amount = p.item_money(line.amount_cents)
    return protect(line.name), p.quantity(line.quantity_milli), p.item_money(line.unit_cents), amount


def _single(line: Line) -> bool:
    return line.quantity_milli == 1000


def _tail(p: Pen, line: Line) -> str:
    """The tax mark after an amount."""
    return p.rng.choice([" ", p.gap]) + line.mark if line.mark else ""


def _name_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    lead = f"{line.code} " if line.code and p.rng.random() < 0.3 else ""
    first = p.row(lead + name, a) + _tail(p, line)
    if _single(line):
        return [first]
    detail = pick(p.rng, f"{q} X {u}|{q} @ {u}|{q}X{u}|  {q} x {u}")
    return [detail, first] if p.rng.random() < 0.4 else [first, detail]


def _name_then_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    unit = pick(p.rng, "PCS|UNIT|NOS|EA")
    times = pick(p.rng, f"{q} X{p.gap}|{q} {unit} X |{q}X ")
    return [name, p.row(times + u, a) + _tail(p, line)]


def _code_name_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    joined = p.rng.random() < 0.5
    code = line.code or digits(p.rng, 6)
    return [*([f"{code} {name}"] if joined else [code, name]), p.row(f"{q} X {u}", a) + _tail(p, line)]


def _code_row_then_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [p.row(line.code or digits(p.rng, 13), q, u, a) + line.mark, name]


def _quantity_name_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, _, a = _cells(p, line)
    return [q + p.rng.choice([" ", p.gap, "X ", " X "]) + p.row(name, a) + _tail(p, line)]


def _name_quantity_price_amount(p: Pen, line: Line, i: int) -> list[str]:
    return [p.row(*_cells(p, line)) + _tail(p, line)]


def _quantity_name_price_amount(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [p.row(q, name, u, a) + _tail(p, line)]


def _code_name_at(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    first = p.row(f"{line.code or digits(p.rng, 4)} {name}", a, line.mark).rstrip()
    return [first] if _single(line) else [first, f"@{q} X {u}"]


def _mark_code_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [f"{line.mark or 'SR'} {line.code or 'I00' + digits(p.rng, 9)}- {name}", p.row(u, q, a)]


def _numbered(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    lead = f"{line.code}  " if line.code else ""
    return [f"{i + 1}. {lead}{name}", p.row(f"{q} X {u}", a) + _tail(p, line)]


def _wrapped(p: Pen, line: Line, i: int) -> list[str]:
    """A name of three words or more breaks in two."""
    _, *numbers = _cells(p, line)
    words = line.name.split(" ")
    cut = len(words) // 2 if len(words) > 2 else len(words)
    if _single(line):
        numbers = p.rng.choice([numbers, numbers[-1:]])
    first = p.row(protect(" ".join(words[:cut])), *numbers) + _tail(p, line)
    return [first, protect(" ".join(words[cut:]))] if words[cut:] else [first]


def _name_code_quantity(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    rows = [p.row(name, f"*{line.mark or 'S'}")]
    if p.rng.random() < 0.6:
        rows.append(f"{word(p.rng, 1, 1)[:2]}{digits(p.rng, 2)} - {digits(p.rng, 2)}")
    return [*rows, p.row(line.code or digits(p.rng, 7), q, "X", u, a)]


def _code_name_pieces(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    lead = f"{line.code or digits(p.rng, 9)} {name}"
    rows = [p.row(lead, a)] if _single(line) else [lead, p.row(f"{q} PC @ {u}", a)]
    return [*rows[:-1], rows[-1] + _tail(p, line)]


def _row_then_name(p: Pen, line: Line, i: int) -> list[str]:
    name, q, _, a = _cells(p, line)
    return [p.row(q, digits(p.rng, 3), a) + _tail(p, line), *maybe(p.rng, 0.3, "'#TAKE AWAY#'"), name]


def _issue_table(p: Pen, line: Line, i: int) -> list[str]:
    """So many issued, some given back, the rest sold."""
    name, q, u, a = _cells(p, line)
    back = p.rng.randint(0, 3)
    return [p.row(name, u, p.quantity(line.quantity_milli + back * 1000), str(back), q, a)]


def _spoken(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [f"ITEM: {name}", p.row(f"QTY: {q}", f"EACH: {u}", f"LINE: {a}")]


def _pipes(p: Pen, line: Line, i: int) -> list[str]:
    return [f"| {' | '.join(_cells(p, line))} |"]


def _amount_first(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [p.row(a, name), *([] if _single(line) else [f"({q} AT {u})"])]


def _equation(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [name, f"{u} * {q} = {a}"]


def _dotted(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [f"{name} {'.' * p.rng.randint(3, 9)} {a}", *([] if _single(line) else [f"    {q} A {u}"])]


def _listed(p: Pen, line: Line, i: int) -> list[str]:
    name, q, _, a = _cells(p, line)
    return [f"- {name} {q} PCS: {a}"]


def _arrow(p: Pen, line: Line, i: int) -> list[str]:
    name, q, u, a = _cells(p, line)
    return [f"{name} -> {a}", *([] if _single(line) else [f"   {q} PC AT {u}"])]


def _bracketed(p: Pen, line: Line, i: int) -> list[str]:
    name, q, _, a = _cells(p, line)
    return [f"[{q}X] {name}  <{a}>"]


def _slashes(p: Pen, line: Line, i: int) -> list[str]:
    return [" / ".join(_cells(p, line))]


def _drawn(p: Pen, bill: Bill) -> list[str]:
    """Rows of a grammar drawn for this page: which cells, in which order, on how many lines, set apart by what."""
    rng = p.rng
    coded, priced, times = rng.random() < 0.4, rng.random() < 0.7, pick(rng, " X | x |X| @ |  |   ")
    counted = priced or any(not _single(line) for line in bill.lines) or rng.random() < 0.4
    lead, numbered = pick(rng, "||||- |* |> "), rng.random() < 0.15
    free_column, mark_first = priced and rng.random() < 0.12, rng.random() < 0.2
    name_first, lines = rng.random() < 0.6, rng.choice([1, 1, 1, 2, 2, 3])
    gap = pick(rng, f"{p.gap}|{p.gap}|{p.gap}|  | ") or " "
    kind, below = pick(rng, "digits|code|code"), rng.random() < 0.25
    rows: list[str] = []
    for i, line in enumerate(bill.lines):
        name, q, u, a = _cells(p, line)
        number = (line.code or digits(rng, 5) if kind == "code" else digits(rng, 8)) if coded else ""
        title = gap.join(cell for cell in (f"{i + 1}." if numbered else "", number, lead + name) if cell)
        figures = (q + times + u if priced else q) if counted else ""
        figures = gap.join([figures, "0.00"]) if free_column else figures
        amount = (f"{line.mark} {a}" if mark_first else a + _tail(p, line)) if line.mark else a
        if lines == 1:
            cells = (title, figures) if name_first else (figures, title)
            rows.append(gap.join([cell for cell in cells if cell] + [amount]))
        elif lines == 2:
            second = gap.join([cell for cell in (figures, amount) if cell])
            rows += [second, title] if below else [title, second]
        else:
            rows += [title, figures, amount] if figures else [title, amount]
    return rows


def _free(p: Pen, bill: Bill) -> list[str]:
    """Rows of a looser grammar: any cells in any order, each on the same line or the next, set apart by anything."""
    rng = p.rng
    counted = any(not _single(line) for line in bill.lines) or rng.random() < 0.5
    kinds = ["name", *(["code"] if rng.random() < 0.4 else [])]
    kinds += ["quantity"] if counted else []
    kinds += ["unit"] if counted and rng.random() < 0.7 else []
    rng.shuffle(kinds)
    kinds.append("amount")
    first = kinds.index("name") + 1
    plain_start = not {"quantity", "unit"} & set(kinds[:first])
    turn = first if plain_start and first < len(kinds) - 1 and rng.random() < 0.5 else 0
    gaps = [pick(rng, f"{p.gap}|{p.gap}|{p.gap}|  |   | : |: ") or "  " for _ in kinds]
    if p.gap == " ":  # one space would join a name and the number beside it
        gaps = [gap if gap.strip() else "  " for gap in gaps]
    lead = pick(rng, "||||- |> |~ ")
    labels = {
        "quantity": pick(rng, "||||X|"),
        "unit": pick(rng, "||||@|@ |X "),
        "code": pick(rng, "||||SKU:|#"),
    }
    after = {"quantity": pick(rng, "||||X| X| PCS| UNIT")}
    rows: list[str] = []
    for line in bill.lines:
        name, q, u, a = _cells(p, line)
        texts = {"name": name, "quantity": q, "unit": u, "amount": a, "code": line.code or digits(rng, 6)}
        cells = [labels.get(kind, "") + texts[kind] + after.get(kind, "") for kind in kinds]
        cells[-1] += _tail(p, line)
        joined = [cell + gap for cell, gap in zip(cells[:-1], gaps, strict=False)] + cells[-1:]
        rows += [lead + "".join(joined[:turn]).rstrip(), "".join(joined[turn:])] if turn else [lead + "".join(joined)]
    return rows


_STYLES: dict[str, Callable[[Pen, Line, int], list[str]]] = {
    "dotted": _dotted,
    "listed": _listed,
    "name_amount": _name_amount,
    "name_then_quantity": _name_then_quantity,
    "code_name_quantity": _code_name_quantity,
    "code_row_then_name": _code_row_then_name,
    "quantity_name_amount": _quantity_name_amount,
    "name_quantity_price_amount": _name_quantity_price_amount,
    "quantity_name_price_amount": _quantity_name_price_amount,
    "code_name_at": _code_name_at,
    "mark_code_name": _mark_code_name,
    "numbered": _numbered,
    "wrapped": _wrapped,
    "name_code_quantity": _name_code_quantity,
    "code_name_pieces": _code_name_pieces,
    "row_then_name": _row_then_name,
    "issue_table": _issue_table,
    "spoken": _spoken,
    "pipes": _pipes,
    "amount_first": _amount_first,
    "equation": _equation,
    "arrow": _arrow,
    "bracketed": _bracketed,
    "slashes": _slashes,
}
