"""Names near the top of a document (a vendor): which lines can be one, and how like a given name is to them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rapidfuzz import fuzz, process

from rewards import normalize
from rewards.dates import DATE_FORMATS
from rewards.document import DocumentIndex, Line
from rewards.plan import FieldPlan
from rewards.support import ELSEWHERE, NOT_PRINTED, Evidence, Support, put

MAX_NAME = 200  # characters of a line that can be a name
BRAND = 0.6  # of a name that joins the line of a brand and the line of its company
NUMBERED = 0.9  # of a name with the registration number that follows it
TOP = 2  # lines that may be a name, from the top, that are believed

_SEGMENTS = re.compile(r"\s{2,}|\s*[|\t]\s*")
# What may follow a name on its line: a registration number, with or without its label and brackets.
_REGISTRATION = re.compile(
    r"\s*(?:\(\s*)?(?:\b(?:co|c0|company|r+e+g+|re|rg|registration|roc|r0c|rc|brn|ssm|gst|id|n+[o0]|m[o0]|nr|uen|abn|fka)\b[\s.:/(]*){0,6}[A-Z]{0,3}\d{4,}.*",
    re.IGNORECASE,
)
_REGISTERED = re.compile(rf"(?=\s){_REGISTRATION.pattern}\Z", re.IGNORECASE)  # where it begins
_DIGIT = re.compile(r"\d")
_BRACKETS = re.compile(r"\([^()]*\)")
_POSTCODE = re.compile(r"\b\d{5,6}\b")
_DIGITS = re.compile(r"\d\D?\d\D?\d")
_FOUR_DIGITS = re.compile(r"\d{4}")
_LABEL = re.compile(r"^(?:[^:]{2,20}:\s*|#?\d{4,}\s+)")


_GOES_ON = frozenset(("co", "and", "dan", "und"))
_AND = frozenset(("and", "dan", "und", "et", "e", "of", "the"))


class _Name(NamedTuple):
    """One reading of a line as a name: its letters and digits, whether it has a company form, whether it may be one,
    how many digits it has, and whether it is words more than digits."""

    key: str
    formed: bool
    soft: bool
    digits: int
    wordy: bool


def _variants(row: str) -> list[tuple[str, bool]]:
    """The row as a name, and whether a label was cut off: whole, in its columns, without a label or a code before it or
    a registration number behind it."""
    found = [(row, False)]
    columns = [part for part in _SEGMENTS.split(row) if part] if "  " in row or "|" in row or "\t" in row else [row]
    found += [(part, False) for part in columns] if len(columns) > 1 else []
    found += [(stripped, True) for part, _ in list(found) if (stripped := _LABEL.sub("", part)) != part]
    for part, labelled in list(found):
        if _DIGITS.search(part) is None:
            continue
        at = part.find("(")
        while at > 0:  # "(M)" is part of a name, "(139386 X)" is not
            if len(_DIGIT.findall(part[at:].partition(")")[0])) >= 3:
                found.append((part[:at], labelled))
                break
            at = part.find("(", at + 1)
        if _FOUR_DIGITS.search(part) is not None and (match := _REGISTERED.search(part)):
            found.append((part[: match.start()], labelled))
    return found


def _readings(field: FieldPlan, row: str, line: Line) -> list[_Name]:
    found = []
    soft_row = field.avoid is not None and field.avoid.in_spaced(line.spaced)
    whole = line.end - line.start <= MAX_NAME
    for text, labelled in _variants(row):
        as_printed = whole and text == row
        spaced = line.spaced if as_printed else f" {' '.join(normalize.words(text))} "
        formed = field.prefer is not None and field.prefer.in_spaced(spaced)
        soft = soft_row if labelled or as_printed else field.avoid is not None and field.avoid.in_spaced(spaced)
        comma = "," in text and _DIGIT.search(text) is not None
        soft |= comma or text.rstrip()[-1:] == "," or _POSTCODE.search(text) is not None
        # An address has a form by accident: KG. DUSUN NANDING, 43100 HULU LANGAT.
        key = spaced.replace(" ", "")
        digits = len(_DIGIT.findall(key))
        letters = len(key) - digits
        found.append(_Name(key, formed and not comma, soft, digits, letters >= 2 and letters > digits))
    return found


def top_text(field: FieldPlan, index: DocumentIndex) -> Evidence:
    spec = field.spec
    rows = index.lines[: spec.top]
    names = [_readings(field, index.text[line.start : line.end][:MAX_NAME].strip(), line) for line in rows]
    blocked = [False] * len(rows)
    for i, line in enumerate(rows):
        if field.other is not None and field.other.starts(line.spaced):
            blocked[i] = True
            # A label of its own (BILL TO:) speaks for the next line; CUSTOMER COPY does not.
            if field.other.fills(line.spaced) and i + 1 < len(rows):
                blocked[i + 1] = True
    # FROM: on the line before.
    cued = [i > 0 and field.cue is not None and field.cue.fills(rows[i - 1].spaced) for i in range(len(rows))]
    dated = {index.line_at(m.start) for m in index.dates(DATE_FORMATS)}
    formed = [any(n.formed for n in row) and not block for row, block in zip(names, blocked, strict=True)]
    out = dated | {i for i, block in enumerate(blocked) if block}
    texts = [index.text[line.start : line.end].strip() for line in rows]
    numbered = {i for i, text in enumerate(texts) if _REGISTRATION.fullmatch(f" {text[:MAX_NAME]}")}
    good = [i not in out and any(n.wordy and not n.soft for n in row) for i, row in enumerate(names)]
    # A company form on a line without "owned by" and the like settles where the name is.
    settled = any(any(n.formed and not n.soft for n in names[i]) and not blocked[i] for i in range(len(rows)))
    whole_line = [formed[i] and _complete(texts[i], line, field) for i, line in enumerate(rows)]
    # What may stand in a name over lines.
    passes = [i not in numbered and (good[i] or (i not in out and _short(row[0]))) for i, row in enumerate(names)]
    rank = 0
    values: dict[Any, Support] = {}
    for i, line in enumerate(rows):
        if blocked[i] or not line.words:
            continue
        begun = i > 0 and good[i - 1]
        fragment = begun and _goes_on(texts[i], line, field)
        span = (line.start, line.end)
        for name in names[i]:
            if fragment and formed[i]:
                support = Support(0.3, span, "the end of a name that starts on the line before")
            elif name.formed:
                support = Support(1.0, span, "the company's name near the top")
            elif cued[i] and not name.soft:
                support = Support(1.0, span, "the name behind its label")
            elif formed[i]:
                support = Support(0.3, span, "a part of the name")
            elif name.soft or i in dated or not name.wordy:
                support = Support(ELSEWHERE, span, "printed, but in an address, a label or a number")
            elif settled:
                support = Support(0.3, span, "printed near the top, but another line names the company")
            elif rank < TOP:
                support = Support(1.0, span, "a name near the top")
            else:
                support = Support(0.3, span, "printed, but not near the top")
            put(values, name.key, support)
        rank += good[i]
        # A name over two to four lines.
        joined = names[i][0].key
        # One word (RESTORAN, SYARIKAT) or an open end (AND) begins a name; two words are one.
        brand = sum(len(word) > 1 for word in line.words) >= 2 and line.words[-1] not in _AND
        brand = brand and texts[i][-1] not in "&-,"
        early, between = False, passes[i]
        for j in range(i + 1, min(i + 4, len(rows))):
            if blocked[j] or not rows[j].words:
                break
            early, between = early or formed[j - 1], between and passes[j]
            for name in names[j]:
                whole = (name.formed or early) if settled else rank <= TOP
                fit = 1.0 if (whole or cued[i]) and between else ELSEWHERE
                if whole_line[j] and brand:  # above the name of its company: one of them is the name, not both
                    fit = min(fit, BRAND)
                # After a company form only a town (LTD / BRISTOL) or a branch (INC / #32) can still be the name.
                town = j == i + 1 and len(rows[j].words) == 1 and (name.key.isalpha() or _short(name))
                if early and j in numbered:
                    town, fit = True, NUMBERED
                if early and not name.formed and not town:
                    fit = min(fit, 0.3)
                put(values, joined + name.key, Support(fit, (line.start, rows[j].end), "a name over lines"))
            joined += names[j][0].key
    values.pop("", None)
    return Evidence(values, True)


def _short(name: _Name) -> bool:
    """Whether a line can only be a piece of a name over lines: 101 / EM STATION, 888 U.C / GARDEN, BAKERY / #552."""
    return 0 < len(name.key) <= 8 and not name.soft and name.digits <= 4


