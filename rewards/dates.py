"""Dates in their printed forms. A form that the task does not declare is not read."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

DateFormat = Literal["ymd", "dmy", "mdy", "d_mon_y", "mon_d_y", "y_mon_d"]
DATE_FORMATS: tuple[DateFormat, ...] = ("ymd", "dmy", "mdy", "d_mon_y", "mon_d_y", "y_mon_d")

# English, German, French, Portuguese, Spanish, Italian, Dutch, Malay. Compared without accents' marks on either side.
_NAMES = (
    "january jan januar janvier janv janeiro enero gennaio januari",
    "february feb februar février fevrier fév fev fevereiro febrero febbraio februari",
    "march mar märz maerz mrz mars março marco marzo maart mac",
    "april apr avril avr abril abr aprile",
    "may mai maio mayo maggio mei",
    "june jun juni juin junho junio giugno",
    "july jul juli juillet juil julho julio luglio julai",
    "august aug août aout agosto ago augustus ogos",
    "september sept sep septembre setembro set septiembre settembre",
    "october oct oktober okt octobre outubro out octubre ottobre",
    "november nov novembre novembro noviembre",
    "december dec dezember dez décembre decembre déc dezembro diciembre dicembre desember disember dis",
)
MONTHS = {name: number for number, names in enumerate(_NAMES, start=1) for name in names.split()}
_MONTH = "(?P<m>" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\.?"
_NUMERIC = r"(?<![\w.,/-])(?P<a>\d{1,4})(?P<sep> ?[/.\-] ?)(?P<b>\d{1,2})(?P=sep)(?P<c>\d{2,4})(?![\d/-]|[.,]\d|,\d)"
_YEAR = r"(?:(?:19|20)\d\d|\d\d(?!\d|,? {0,2}(?:19|20)\d\d))"
_D_MON_Y = (
    r"(?<![\w.,])(?P<d>\d{1,2})(?:st|nd|rd|th|\.|º)?(?: ?de ?)?(?:[./\-]| {0,2})" + _MONTH
    + r"(?: ?de ?)?(?:[./,'\-] ?| {0,2})(?P<y>" + _YEAR + r")(?!\d|[:.]\d)"
)  # fmt: skip
# A two-digit year behind month and day would take the hour in "MAR 24 10:05".
_MON_D_Y = (
    r"(?<!\w)" + _MONTH + r"[ .\-]{1,2}(?P<d>\d{1,2})(?:st|nd|rd|th)?(?:, ?| {1,2}|-)(?P<y>(?:19|20)\d\d)(?!\d|[:.]\d)"
)
_Y_MON_D = r"(?<!\w)(?P<y>(?:19|20)\d\d)[ ./\-]{0,2}" + _MONTH + r"[ ./\-]{0,2}(?P<d>\d{1,2})(?!\d)"
_NAMED: tuple[tuple[DateFormat, re.Pattern[str]], ...] = (
    ("d_mon_y", re.compile(_D_MON_Y, re.IGNORECASE)),
    ("mon_d_y", re.compile(_MON_D_Y, re.IGNORECASE)),
    ("y_mon_d", re.compile(_Y_MON_D, re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class DateMention:
    """A printed date: its (start, end) in the text, and each day that the allowed forms read in it, by form."""

    start: int
    end: int
    readings: tuple[tuple[DateFormat, datetime.date], ...]


def _day(year: str, month: int, day: int) -> datetime.date | None:
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < 70 else 1900
    elif len(year) != 4:
        return None
    if not (1 <= month <= 12 and 1 <= day <= 31 and number >= 1):
        return None
    try:
        return datetime.date(number, month, day)
    except ValueError:
        return None


_NUMERIC_RE = re.compile(_NUMERIC, re.ASCII)
_WITH_NAMES = frozenset({"d_mon_y", "mon_d_y", "y_mon_d"})
# Looked for first: a month's name is rare, and the full patterns are slow to try at every character.
_PREFIXES = tuple(sorted({name[:3] for name in MONTHS}))


def _hints(text: str) -> list[int]:
    """Where a word begins like a month, in order of place."""
    low = text.lower()
    if len(low) != len(text):  # a letter that grows when it is made small
        low = "".join(c if len(c.lower()) > 1 else c.lower() for c in text)
    found = []
    for prefix in _PREFIXES:
        at = low.find(prefix)
        while at >= 0:
            if at == 0 or not low[at - 1].isalpha():
                found.append(at)
            at = low.find(prefix, at + 3)
    return sorted(found)


def _numeric(match: re.Match[str], formats: Collection[str]) -> tuple[tuple[DateFormat, datetime.date], ...]:
    a, b, c = match["a"], match["b"], match["c"]
    found: list[tuple[DateFormat, datetime.date]] = []
    if len(a) == 4:
        if "ymd" in formats and len(c) == 2 and (day := _day(a, int(b), int(c))):
            found.append(("ymd", day))
    elif len(a) <= 2 and len(c) in (2, 4):
        if "dmy" in formats and (day := _day(c, int(b), int(a))):
            found.append(("dmy", day))
        # 10.30.15 is a time: nobody prints month.day.year.
        if "mdy" in formats and "." not in match["sep"] and (day := _day(c, int(a), int(b))):
            found.append(("mdy", day))
    return tuple(found)


_SPACES = {code: " " for code in (0xA0, 0x2007, 0x2009, 0x202F)}  # spaces that keep words on one line


def find_dates(text: str, formats: Collection[DateFormat]) -> list[DateMention]:
    """Every printed date in the text that one of the forms reads, in order of place.

    >>> [m.readings for m in find_dates("DATE: 24-MAR-18 9:05", ["d_mon_y"])]
    [(('d_mon_y', datetime.date(2018, 3, 24)),)]
    """
    if not text.isascii():
        text = text.translate(_SPACES)
    mentions = []
    for match in _NUMERIC_RE.finditer(text):
        readings = _numeric(match, formats)
        if readings:
            mentions.append(DateMention(match.start(), match.end(), readings))
    done = 0
    for hint in _hints(text) if _WITH_NAMES.intersection(formats) else ():
        for form, pattern in _NAMED:
            if form not in formats:
                continue
            named = pattern.search(text, max(done, hint - 8), hint + 26)
            if named is None or not named.start() <= hint < named.end():
                continue
            day = _day(named["y"], MONTHS[named["m"].casefold()], int(named["d"]))
            if day:
                mentions.append(DateMention(named.start(), named.end(), ((form, day),)))
                done = named.end()
                break
    mentions.sort(key=lambda mention: mention.start)
    return mentions


def date(text: str, formats: Collection[DateFormat]) -> datetime.date | None:
    """The one day that a whole printed date means, or None where it is no date or its forms disagree.

    >>> date("03/04/2018", ["dmy"]), date("03/04/2018", ["dmy", "mdy"])
    (datetime.date(2018, 4, 3), None)
    """
    text = text.strip()
    if len(text) > 40:
        return None
    days = {day for m in find_dates(text, formats) if (m.start, m.end) == (0, len(text)) for _, day in m.readings}
    return days.pop() if len(days) == 1 else None


_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def iso(value: object) -> datetime.date | None:
    """The day of a canonical YYYY-MM-DD string; None for anything else, "2018-02-30" among them."""
    if not isinstance(value, str) or not _ISO.fullmatch(value) or not value.isascii():
        return None
    try:
        return datetime.date(int(value[:4]), int(value[5:7]), int(value[8:]))
    except ValueError:
        return None
