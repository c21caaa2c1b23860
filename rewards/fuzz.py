"""Completions that a policy might write: right, partly wrong, malformed, garbage. Seeded; for benches and tests.

Everything here is a pure function of its `rng`, and the same on every Python version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")


def compact(value: Any) -> str:
    """JSON as the task's own completions are written."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key) of every leaf."""
    for key, below in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(below, (dict, list)):
            _places(below, found)
        else:
            found.append((value, key))
    return found


def _other_text(text: str, source: str, rng: Random) -> str:
    """A leaf of the same kind with another value: a near miss, another printed one, a part, a misread letter."""
    if match := _DATE.fullmatch(text):
        year, month, day = match.groups()
        return rng.choice([f"{year}-{day}-{month}", f"{year}-{month}-{rng.randrange(1, 29):02}", f"20{day}-{month}-11"])
    if _NUMBER.fullmatch(text):
        printed = _NUMBER.findall(source)
        at = rng.randrange(len(text))
        near = text[:at] + (str(rng.randrange(10)) if text[at].isdigit() else text[at]) + text[at + 1 :]
        return rng.choice([near, near, rng.choice(printed) if printed else near])
    words = text.split()
    at = rng.randrange(max(1, len(text)))
    lines = source.split("\n")
    return rng.choice(
        [
            " ".join(words[:-1]) or text[:1],
            text[:at] + rng.choice("ABCIO018") + text[at + 1 :],
            text.title(),
            rng.choice(lines).strip()[:100] or text,
        ]
    )


def edit(value: dict[str, Any], source: str, rng: Random) -> None:
    """Changes one thing in an answer, in place, mostly within its schema: a leaf, or the rows of an array."""
    arrays = [below for below in value.values() if isinstance(below, list) and below]
    if arrays and rng.random() < 0.4:
        rows = rng.choice(arrays)
        kind = rng.randrange(4)
        if kind == 0 and len(rows) > 1:
            del rows[rng.randrange(len(rows))]
        elif kind == 1:
            rows.append(dict(rng.choice(rows)) if isinstance(rows[0], dict) else rows[0])
        elif kind == 2 and len(rows) > 1 and isinstance(rows[0], dict):
            one, other = rng.sample(range(len(rows)), 2)
            key = rng.choice(sorted(rows[one].keys() & rows[other].keys()))
            rows[one][key], rows[other][key] = rows[other][key], rows[one][key]
        else:
            rng.shuffle(rows)
        return
    leaves = _places(value, [])
    if not leaves:
        return
    container, key = rng.choice(leaves)
    old = container[key]
    if old is None:
        container[key] = rng.choice(_NUMBER.findall(source) or ["1.00"])
    elif isinstance(old, str):
        container[key] = None if rng.random() < 0.15 else _other_text(old, source, rng)
    else:
        container[key] = rng.choice([None, 0, 1, old, str(old)])


def partly_wrong(gold: str, source: str, rng: Random, edits: int) -> str:
    """The answer `gold` (JSON) with some edits."""
    value = json.loads(gold)
    for _ in range(edits):
        edit(value, source, rng)
    return compact(value)


def misshapen(gold: str, source: str, rng: Random) -> str:
    """JSON that does not keep the schema: a key lost, added or renamed, a value of another type."""
    value: dict[str, Any] = json.loads(gold)
    key = rng.choice(sorted(value))
    kind = rng.randrange(5)
    if kind == 0:
        del value[key]
    elif kind == 1:
        value[rng.choice(["note", "currency", "", "Total", "итог", key + " "])] = rng.choice([None, 1, "x", []])
    elif kind == 2:
        value[key + "s"] = value.pop(key)
    elif kind == 3:
        value[key] = rng.choice([True, 0, -1.5, [], {}, [[]], {key: None}, "", source[:50], [value[key]], 10**12])
    else:
        return compact([value]) if rng.random() < 0.5 else compact({"answer": value})
    return compact(value)


