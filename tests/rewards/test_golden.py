"""The golden tables: what printed numbers and texts are, row by row."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from rewards import normalize
from rewards.document import read

FOLDER = Path(__file__).parent


def _rows(name: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each row; a cell is text with JSON escapes."""
    found = []
    for number, line in enumerate((FOLDER / name).read_text(encoding="utf-8").split("\n"), start=1):
        if line and not line.startswith("#"):
            escaped = (cell.replace('"', '\\"') for cell in line.split("\t"))
            found.append((number, [str(json.loads(f'"{cell}"', strict=False)) for cell in escaped]))
    return found


def _said(how: str, printed: str) -> str:
    if how == "page":
        return "; ".join(str(number.value) for number in read(printed).money)
    if how == "canonical":
        value = normalize.amount(printed)
    else:
        value = normalize.money(printed, how.removeprefix("money") or None)
    return "none" if value is None else str(value)


def _same(said: str, expected: str) -> bool:
    if "none" in (said, expected) or ";" in said + expected or "" in (said, expected):
        return said == expected
    return Decimal(said) == Decimal(expected)


def test_numbers() -> None:
    rows = _rows("golden_numbers.tsv")
    assert len(rows) >= 300
    assert len({(how, printed) for _, (how, printed, _) in rows}) == len(rows)
    wrong = [
        f"line {number}: {how} {printed!r} gave {said}, not {expected}"
        for number, (how, printed, expected) in rows
        if not _same(said := _said(how, printed), expected)
    ]
    assert not wrong, "\n".join(wrong)


def _text(how: str, printed: str) -> str:
    if how == "plain":
        return normalize.plain(printed)
    if how == "words":
        return "|".join(normalize.words(printed))
    if how == "letters":
        return normalize.letters_digits(printed)
    if how == "invisible":
        return "yes" if normalize.invisible(printed) else "no"
    assert how == "same"
    one, other = map(normalize.letters_digits, printed.split("=>"))
    return "yes" if one == other else "no"


def test_texts() -> None:
    rows = _rows("golden_text.tsv")
    assert len(rows) >= 200
    assert len({(how, printed) for _, (how, printed, _) in rows}) == len(rows)
    wrong = [
        f"line {number}: {how} {printed!r} gave {said!r}, not {expected!r}"
        for number, (how, printed, expected) in rows
        if (said := _text(how, printed)) != expected
    ]
    assert not wrong, "\n".join(wrong)


def test_comparing_twice_changes_nothing() -> None:
    for _, (_, printed, _) in _rows("golden_text.tsv"):
        once = normalize.plain(printed)
        assert normalize.plain(once) == once, printed
