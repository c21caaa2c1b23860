"""What synthetic receipts and invoices share: locales, printed money and dates, noise, and the family record."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from random import Random

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
MONTHS_LONG = "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER".split()
_OPEN, _CLOSE = "\x01", "\x02"


@dataclass(frozen=True, slots=True)
class Locale:
    """How one country prints money, dates and taxes.

    Example: Locale("MY", "MYR", ("RM", "RM "), "", ".", ",", ("dd/mm/yyyy",), "GST", (6,), ...)
    """

    name: str
    currency: str
    prefixes: tuple[str, ...]
    suffix: str
    decimal: str
    thousands: str
    dates: tuple[str, ...]
    taxes: tuple[str, ...]
    rates: tuple[int, ...]
    labels: dict[str, tuple[str, ...]]


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


_DMY = ("dd/mm/yyyy dd/mm/yyyy dd-mm-yyyy dd/mm/yy dd-mm-yy dd.mm.yyyy dd/MMM/yyyy dd-MMM-yyyy dd-MMM-yy".split()
        + ["dd MMM yyyy", "dd MMM yy", "yyyy-mm-dd", "MMM dd, yyyy", "dd MONTH yyyy", "d/m/yyyy", "yyyy/mm/dd", "dd/mm/yyyy", "dd-mm-yyyy"])  # fmt: skip
_EN = {
    "total": ("TOTAL", "TOTAL", "GRAND TOTAL", "NET TOTAL", "NETT TOTAL", "TOTAL AMOUNT", "AMOUNT DUE", "TOTAL DUE", "TOTAL PAYABLE", "TOTAL AMT", "FINAL TOTAL", "BALANCE DUE"),
    "subtotal": ("SUBTOTAL", "SUB TOTAL", "SUB-TOTAL", "TOTAL SALES", "GROSS AMOUNT", "ITEMS TOTAL"),
    "rounding": ("ROUNDING", "ROUNDING ADJ", "ROUNDING ADJUSTMENT", "ROUND ADJ", "ROUND AMT", "ROUND OFF"),
    "cash": ("CASH", "CASH", "CASH RECEIVED", "PAID CASH", "CASH TENDERED", "TENDERED", "CASH PAYMENT"),
    "card": ("VISA", "MASTERCARD", "CREDIT CARD", "DEBIT CARD", "CARD", "NETS", "VISA CARD", "CREDIT"),
    "change": ("CHANGE", "CHANGE", "CHANGE DUE", "CHANGE RETURNED", "BALANCE RETURNED"),
    "discount": ("DISCOUNT", "DISC", "LESS DISCOUNT", "MEMBER DISCOUNT", "BILL DISCOUNT", "VOUCHER"),
    "service": ("SERVICE CHARGE", "SERVICE CHARGE 10%", "SVC CHARGE", "SERV. CHG", "SERVICE CHG 10%"),
    "shipping": ("SHIPPING", "FREIGHT", "DELIVERY", "SHIPPING & HANDLING"),
    "date": ("DATE", "DATE", "DATE:", "DATE :", "DATED", "INV DATE", "DATE/TIME", "BILL DATE", "DOC DATE"),
    "number": ("INVOICE NO", "INV NO", "RECEIPT NO", "BILL NO", "DOC NO", "RECEIPT #", "INVOICE #", "SLIP NO", "TRANS NO", "CS NO", "REF"),
    "title": ("TAX INVOICE", "TAX INVOICE", "RECEIPT", "CASH SALES", "INVOICE", "SIMPLIFIED TAX INVOICE", "CASH RECEIPT", "SALES RECEIPT", "CASH BILL", "OFFICIAL RECEIPT"),
    "thanks": ("THANK YOU", "THANK YOU. PLEASE COME AGAIN", "THANK YOU FOR SHOPPING WITH US", "PLEASE COME AGAIN", "GOODS SOLD ARE NOT RETURNABLE", "HAVE A NICE DAY",
               "GOODS SOLD ARE NOT REFUNDABLE OR EXCHANGEABLE", "THANK YOU FOR YOUR PATRONAGE", "TERIMA KASIH", "TERIMA KASIH SILA DATANG LAGI", "SEE YOU AGAIN"),
}  # fmt: skip
_DE = _EN | {
    "total": ("SUMME", "GESAMT", "GESAMTBETRAG", "ZU ZAHLEN", "TOTAL"), "subtotal": ("ZWISCHENSUMME", "NETTO"), "rounding": ("RUNDUNG",), "cash": ("BAR", "GEGEBEN"),
    "card": ("EC-KARTE", "GIROCARD"), "change": ("RUECKGELD", "ZURUECK"), "discount": ("RABATT",), "service": ("BEDIENUNG",), "shipping": ("VERSAND",), "date": ("DATUM", "DATUM:", "RECHNUNGSDATUM"),
    "number": ("BELEG-NR", "RECHNUNG NR", "BON-NR"), "title": ("RECHNUNG", "KASSENBON", "QUITTUNG"), "thanks": ("VIELEN DANK", "VIELEN DANK FUER IHREN EINKAUF", "AUF WIEDERSEHEN"),
}  # fmt: skip
_FR = _EN | {
    "total": ("TOTAL TTC", "NET A PAYER", "TOTAL", "MONTANT DU"), "subtotal": ("SOUS-TOTAL", "TOTAL HT"), "rounding": ("ARRONDI",), "cash": ("ESPECES", "REGLEMENT ESPECES"), "card": ("CB", "CARTE BANCAIRE"),
    "change": ("RENDU", "MONNAIE RENDUE"), "discount": ("REMISE",), "service": ("SERVICE",), "shipping": ("LIVRAISON", "PORT"), "date": ("DATE", "DATE:", "LE"), "number": ("TICKET NO", "FACTURE NO"),
    "title": ("TICKET", "FACTURE"), "thanks": ("MERCI DE VOTRE VISITE", "A BIENTOT", "MERCI"),
}  # fmt: skip
_PT = _EN | {
    "total": ("TOTAL", "TOTAL A PAGAR", "TOTAL EUR"), "subtotal": ("SUBTOTAL", "TOTAL ILIQUIDO"), "rounding": ("ARREDONDAMENTO",), "cash": ("NUMERARIO", "DINHEIRO"), "card": ("MULTIBANCO", "CARTAO"),
    "change": ("TROCO",), "discount": ("DESCONTO",), "service": ("SERVICO",), "shipping": ("PORTES",), "date": ("DATA", "DATA:", "DATA DE EMISSAO"), "number": ("FATURA NO", "RECIBO", "FS"),
    "title": ("FATURA SIMPLIFICADA", "FATURA-RECIBO", "FATURA"), "thanks": ("OBRIGADO", "OBRIGADO PELA PREFERENCIA", "VOLTE SEMPRE"),
}  # fmt: skip
LOCALES: dict[str, Locale] = {
    "MY": Locale("MY", "MYR", ("RM", "RM ", "RM", "$", ""), "", ".", ",", tuple(_DMY), ("GST", "GST", "SST"), (6, 6, 6, 10), _EN),
    "SG": Locale("SG", "SGD", ("$", "S$", ""), "", ".", ",", tuple(_DMY), ("GST",), (7, 8, 9), _EN),
    "US": Locale("US", "USD", ("$", "$ ", ""), "", ".", ",", ("mm/dd/yyyy", "mm/dd/yyyy", "mm/dd/yy", "mm-dd-yyyy", "MMM dd, yyyy", "MMM dd yyyy", "yyyy-mm-dd", "MONTH dd, yyyy"), ("TAX", "SALES TAX"), (5, 6, 8, 9), _EN),
    "UK": Locale("UK", "GBP", ("£", "£", "GBP "), "", ".", ",", tuple(_DMY), ("VAT",), (20, 5), _EN),
    "AU": Locale("AU", "AUD", ("$", "A$", ""), "", ".", ",", tuple(_DMY), ("GST",), (10,), _EN),
    "IN": Locale("IN", "INR", ("RS.", "RS ", "INR "), "", ".", ",", tuple(_DMY), ("GST", "IGST"), (5, 12, 18), _EN),
    "DE": Locale("DE", "EUR", ("",), " EUR", ",", ".", ("dd.mm.yyyy", "dd.mm.yyyy", "dd.mm.yy"), ("MWST", "UST"), (7, 19), _DE),
    "FR": Locale("FR", "EUR", ("",), " €", ",", ".", ("dd/mm/yyyy", "dd/mm/yy", "dd-mm-yyyy"), ("TVA",), (10, 20), _FR),
    "PT": Locale("PT", "EUR", ("",), " €", ",", ".", ("dd/mm/yyyy", "dd-mm-yyyy", "yyyy-mm-dd"), ("IVA",), (6, 13, 23), _PT),
}  # fmt: skip


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
    """A bill that closes: sum(lines) - discount + service + (tax if tax_added) + rounding == total. All money in cents."""

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


def protect(text: str) -> str:
    """Marks text that noise must leave alone: gold, and the words that say which number is the total."""
    return f"{_OPEN}{text}{_CLOSE}"


def plain(cents: int) -> str:
    """Canonical money: 123450 -> "1234.50"."""
    sign, cents = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}{cents // 100}.{cents % 100:02d}"


@dataclass(frozen=True, slots=True)
class Pen:
    """How this document writes: its locale, column gap, and whether money carries its currency mark."""

    rng: Random
    locale: Locale
    gap: str
    prefix: str
    marked_items: bool
    marked_totals: bool
    bare_zero: bool
    negative: str

    def label(self, name: str) -> str:
        return self.rng.choice(self.locale.labels[name])

    def money(self, cents: int, marked: bool | None = None) -> str:
        marked = self.marked_totals if marked is None else marked
        whole, part = divmod(abs(cents), 100)
        body = f"{whole:,}".replace(",", self.locale.thousands) + f"{self.locale.decimal}{part:02d}"
        if self.bare_zero and whole == 0:
            body = body[1:]
        if marked:
            body = self.prefix + body + self.locale.suffix
        if cents < 0:
            body = {"lead": "-" + body, "trail": body + "-", "brackets": f"({body})"}[self.negative]
        return protect(body)

    def item_money(self, cents: int) -> str:
        return self.money(cents, self.marked_items)

    def quantity(self, milli: int) -> str:
        if milli % 1000:
            return f"{milli // 1000}{self.locale.decimal}{milli % 1000:03d}"
        return str(milli // 1000)


def pen(rng: Random, locale: Locale) -> Pen:
    return Pen(
        rng, locale, rng.choice(["  ", "  ", "  ", " ", "   "]), rng.choice(locale.prefixes), rng.random() < 0.2, rng.random() < 0.45,
        locale.decimal == "." and rng.random() < 0.04, rng.choice(["lead", "lead", "lead", "trail", "brackets"]),
    )  # fmt: skip


def printed_date(day: datetime.date, form: str, upper: bool) -> str:
    """`form` spells year, month and day, e.g. "dd-MMM-yy"."""
    out = form.replace("yyyy", f"{day.year:04d}").replace("yy", f"{day.year % 100:02d}")
    out = out.replace("MONTH", "\x03").replace("MMM", "\x04")
    out = out.replace("mm", f"{day.month:02d}").replace("m", str(day.month)).replace("dd", f"{day.day:02d}").replace("d", str(day.day))
    out = out.replace("\x03", MONTHS_LONG[day.month - 1]).replace("\x04", MONTHS[day.month - 1])
    return out if upper else out.title()


def draw_date(rng: Random) -> datetime.date:
    return datetime.date(2010, 1, 1) + datetime.timedelta(days=rng.randrange(17 * 365)) if rng.random() < 0.5 else datetime.date(2016, 6, 1) + datetime.timedelta(days=rng.randrange(1300))


def clock(rng: Random) -> str:
    h, m, s = rng.randrange(8, 23), rng.randrange(60), rng.randrange(60)
    half, h12 = ("PM" if h >= 12 else "AM"), (h - 1) % 12 + 1
    return rng.choice([f"{h:02d}:{m:02d}", f"{h:02d}:{m:02d}:{s:02d}", f"{h12}:{m:02d} {half}", f"{h12:02d}:{m:02d}{half}", f"{h12}:{m:02d}:{s:02d} {half}", f"{h:02d}:{m:02d}:{s:02d}"])


def draw_price(rng: Random) -> int:
    """Cents. Tills like .00, .50, .90 and .99."""
    high = rng.choice([900, 900, 2500, 2500, 9900, 40000])
    cents = rng.randint(20, high)
    return cents if rng.random() < 0.4 else max(20, cents // 100 * 100 + rng.choice([0, 0, 50, 90, 99, 20, 80]))


_CONFUSED = {"O": "0", "0": "O", "I": "1", "1": "I", "L": "I", "S": "5", "5": "S", "B": "8", "8": "B", "G": "6", "Z": "2", ".": ",", ":": ";", "T": "I", "E": "F", "C": "G", "N": "M"}


def unprotect(text: str, rng: Random, level: float) -> str:
    """Noise of reading machines (a share `level` of characters confused, lost or doubled) outside the protected spans; drops the marks."""
    if level == 0:
        return text.replace(_OPEN, "").replace(_CLOSE, "")
    out: list[str] = []
    safe = 0
    for char in text:
        if char in (_OPEN, _CLOSE):
            safe += 1 if char == _OPEN else -1
        elif safe or char == "\n" or char.isdigit() or char in ".," or rng.random() >= level:
            out.append(char)
        else:
            kind = rng.random()
            if kind < 0.6:
                out.append(_CONFUSED.get(char, char))
            elif kind < 0.8 and char != " ":
                out.append(char + char)
    return "".join(out)