_PIECES = (
    '"', "{", "}", "[", "]", ",", ":", "\\", "\\u", "\\ud800", "\\u0000", "null", "true", "NaN", "Infinity", "-",
    "1e999", "9" * 40, "0.1", "-0", "01", "1_000", "```json\n", "```", "<think>", "</think>", "\n", "\t", "\r\n",
    "\x00", "\x7f", "\ufeff", "\u200b", "\u202e", "\u2028", "\u0085", "\u00a0", "\ud83d", "\udc80", "\U0001f9fe",
    "١٢", "１２", "−", "а", "İ", "ß", "ﬁ", "𝟏", "½", "'", "//", "/*", "#", "$ref", "__proto__", "Here is the JSON:",
    "Note: ",
)  # fmt: skip


def _character(rng: Random) -> str:
    """Any code point, surrogates and unassigned ones too; half of them ASCII."""
    return chr(rng.randrange(128) if rng.random() < 0.5 else rng.randrange(rng.choice([0x100, 0x3000, 0x110000])))


def malformed(gold: str, source: str, rng: Random) -> str:
    """A mutant of `gold` by characters and tokens: cut, doubled, spliced, with pieces and characters put in."""
    text = gold
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(text) + 1)
        to = min(len(text), at + rng.choice([0, 1, 1, 2, 5, 20]))
        kind = rng.randrange(9)
        if kind == 0:
            text = text[:at]
        elif kind == 1:
            text = text[:at] + text[to:]
        elif kind == 2:
            text = text[:at] + rng.choice(_PIECES) + text[to:]
        elif kind == 3:
            text = text[:at] + _character(rng) + text[to:]
        elif kind == 4:
            text = text[:to] + text[at:to] * rng.choice([1, 3, 30]) + text[to:]
        elif kind == 5:
            start = rng.randrange(len(source) + 1)
            text = text[:at] + source[start : start + rng.choice([1, 10, 80])] + text[to:]
        elif kind == 6:
            text = rng.choice(_PIECES) + text
        elif kind == 7:
            text = text + rng.choice(_PIECES)
        else:
            text = text[at:]
    return text


def garbage(gold: str, source: str, rng: Random) -> str:
    """Text that is no answer: random characters, random JSON pieces, bytes read as UTF-8, the document, a long loop."""
    kind = rng.randrange(6)
    if kind == 0:
        return "".join(_character(rng) for _ in range(rng.randrange(60)))
    if kind == 1:
        return "{" + "".join(rng.choice(_PIECES) for _ in range(rng.randrange(40)))
    if kind == 2:
        raw = bytearray(gold.encode("utf-8", "surrogatepass"))
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        return raw.decode("utf-8", rng.choice(["replace", "ignore", "surrogateescape"]))
    if kind == 3:
        start = rng.randrange(len(source) + 1)
        return source[start : start + 300]
    if kind == 4:
        at = rng.randrange(len(gold) + 1)
        return gold[:at] + gold[at : at + rng.choice([1, 4, 20])] * rng.choice([10, 60])
    return rng.choice(["", " ", "{}", "[]", "null", "{", '{"', "0", '""', "{}{}", "{ }", "I cannot read this receipt."])


Kind = Callable[[str, str, Random], str]


def _one_edit(gold: str, source: str, rng: Random) -> str:
    return partly_wrong(gold, source, rng, 1)


def _some_edits(gold: str, source: str, rng: Random) -> str:
    return partly_wrong(gold, source, rng, rng.choice([2, 2, 3, 4]))


# A group of eight as a policy in training writes it: one right, five partly wrong, one misshapen, one broken.
POLICY: Sequence[Kind] = (
    lambda gold, source, rng: gold,
    _one_edit, _one_edit, _one_edit, _some_edits, _some_edits, misshapen,
    lambda gold, source, rng: (malformed if rng.random() < 0.5 else garbage)(gold, source, rng),
)  # fmt: skip
# A group of eight that is out to break something.
HOSTILE: Sequence[Kind] = (malformed, malformed, malformed, garbage, garbage, misshapen, _some_edits, malformed)


def group(kinds: Sequence[Kind], gold: str, source: str, rng: Random) -> list[str]:
    """One completion of each kind, all distinct (a kind that only repeats what is there is given up after 20 draws)."""
    found: dict[str, None] = {}
    for kind in kinds:
        for _ in range(20):
            text = kind(gold, source, rng)
            if text not in found:
                break
        found[text] = None
    return list(found)
