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
MINUS = "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
# Characters that change nothing on the page and everything in a comparison.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
# Assigned after Unicode 14 (Python 3.11): later Pythons would call them letters, and give other verdicts.
_NEWER = re.compile(
    "[\u0cf3\u0ece\u2ffc-\u2fff\u31ef\U00010efd-\U00010eff\U0001123f-\U00011241\U00011b00-\U00011b09"
    "\U00011f00-\U00011f10\U00011f12-\U00011f3a\U00011f3e-\U00011f59\U0001342f\U00013439-\U00013455\U0001b132\U0001b155"
    "\U0001d2c0-\U0001d2d3\U0001df25-\U0001df2a\U0001e030-\U0001e06d\U0001e08f\U0001e4d0-\U0001e4f9\U0001f6dc"
    "\U0001f774-\U0001f776\U0001f77b-\U0001f77f\U0001f7d9\U0001fa75-\U0001fa77\U0001fa87\U0001fa88\U0001faad-\U0001faaf"
    "\U0001fabb-\U0001fabd\U0001fabf\U0001face\U0001facf\U0001fada\U0001fadb\U0001fae8\U0001faf7\U0001faf8\U0002b739"
    "\U0002ebf0-\U0002ee5d\U00031350-\U000323af]"
)
# Small Cyrillic and Greek letters of which the small or the capital form looks Latin; NFKC leaves them alone. Where the
# two look like different letters (capital and small nu), the capital counts: case must not matter.
_CONFUSABLE = str.maketrans(
    "авекмнорстухьіјѕѵһԁԛԝӏүґαβεζηικμνορτυχϳıɑɡǀ",
    "abekmhopctyxbijsvhdqwlyrabezhikmnoptyxjiagl",
)
_TYPOGRAPHIC = str.maketrans(
    {**dict.fromkeys("‘’‚‛′´`＇‹›ʹʼ", "'"), **dict.fromkeys("“”„‟″＂«»", '"'), **dict.fromkeys(MINUS + "—―﹘⁃", "-")}
    | {"×": "x", "✕": "x", "✖": "x", "⁄": "/", "∕": "/", "\u2800": " "}
)
_EARLY = str.maketrans(
    {"´": "'", "″": '"', "‶": '"', "Ϲ": "C", "ϲ": "c", "Ϳ": "J"}
)  # NFKC makes something else of these
_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")  # 8½ is 8 1/2, not 81/2
_ALNUM = re.compile(r"[^\W_]+")
# Blocks with vowel signs and accents that stand alone: to Python they are no part of a word.
_MARKED = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u0670\u06d6-\u0fc6\u102b-\u109d\u135d-\u1dff\u20d0-\u20f0\u302a-\u309a]"
)


def invisible(text: str) -> bool:
    """Whether the text has zero-width, bidi or other characters that cannot be seen."""
    return not text.isascii() and _INVISIBLE.search(text) is not None


def known_characters(text: str) -> str:
    """The text, of the same length, with a replacement character for each that is newer than the oldest Python's
    Unicode: every version then reads the same."""
    return text if text.isascii() else _NEWER.sub("\ufffd", text)


