"""Text, money and numbers -> canonical values. Ambiguous means None, never a silent factor of 1,000."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache

# Marks that are printed next to an amount. Longer ones first, so that S$ is not read as $.
CURRENCY = (
    "MYR", "USD", "EUR", "GBP", "SGD", "AUD", "CAD", "CHF", "INR", "NZD", "ZAR", "SEK", "NOK", "DKK", "PLN", "JPY",
    "CNY",
    "S$", "A$", "C$", "US$", "NZ$", "R$", "HK$", "RM", "RS.", "RS", "RP.", "RP", "KR.", "KR", "ZŁ", "FR.", "TL",
    "$", "€", "£", "¥", "₹", "₩", "₫", "₱", "฿", "₺",
)  # fmt: skip
MARKS = "|".join(re.escape(mark) for mark in sorted(CURRENCY, key=len, reverse=True))
# Hyphens, the minus sign and dashes that print a minus.
MINUS = "-\u2010\u2011\u2012\u2013\u2212\uff0d"
# Characters that change nothing on the page and everything in a comparison.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb]"
)
# Cyrillic and Greek letters that look like Latin ones; NFKC leaves them alone.
_CONFUSABLE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХЬасеіјорѕухһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρυ",
    "ABESIJKMHOPCTYXbaceijopsyxhdqwlABEZHIKMNOPTYXovpu",
)
_TYPOGRAPHIC = str.maketrans(
    {**dict.fromkeys("‘’‚‛′´`＇", "'"), **dict.fromkeys("“”„‟″＂", '"'), **dict.fromkeys(MINUS, "-"), "×": "x"}
)
_ALNUM = re.compile(r"[^\W_]+")


def invisible(text: str) -> bool:
    """Whether the text has zero-width, bidi or other characters that cannot be seen."""
    return not text.isascii() and _INVISIBLE.search(text) is not None


def plain(text: str) -> str:
    """The text as a reader compares it: NFKC, look-alikes and typographic marks folded, invisible characters gone,
    white space runs to one space, case folded.

    >>> plain("ＡＢＣ\\u200b  Соffee")
    'abc coffee'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        text = text.translate(_CONFUSABLE).translate(_TYPOGRAPHIC)
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """The runs of letters and digits of plain(text).

    >>> words("PB D/S Tape 12mm")
    ['pb', 'd', 's', 'tape', '12mm']
    """
    return _ALNUM.findall(plain(text))


def letters_digits(text: str) -> str:
    """plain(text) without everything but letters and digits: how vendors are compared.

    >>> letters_digits("King's Confectionery S/B")
    'kingsconfectionerysb'
    """
    return "".join(words(text))


_GROUPED = {
    ",": re.compile(r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})*,\d{3}"),  # 1,234,567 and the Indian 12,34,567
    ".": re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+"),
    "'": re.compile(r"[1-9]\d{0,2}(?:'\d{3})+"),
    " ": re.compile(r"[1-9]\d{0,2}(?: \d{3})+"),
}
_DIGITS = re.compile(r"[0-9]+")
_BODY = re.compile(r"[0-9][0-9.,' ]*|[.,][0-9]+")
_MONEY = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[+-])?\s*(?:(?:{MARKS})\s*)?(?P<sign2>[+-])?\s*"
    rf"(?P<body>[0-9.,' ]*[0-9])(?P<dash>[.,]-{{1,2}})?"
    rf"\s*(?P<trail>-|cr)?\s*(?:(?:{MARKS}))?\s*(?P<close>\))?",
    re.IGNORECASE,
)


def _ungroup(whole: str) -> str | None:
    """Digits of a whole part that may be grouped by one separator in threes; None where the grouping is wrong."""
    if _DIGITS.fullmatch(whole):
        return whole
    separators = set(whole) - set("0123456789")
    if len(separators) != 1:
        return None
    separator = separators.pop()
    pattern = _GROUPED.get(separator)
    return whole.replace(separator, "") if pattern and pattern.fullmatch(whole) else None


def readings(body: str, decimal: str | None = None) -> tuple[Decimal, ...]:
    """Every value that an unsigned printed number can have: one for "1.234,50", two for "1,234", none for "1.2.3".

    decimal: the decimal mark, "." or ",", where it is known; then there is at most one reading.
    """
    if not body.isascii() or not _BODY.fullmatch(body) or body[-1] == " ":
        return ()
    values: list[Decimal] = []
    for mark in ".," if decimal is None else decimal:
        if mark in body:
            whole, _, part = body.rpartition(mark)
            if part.isdigit() and mark not in whole:
                digits = _ungroup(whole) if whole else "0"
                if digits is not None:
                    values.append(Decimal(f"{digits}.{part}"))
        elif (digits := _ungroup(body)) is not None:
            values.append(Decimal(digits))
    other = "," if decimal == "." else "."
    if decimal is not None and not values and body.count(other) > 1 and (digits := _ungroup(body)) is not None:
        values.append(Decimal(digits))
    # Two separators of one kind, or two kinds, leave one reading; 12.50 leaves 12.50 only (groups have three digits).
    return tuple(dict.fromkeys(values))


def money(text: str, decimal: str | None = None) -> Decimal | None:
    """An exact amount from its printed form, or None where it is not one amount without doubt.

    Signs before, behind or as brackets; a currency mark before or behind; groups of thousands. "1,234" is ambiguous and
    so None, unless `decimal` ("." or ",") is known.

    >>> money("RM 1,234.50"), money("(0.02)"), money("1,234"), money("1,234", decimal=".")
    (Decimal('1234.50'), Decimal('-0.02'), None, Decimal('1234'))
    """
    if len(text) > 60:
        return None
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHIC)
        if any(c.isdigit() and not c.isascii() for c in text):
            return None
    match = _MONEY.fullmatch(text.strip())
    if match is None or bool(match["open"]) != bool(match["close"]):
        return None
    signs = [mark for mark in (match["sign"], match["sign2"], match["trail"]) if mark]
    if len(signs) + bool(match["open"]) > 1:
        return None
    found = readings(match["body"].strip(), decimal)
    if len(found) != 1:
        return None
    negative = bool(match["open"]) or signs in (["-"], ["cr"], ["CR"], ["Cr"])
    return -found[0] if negative and found[0] else found[0]


_CANONICAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?")


@lru_cache(maxsize=16_384)
def _canonical(text: str) -> Decimal | None:
    return Decimal(text) if _CANONICAL.fullmatch(text) and text.isascii() else None


def amount(value: object) -> Decimal | None:
    """The value of a money or number field of an attempt or of gold: "1234.50", 12, 12.5; None where it is none.

    Only the canonical form: no groups, no marks, a point. A bool is no number; NaN and infinity are none.
    """
    if isinstance(value, str):
        return _canonical(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and value - value != 0.0:
        return None
    return Decimal(repr(value))
