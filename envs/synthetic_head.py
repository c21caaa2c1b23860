"""How receipts print the shop above the items, and where they put the date, the number and the cashier."""

from __future__ import annotations

from random import Random

from envs.synthetic_bill import Family, Pen, protect, steady
from envs.synthetic_locales import clock
from envs.words import CITIES, address, digits, initials, maybe, person, phone, pick, vendor, word


def head_lines(p: Pen, name: str, family: Family, date: str) -> list[str]:
    """The vendor `name` (gold, protected) with its address, numbers and title."""
    rng, loc = p.rng, p.locale.name
    registration, tax_id = _registration(rng), _gst_number(rng)
    if loc not in {"MY", "SG", "IN", "AU"}:
        registration, tax_id = "", f"{p.locale.tax} {pick(rng, 'NO|ID|REG')} {pick(rng, f'|{loc}')}{digits(rng, 9)}"
    place, tel = address(rng, loc), _telephone(rng, loc)
    names = _broken(rng, name)
    if registration and family.head in {"registered", "table"} and rng.random() < 0.3:
        names[-1] += f" {steady(registration)}"
        registration = ""
    names = [*_above(rng, loc, family.head), *names]
    match family.head:
        case "date_second":
            return [*names, f"{date} {clock(rng)}", registration, *place, p.label("title")]
        case "brackets":
            number, motto = f"(CO.REG :{digits(rng, 6)}-{rng.choice('DKU')})", f"({word(rng)} {word(rng)})"
            return [*names, number, *place, f"({tax_id})", motto, f"-{p.label('title')}-"]
        case "plain":
            place = place if rng.random() < 0.85 else []
            return [*names, *place, *maybe(rng, 0.7, tel), *maybe(rng, 0.3, tax_id), *_title(p, 0.5)]
    registered = registration if rng.random() < 0.8 else ""
    rest = [registered, *place, *maybe(rng, 0.7, tel), *maybe(rng, 0.75, tax_id)]
    if rng.random() < 0.12:
        rest.append(f"OWNED BY : {vendor(rng, loc)}")
    if rng.random() < 0.15:
        rest.append(f"{digits(rng, 4)}-{word(rng)} {word(rng)}")
    if family.head == "table":
        rest += [f"TABLE {rng.randint(1, 60)}", f"PAX: {rng.randint(1, 9)}"]
    return [*names, *rest, *_title(p, 0.8)]


def _title(p: Pen, share: float) -> list[str]:
    return [p.label("title")] if p.rng.random() < share else []


def _registration(rng: Random) -> str:
    def dashed(n: int, letters: str = "ADHKU") -> str:
        return f"{digits(rng, n)}-{rng.choice(letters)}"

    return pick(
        rng,
        f"({dashed(6, 'ADHKMPTUVWX')})|({dashed(9)})|CO. REG NO: {dashed(6)}|({digits(rng, 7)}{rng.choice('ADHKU')})|"
        f"REG NO {digits(rng, 9)}|ROC NO : {dashed(6)}|JM{dashed(7)}|CO.REG : {dashed(6)}",
    )


def _gst_number(rng: Random) -> str:
    numbers = [digits(rng, 12) for _ in range(5)]
    form = "GST ID NO: {}|GST REG NO: {}|(GST ID : {})|GST NO.: {}|GST ID. : {}"
    return pick(rng, form.format(*numbers))


def _telephone(rng: Random, loc: str) -> str:
    numbers = [phone(rng, loc) for _ in range(7)]
    form = "TEL: {}|TEL : {}  FAX : {}|TEL/FAX: {}|H/P : {}|{}|TEL:{}"
    return pick(rng, form.format(*numbers))


def _broken(rng: Random, name: str) -> list[str]:
    """The protected name; a long one may break over two lines."""
    words = name.split(" ")
    if len(words) <= 2 or rng.random() >= 0.16:
        return [protect(name)]
    cut = rng.randint(1, len(words) - 1)
    return [protect(" ".join(words[:cut])), protect(" ".join(words[cut:]))]


def _above(rng: Random, loc: str, head: str) -> list[str]:
    """What stands above the name of the shop."""
    city = pick(rng, CITIES[loc])
    if head == "welcome":
        return [f"WELCOME TO {city}", "CUSTOMER COPY"]
    if rng.random() >= 0.08:
        return []
    return [pick(rng, f"{person(rng)}|*** COPY ***|{initials(rng)}|TAX INVOICE|RECEIPT|CUSTOMER COPY")]


