"""How countries print: money, dates, taxes, and the words on a page.

`|` separates choices; one that is drawn more often stands more than once.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from random import Random

_MONTHS = "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER".split()


@dataclass(frozen=True, slots=True)
class Locale:
    """How one country prints money, dates and taxes.

    prefixes, dates, taxes, labels: choices. rates: tax rates in percent.
    Example: Locale("AU", "AUD", "$|A$|", "dd/mm/yyyy|d/m/yyyy", "GST", (10,), {"total": "TOTAL|AMOUNT DUE", ...})
    """

    name: str
    currency: str
    prefixes: str
    dates: str
    taxes: str
    rates: tuple[int, ...]
    labels: dict[str, str]
    suffix: str = ""
    decimal: str = "."
    thousands: str = ","

    @property
    def tax(self) -> str:
        """The usual name of the tax."""
        return self.taxes.split("|")[0]


_DMY = (
    "dd/mm/yyyy|dd/mm/yyyy|dd-mm-yyyy|dd/mm/yy|dd-mm-yy|dd.mm.yyyy|dd/MMM/yyyy|dd-MMM-yyyy|dd-MMM-yy|dd MMM yyyy|"
    "dd MMM yy|yyyy-mm-dd|MMM dd, yyyy|dd MONTH yyyy|d/m/yyyy|yyyy/mm/dd|dd/mm/yyyy|dd-mm-yyyy"
)
_MDY = "mm/dd/yyyy|mm/dd/yyyy|mm/dd/yy|mm-dd-yyyy|MMM dd, yyyy|MMM dd yyyy|yyyy-mm-dd|MONTH dd, yyyy"
_DE_DATES = "dd.mm.yyyy|dd.mm.yyyy|dd.mm.yy"
_FR_DATES = "dd/mm/yyyy|dd/mm/yy|dd-mm-yyyy"
_PT_DATES = "dd/mm/yyyy|dd-mm-yyyy|yyyy-mm-dd"
_EN = {
    "total": (
        "TOTAL|TOTAL|GRAND TOTAL|NET TOTAL|NETT TOTAL|TOTAL AMOUNT|AMOUNT DUE|TOTAL DUE|TOTAL PAYABLE|TOTAL AMT|"
        "FINAL TOTAL|BALANCE DUE"
    ),
    "subtotal": "SUBTOTAL|SUB TOTAL|SUB-TOTAL|TOTAL SALES|GROSS AMOUNT|ITEMS TOTAL",
    "rounding": "ROUNDING|ROUNDING ADJ|ROUNDING ADJUSTMENT|ROUND ADJ|ROUND AMT|ROUND OFF",
    "cash": "CASH|CASH|CASH RECEIVED|PAID CASH|CASH TENDERED|TENDERED|CASH PAYMENT",
    "card": "VISA|MASTERCARD|CREDIT CARD|DEBIT CARD|CARD|NETS|VISA CARD|CREDIT",
    "change": "CHANGE|CHANGE|CHANGE DUE|CHANGE RETURNED|BALANCE RETURNED",
    "discount": "DISCOUNT|DISC|LESS DISCOUNT|MEMBER DISCOUNT|BILL DISCOUNT|VOUCHER",
    "service": "SERVICE CHARGE|SERVICE CHARGE 10%|SVC CHARGE|SERV. CHG|SERVICE CHG 10%",
    "shipping": "SHIPPING|FREIGHT|DELIVERY|SHIPPING & HANDLING",
    "date": "DATE|DATE|DATE:|DATE :|DATED|INV DATE|DATE/TIME|BILL DATE|DOC DATE",
    "number": "INVOICE NO|INV NO|RECEIPT NO|BILL NO|DOC NO|RECEIPT #|INVOICE #|SLIP NO|TRANS NO|CS NO|REF",
    "title": (
        "TAX INVOICE|TAX INVOICE|RECEIPT|CASH SALES|INVOICE|SIMPLIFIED TAX INVOICE|CASH RECEIPT|SALES RECEIPT|"
        "CASH BILL|OFFICIAL RECEIPT"
    ),
    "thanks": (
        "THANK YOU|THANK YOU. PLEASE COME AGAIN|THANK YOU FOR SHOPPING WITH US|PLEASE COME AGAIN|"
        "GOODS SOLD ARE NOT RETURNABLE|HAVE A NICE DAY|GOODS SOLD ARE NOT REFUNDABLE OR EXCHANGEABLE|"
        "THANK YOU FOR YOUR PATRONAGE|TERIMA KASIH|TERIMA KASIH SILA DATANG LAGI|SEE YOU AGAIN"
    ),
}
_DE = {
    "total": "SUMME|GESAMT|GESAMTBETRAG|ZU ZAHLEN|TOTAL",
    "subtotal": "ZWISCHENSUMME|NETTO",
    "rounding": "RUNDUNG",
    "cash": "BAR|GEGEBEN",
    "card": "EC-KARTE|GIROCARD",
    "change": "RUECKGELD|ZURUECK",
    "discount": "RABATT",
    "service": "BEDIENUNG",
    "shipping": "VERSAND",
    "date": "DATUM|DATUM:|RECHNUNGSDATUM",
    "number": "BELEG-NR|RECHNUNG NR|BON-NR",
    "title": "RECHNUNG|KASSENBON|QUITTUNG",
    "thanks": "VIELEN DANK|VIELEN DANK FUER IHREN EINKAUF|AUF WIEDERSEHEN",
}
_FR = {
    "total": "TOTAL TTC|NET A PAYER|TOTAL|MONTANT DU",
    "subtotal": "SOUS-TOTAL|TOTAL HT",
    "rounding": "ARRONDI",
    "cash": "ESPECES|REGLEMENT ESPECES",
    "card": "CB|CARTE BANCAIRE",
    "change": "RENDU|MONNAIE RENDUE",
    "discount": "REMISE",
    "service": "SERVICE",
    "shipping": "LIVRAISON|PORT",
    "date": "DATE|DATE:|LE",
    "number": "TICKET NO|FACTURE NO",
    "title": "TICKET|FACTURE",
    "thanks": "MERCI DE VOTRE VISITE|A BIENTOT|MERCI",
}
_PT = {
    "total": "TOTAL|TOTAL A PAGAR|TOTAL EUR",
    "subtotal": "SUBTOTAL|TOTAL ILIQUIDO",
    "rounding": "ARREDONDAMENTO",
    "cash": "NUMERARIO|DINHEIRO",
    "card": "MULTIBANCO|CARTAO",
    "change": "TROCO",
    "discount": "DESCONTO",
    "service": "SERVICO",
    "shipping": "PORTES",
    "date": "DATA|DATA:|DATA DE EMISSAO",
    "number": "FATURA NO|RECIBO|FS",
    "title": "FATURA SIMPLIFICADA|FATURA-RECIBO|FATURA",
    "thanks": "OBRIGADO|OBRIGADO PELA PREFERENCIA|VOLTE SEMPRE",
}
LOCALES = {
    "MY": Locale("MY", "MYR", "RM|RM |RM|$|", _DMY, "GST|GST|SST", (6, 6, 6, 10), _EN),
    "SG": Locale("SG", "SGD", "$|S$|", _DMY, "GST", (7, 8, 9), _EN),
    "US": Locale("US", "USD", "$|$ |", _MDY, "TAX|SALES TAX", (5, 6, 8, 9), _EN),
    "UK": Locale("UK", "GBP", "£|£|GBP ", _DMY, "VAT", (20, 5), _EN),
    "AU": Locale("AU", "AUD", "$|A$|", _DMY, "GST", (10,), _EN),
    "IN": Locale("IN", "INR", "RS.|RS |INR ", _DMY, "GST|IGST", (5, 12, 18), _EN),
    "DE": Locale("DE", "EUR", "", _DE_DATES, "MWST|UST", (7, 19), _DE, " EUR", ",", "."),
    "FR": Locale("FR", "EUR", "", _FR_DATES, "TVA", (10, 20), _FR, " €", ",", "."),
    "PT": Locale("PT", "EUR", "", _PT_DATES, "IVA", (6, 13, 23), _PT, " €", ",", "."),
}


def draw_date(rng: Random) -> datetime.date:
    """Half of the days are of 2010 to 2026, half of mid 2016 to 2019."""
    start, days = (datetime.date(2010, 1, 1), 17 * 365) if rng.random() < 0.5 else (datetime.date(2016, 6, 1), 1300)
    return start + datetime.timedelta(days=rng.randrange(days))


def printed_date(day: datetime.date, form: str, upper: bool) -> str:
    """`form` spells year, month and day, e.g. "dd-MMM-yy"."""
    month = _MONTHS[day.month - 1]
    parts = {"yyyy": f"{day.year:04d}", "yy": f"{day.year % 100:02d}", "MONTH": month, "MMM": month[:3]}
    parts |= {"mm": f"{day.month:02d}", "m": str(day.month), "dd": f"{day.day:02d}", "d": str(day.day)}
    out = re.sub("|".join(parts), lambda match: parts[match[0]], form)
    return out if upper else out.title()


def clock(rng: Random) -> str:
    h, m, s = rng.randrange(8, 23), rng.randrange(60), rng.randrange(60)
    half, h12 = ("PM" if h >= 12 else "AM"), (h - 1) % 12 + 1
    short, long = f"{h:02d}:{m:02d}", f"{h:02d}:{m:02d}:{s:02d}"
    halved = [f"{h12}:{m:02d} {half}", f"{h12:02d}:{m:02d}{half}", f"{h12}:{m:02d}:{s:02d} {half}"]
    return rng.choice([short, long, *halved, long])