def _goes_on(text: str, line: Line, field: FieldPlan) -> bool:
    """Whether a line can only be the end of a name: SDN BHD, CO. (M) LTD, (SEMENYIH) SDN BHD, & SONS LTD, ALAM) BHD."""
    if line.words[0] in _GOES_ON or text[0] in "(&" or text.count(")") > text.count("("):
        return True
    return field.prefer is not None and field.prefer.starts(line.spaced)


def _complete(text: str, line: Line, field: FieldPlan) -> bool:
    """Whether a line with a company form is a name by itself: two words or more before the form (OGN GROUP SDN BHD)."""
    if not line.words or _goes_on(text, line, field) or field.prefer is None:
        return False
    spaced = f" {' '.join(normalize.words(_BRACKETS.sub(' ', text)))} " if "(" in text else line.spaced
    first = field.prefer.before(spaced).split()
    return sum(len(word) > 1 and _DIGIT.search(word) is None for word in first) >= 2


def near(key: str, evidence: Evidence, whole: str) -> Support:
    """A text that is not printed as such: partial points for likeness to the best supported values."""
    best = [k for k, support in evidence.values.items() if support.points >= 0.9]
    found = process.extractOne(key, best, scorer=fuzz.ratio) if best else None
    likeness = found[1] / 100 if found else 0.0
    points = 0.6 * max(0.0, (likeness - 0.5) / 0.5)
    if found and points > ELSEWHERE:
        return Support(points, evidence.values[found[0]].span, "like the printed name, but not the same")
    if len(key) > 2 and key in whole:
        return Support(ELSEWHERE, None, "printed, but not where a name stands")
    return Support(points, None, NOT_PRINTED.why)