def meta_lines(p: Pen, family: Family, date: str) -> tuple[list[str], list[str], list[str]]:
    """Lines with the document's number, its date and the cashier: before the items, after them, and at the foot."""
    rng = p.rng
    number, cashier = _document_number(p), _cashier(rng)
    dated = f"{p.label('date')}{rng.choice([' ', ': ', '  : ', '  '])}{date}"
    timed, some = _timed(rng, dated), maybe(rng, 0.6, cashier)
    before: list[str] = []
    between: list[str] = []
    foot: list[str] = []
    match family.date:
        case "meta":
            before = _block(p, number, dated, timed, some)
            if rng.random() >= 0.8:
                before = [f"{date} {clock(rng)}", number, *some]
        case "with_time":
            before = [number, *some, f"{dated}{pick(rng, ' | - |  ')}{clock(rng)}"]
            foot = [f"CLOSED BY {word(rng)} {clock(rng)}"] if rng.random() < 0.2 else []
        case "with_cashier":
            before = [p.row(f"{date} {clock(rng)}", cashier), number]
        case "counter":
            till = p.row(digits(rng, 3), f"#{digits(rng, 2)} {digits(rng, 2)}")
            before = [number, p.row(till, f"{date} {clock(rng)}")]
        case "time_first":
            before = [number, p.row(clock(rng), digits(rng, 6), date)]
        case "none":
            before = [number]
        case "footer_label":
            before, foot = some, [p.row(number, f"DATE : {date}")]
        case "footer_bare":
            closed = p.row(date, clock(rng), f"SH{digits(rng, 2)}", f"T{rng.randint(1, 9)}", f"R{digits(rng, 9)}")
            foot = [closed, f"OPERATOR {word(rng)} CASHIER"]
        case "spoken":
            before = [f"SOLD ON: {date} AT {clock(rng)}", f"TICKET: {digits(rng, 5)}"]
        case "after_items":
            before, between = [number], [p.row(f"PRINTED {date}", clock(rng))]
        case "head_label":
            before = [f"REGISTER {rng.randint(1, 9)} / {date} / {clock(rng)}"]
        case "anywhere":
            line = _dated_somehow(p, date)
            lists = (before, before, before, between, foot)
            rng.choice(lists).append(line)
            before += maybe(rng, 0.7, number) + some
            rng.shuffle(before)
        case "stamp":
            foot = [f"#{digits(rng, 6)} [{date}] {clock(rng)}"]
    return before, between, foot


def _dated_somehow(p: Pen, date: str) -> str:
    """A line with the date in it, in one of many forms."""
    rng, label, time = p.rng, p.label("date"), clock(p.rng)
    return pick(
        rng,
        f"{date}|{date} {time}|{time} {date}|{label} {date}|{label}  {date} {time}|TIME {time} {label} {date}|"
        f"{p.row(date, time, word(rng))}|{p.row(digits(rng, 4), date, time)}|{word(rng)} {date}|ISSUED {date} {time}|"
        f"TRANS DATE: {date} {time}|{p.row('OPEN', date, time)}|CHECKED OUT {date} {time}|"
        f"{p.row(word(rng), digits(rng, 3), date)}|{date} - {time} - {digits(rng, 6)}|{time}, {date}|"
        f"TILL {rng.randint(1, 9)}: {date}|{digits(rng, 3)}#{digits(rng, 5)} {date}",
    )


def _block(p: Pen, number: str, dated: str, timed: list[str], some: list[str]) -> list[str]:
    """Number, date and cashier in one of four orders."""
    orders = ([number, *timed, *some], [*timed, number, *some], [*some, number, *timed], [p.row(number, dated), *some])
    return p.rng.choice(orders)


def _document_number(p: Pen) -> str:
    rng, label = p.rng, p.label("number")
    colon, series = rng.choice([": ", " : ", " ", "  : ", ":"]), pick(rng, "||CS-SA-|OR|01-|A")
    return f"{label}{colon}{series}{digits(rng, rng.randint(4, 10))}"


def _cashier(rng: Random) -> str:
    return pick(
        rng,
        f"CASHIER: {word(rng)}|CASHIER : {digits(rng, 3)}|SERVED BY: {person(rng)}|COUNTER {rng.randint(1, 9)}|"
        f"STAFF: {digits(rng, 5)}|CASHIER #  {word(rng, 1, 1)}",
    )


def _timed(rng: Random, dated: str) -> list[str]:
    if rng.random() < 0.35:
        return [dated]
    if rng.random() < 0.6:
        return [f"{dated} {clock(rng)}"]
    return [dated, f"TIME: {clock(rng)}"]
