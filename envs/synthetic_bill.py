"""What synthetic receipts and invoices share: layout families, bills, printed money, and reading-machine noise."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from envs.synthetic_locales import Locale
from envs.words import pick

_OPEN, _CLOSE = "\x01", "\x02"
_HOLD, _RELEASE = "\x05", "\x06"
_MARKS = str.maketrans("", "", _OPEN + _CLOSE + _HOLD + _RELEASE)
_CONFUSED = dict(zip("OILSBGZ:TECN", "01I5862;IFGM", strict=True))


@dataclass(frozen=True, slots=True)
class Family:
    """One layout family: the structure of the page. Everything else varies inside it.

    Example: Family("till", ("MY", "SG"), item="name_amount", head="plain", date="meta", totals="plain")
    """

    name: str
    locales: tuple[str, ...]
    item: str
    head: str
    date: str
    totals: str
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One item: quantity in thousandths, money in cents."""

    name: str
    code: str
    mark: str
    quantity_milli: int
    unit_cents: int
    amount_cents: int


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill that closes: sum(lines) - discount + service + (tax if tax_added) + rounding == total. Money in cents."""

    lines: tuple[Line, ...]
    subtotal: int
    discount: int | None
    service: int | None
    tax: int | None
    tax_added: bool
    tax_rate: int
    tax_label: str
    rounding: int | None
    total: int

    @property
    def unrounded(self) -> int:
        return self.total - (self.rounding or 0)

    @property
    def untaxed(self) -> int:
        return self.unrounded - (self.tax or 0)


@dataclass(frozen=True, slots=True)
class Pen:
    """How this document writes: its locale, column gap, and whether money carries its currency mark.

    negative: "lead", "trail" or "brackets". bare_zero: ".50" for "0.50".
    """

    rng: Random
    locale: Locale
    gap: str
    prefix: str
    marked_items: bool
    marked_totals: bool
    bare_zero: bool
    negative: str

    def label(self, name: str) -> str:
        return pick(self.rng, self.locale.labels[name])

    def row(self, *cells: str) -> str:
        return self.gap.join(cells)

    def money(self, cents: int, marked: bool | None = None) -> str:
        """Protected text; marked: with the currency mark, None for as this document's totals are."""
        whole, part = divmod(abs(cents), 100)
        body = f"{whole:,}".replace(",", self.locale.thousands) + f"{self.locale.decimal}{part:02d}"
        if self.bare_zero and whole == 0:
            body = body[1:]
        if self.marked_totals if marked is None else marked:
            body = self.prefix + body + self.locale.suffix
        if cents < 0:
            body = {"lead": f"-{body}", "trail": f"{body}-", "brackets": f"({body})"}[self.negative]
        return protect(body)

    def item_money(self, cents: int) -> str:
        return self.money(cents, self.marked_items)

    def quantity(self, milli: int) -> str:
        whole, part = divmod(milli, 1000)
        return f"{whole}{self.locale.decimal}{part:03d}" if part else str(whole)


def draw_pen(rng: Random, locale: Locale) -> Pen:
    return Pen(
        rng,
        locale,
        gap=rng.choice(["  ", "  ", "  ", " ", "   "]),
        prefix=pick(rng, locale.prefixes),
        marked_items=rng.random() < 0.2,
        marked_totals=rng.random() < 0.45,
        bare_zero=locale.decimal == "." and rng.random() < 0.04,
        negative=pick(rng, "lead|lead|lead|trail|brackets"),
    )


def draw_price(rng: Random) -> int:
    """Cents, at least 20. Tills like .00, .50, .90 and .99."""
    cents = rng.randint(20, rng.choice([900, 900, 2500, 2500, 9900, 40000]))
    if rng.random() < 0.4:
        return cents
    return max(20, cents // 100 * 100 + rng.choice([0, 0, 50, 90, 99, 20, 80]))


def percent(cents: int, rate: int) -> int:
    """`rate` % of `cents`, half up."""
    return (cents * rate + 50) // 100


def plain(cents: int) -> str:
    """Canonical money: 123450 -> "1234.50"."""
    whole, part = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole}.{part:02d}"


def protect(text: str) -> str:
    """Marks text that noise must leave alone: gold, and the words that say which number is the total."""
    return f"{_OPEN}{text}{_CLOSE}"


def steady(text: str) -> str:
    """Marks a label that noise must leave readable: it says what the number beside it is."""
    return f"{_HOLD}{text}{_RELEASE}"


def soften(line: str) -> str:
    """Title case outside the protected spans."""
    pieces = line.replace(_OPEN, f"\0{_OPEN}").replace(_CLOSE, f"{_CLOSE}\0").split("\0")
    return "".join(piece if piece.startswith(_OPEN) else piece.title() for piece in pieces)


def unprotect(text: str, rng: Random, level: float) -> str:
    """Noise of reading machines outside the protected spans, whose marks are dropped.

    level: the share of characters that are confused, lost or doubled, in [0, 1]; digits, "." and "," never are.
    """
    if level == 0:
        return text.translate(_MARKS)
    out: list[str] = []
    safe = 0
    for char in text:
        if char in (_OPEN, _CLOSE, _HOLD, _RELEASE):
            safe += 1 if char in (_OPEN, _HOLD) else -1
        elif safe or char.isspace() or char.isdigit() or char in ".," or rng.random() >= level:
            out.append(char)
        else:
            kind = rng.random()
            if kind < 0.6:
                out.append(_CONFUSED.get(char, char))
            elif kind < 0.8 and char != " ":
                out.append(char + char)
    return "".join(out)