def plain(text: str) -> str:
    """The text as a reader compares it: NFKC, look-alikes and typographic marks folded, invisible characters gone,
    white space runs to one space, case folded.

    >>> plain("ＡＢＣ\\u200b  Соffee")
    'abc coffee'
    """
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    if not text.isascii():
        text = _FRACTION.sub(r" \g<0>", _NEWER.sub("\ufffd", _INVISIBLE.sub("", text.translate(_EARLY))))
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = text.replace("i\u0307", "i").translate(_CONFUSABLE).translate(_TYPOGRAPHIC)
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """The runs of letters and digits of plain(text), with the signs that belong to letters.

    >>> words("PB D/S Tape 12mm")
    ['pb', 'd', 's', 'tape', '12mm']
    """
    if text.isascii() and text.isprintable():
        return _ALNUM.findall(text.lower())  # all that plain() would change
    text = plain(text)
    if not text.isascii() and _MARKED.search(text) is not None:
        kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
        return "".join(kept).split()
    return _ALNUM.findall(text)


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
# Further marks, read only where a text is one amount and nothing else: on a page FT and R are words too.
_FURTHER = (
    "AED", "ARS", "BDT", "BGN", "BHD", "BRL", "CLP", "COP", "CZK", "EGP", "HKD", "HUF", "IDR", "ILS", "JOD", "KES",
    "KRW", "KWD", "LKR", "MXN", "NGN", "OMR", "PEN", "PHP", "PKR", "QAR", "RON", "RUB", "SAR", "THB", "TND", "TRY",
    "TWD", "UAH", "VND", "NT$", "MX$", "S/.", "S/", "KČ", "FT", "LEI", "KD", "BD", "R", "₽", "₴", "₪", "₦", "₡",
    "₲", "₵", "₸", "₾", "៛", "元", "円", "원", "฿", "₨",
)  # fmt: skip
_ALL_MARKS = "|".join(re.escape(mark) for mark in sorted({*CURRENCY, *_FURTHER}, key=len, reverse=True))
# No fraction is in use, or one of three digits: what settles 1,234.
WHOLE_ONLY = frozenset("JPY KRW VND IDR CLP HUF ¥ ₩ ₫ RP RP. FT 円 원".split())
_THREE_DECIMALS = frozenset("KWD BHD OMR JOD TND KD BD".split())
_MONEY = re.compile(
    rf"(?P<sign>[+-])?\s*(?P<mark>(?:{_ALL_MARKS})(?![A-Z]))?\s*(?P<open>\()?\s*(?P<sign2>[+-])?\s*"
    rf"(?P<mark2>(?:{_ALL_MARKS})(?![A-Z]))?\s*(?P<sign3>[+-])?\s*"
    rf"(?P<body>[0-9.,' ]*[0-9])(?P<dash>[.,]-{{1,2}}|/-)?"
    rf"\s*(?P<trail>-|cr\.?(?![A-Z]))?\s*(?P<close>\))?\s*(?P<behind>{_ALL_MARKS})?\s*(?P<trail2>-)?\s*(?P<close2>\))?",
    re.IGNORECASE,
)
# Full-width forms and spaces. Not NFKC: that makes 12.52 of 12.5² and 121/2 of 12½.
PRINTED = str.maketrans(
    {
        **{chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)},
        **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys(MINUS, "-"), **dict.fromkeys("’‘′´`ʼ＇", "'"), "￥": "¥", "￡": "£", "￦": "₩", "﹩": "$",
    }
)  # fmt: skip


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
    so None, unless `decimal` ("." or ",") is known or the currency has no such fraction (¥1,234).

    >>> money("RM 1,234.50"), money("(0.02)"), money("1,234"), money("1,234", decimal=".")
    (Decimal('1234.50'), Decimal('-0.02'), None, Decimal('1234'))
    """
    if len(text) > 60:
        return None
    if not text.isascii():
        text = _INVISIBLE.sub("", text).translate(PRINTED)
    match = _MONEY.fullmatch(text.strip())
    if match is None:
        return None
    opened, closed = bool(match["open"]), bool(match["close"]) + bool(match["close2"])
    signs = [mark for name in ("sign", "sign2", "sign3", "trail", "trail2") if (mark := match[name])]
    marks = {mark.upper() for name in ("mark", "mark2", "behind") if (mark := match[name])}
    if opened != closed or len(signs) + opened > 1 or (match["dash"] and match["trail2"]):
        return None
    if len(marks) > 1 and not (len(marks) == 2 and "$" in marks and any(m.isalpha() and len(m) == 3 for m in marks)):
        return None  # two currencies
    found = readings(match["body"].strip(), decimal)
    if len(found) == 2 and marks & WHOLE_ONLY:
        found = (max(found),)
    elif len(found) == 2 and "." in match["body"] and marks & _THREE_DECIMALS:
        found = (min(found),)
    if len(found) != 1:
        return None
    negative = opened or (bool(signs) and signs[0] != "+")
    return -found[0] if negative and found[0] else found[0]


_CANONICAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?")


@lru_cache(maxsize=16_384)
def _canonical(text: str) -> Decimal | None:
    return Decimal(text) if _CANONICAL.fullmatch(text) and text.isascii() else None


def amount(value: object) -> Decimal | None:
    """The value of a money or number field of an attempt or of gold: "1234.50", 12, 12.5; None where it is none.

    Only the canonical form: no groups, no marks, a point. A bool is no number; NaN and infinity are none.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _canonical(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and value - value != 0.0:
        return None
    return Decimal(repr(value))
