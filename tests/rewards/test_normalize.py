from __future__ import annotations

from decimal import Decimal

import pytest

from rewards import normalize

MONEY: dict[str, str | None] = {
    # plain
    "12.50": "12.50", "0.00": "0.00", "7": "7", "1000": "1000", ".50": "0.50", "0.5": "0.5", "12.5": "12.5",
    "00.10": "0.10",
    # decimal comma
    "12,50": "12.50", "0,99": "0.99", ",50": "0.50",
    # groups of thousands, both ways round, Indian, Swiss, with spaces
    "1,234.50": "1234.50", "1.234,50": "1234.50", "1,234,567.89": "1234567.89", "1.234.567,89": "1234567.89",
    "12,34,567.00": "1234567.00", "1'234.50": "1234.50", "1 234,50": "1234.50", "1,234,567": "1234567",
    "1.234.567": "1234567",
    "1\u00a0234,50": "1234.50", "1\u202f234,50": "1234.50", "1’234.50": "1234.50",
    # one separator and three digits: a thousand or a thousandth, so nothing
    "1,234": None, "1.234": None, "999,999": None, "RM 1,234": None, "12.345": None,
    # a leading zero makes no group
    "0,234": "0.234", "0.234": "0.234",
    # signs: before, behind, brackets, typographic, with marks
    "-12.50": "-12.50", "12.50-": "-12.50", "(12.50)": "-12.50", "−12.50": "-12.50", "–12.50": "-12.50",
    "+12.50": "12.50",
    "- 12.50": "-12.50", "-RM12.50": "-12.50", "RM-12.50": "-12.50", "RM -12.50": "-12.50", "(RM12.50)": "-12.50",
    "RM (12.50)": None, "12.50 CR": "-12.50", "-0.00": "0.00", "(0.02)": "-0.02", ".02-": "-0.02",
    "--12.50": None, "-12.50-": None, "(-12.50)": None, "(12.50": None, "12.50)": None,
    # currency marks
    "RM12.50": "12.50", "RM 12.50": "12.50", "rm12.50": "12.50", "$12.50": "12.50", "S$12.50": "12.50",
    "US$ 12.50": "12.50",
    "€12,50": "12.50", "12,50 €": "12.50", "12,50€": "12.50", "£12.50": "12.50", "¥1200": "1200", "1200 JPY": "1200",
    "EUR 12,50": "12.50", "12,50 EUR": "12.50", "CHF 1'234.50": "1234.50", "RS.1,540.87": "1540.87", "RS. 500": "500",
    "₹ 1,23,456.00": "123456.00", "R$ 1.234,50": "1234.50", "12.50 RM": "12.50", "kr 99,00": "99.00",
    "Rp 1.500.000": "1500000",
    # "only" dashes for cents are a form of their own
    "12,-": "12", "12,--": "12", "5.-": "5",
    # not one amount
    "": None, " ": None, "-": None, "RM": None, "abc": None, "12.50.30": None, "1,2,3": None, "12,3456.00": None,
    "1,23": "1.23",
    "12.50 13.00": None, "12/50": None, "12:50": None, "1_000.5": None, "١٢٣": None, "１２.５０": "12.50", "1e5": None,
    "0x10": None,
    "NaN": None, "inf": None, "12.50%": None, "12.50x": None, "A12.50": None, "1..5": None, "1,,5": None,
    "12. 50": None,
    "1,234.5.6": None, "1.234,567": "1234.567", "1,234.567": "1234.567", "12 34.50": None, "1 2": None,
    "9" * 80: None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), MONEY.items())
def test_money(text: str, value: str | None) -> None:
    assert normalize.money(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1,234", ".", "1234"), ("1,234", ",", "1.234"), ("1.234", ".", "1.234"), ("1.234", ",", "1234"),
        ("12.50", ".", "12.50"), ("12,50", ",", "12.50"), ("12,50", ".", None), ("1,234,567", ".", "1234567"),
        ("1.234.567", ",", "1234567"), ("1.234,50", ".", None), ("1,234.50", ".", "1234.50"), ("100", ",", "100"),
    ],
)  # fmt: skip
def test_money_with_a_known_decimal_mark(text: str, decimal: str, value: str | None) -> None:
    assert normalize.money(text, decimal) == (None if value is None else Decimal(value))


CANONICAL: dict[object, str | None] = {
    "12.50": "12.50", "-0.02": "-0.02", "1234567.89": "1234567.89", "7": "7", "1.2345": "1.2345",
    "1,234.50": None, "RM12.50": None, " 12.50": None, "12.50 ": None, "+12.50": None, "12.": None, ".5": None,
    "": None,
    "1e3": None, "NaN": None, "Infinity": None, "1_0": None, "١٢": None, "12.50\n": None, "9" * 16: None,
    12: "12", 12.5: "12.5", True: None, None: None, float("nan"): None, float("inf"): None,
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), CANONICAL.items())
def test_canonical_amounts(value: object, expected: str | None) -> None:
    assert normalize.amount(value) == (None if expected is None else Decimal(expected))


def test_lists_are_no_amounts() -> None:
    assert normalize.amount(["12.50"]) is None


TEXT = {
    "ABC": "abc", "  A  b\tC \n": "a b c", "Ａｂｃ": "abc", "STRASSE": "strasse", "Straße": "strasse",
    "ﬁne": "fine", "CAFÉ": "café", "CAFE\u0301": "café",
    "A\u200bB": "ab", "A\u00adB": "ab", "\u202eABC": "abc", "A\ufeffB": "ab", "A\u2060B": "ab",
    "Соffее": "coffee", "АВС": "abc", "ΑΒΕ": "abe", "рауmеnt": "payment",
    "KING’S": "king's", "“A”": '"a"', "A–B": "a-b", "A−B": "a-b", "2×3": "2x3", "A\u00a0B": "a b", "№": "no",
    "½": "1⁄2",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TEXT.items())
def test_plain(text: str, value: str) -> None:
    assert normalize.plain(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("King's Confectionery S/B", "kingsconfectionerysb"), ("99 SPEED MART S/B (519537-X)",
        "99speedmartsb519537x"),
        ("MR. D.I.Y. (M) SDN BHD", "mrdiymsdnbhd"), ("--- ", ""), ("B & BEST", "bbest"), ("CO_OP", "coop"),
    ],
)  # fmt: skip
def test_letters_and_digits(text: str, value: str) -> None:
    assert normalize.letters_digits(text) == value


def test_invisible() -> None:
    assert normalize.invisible("A\u200bB")
    assert normalize.invisible("\u202eX")
    assert not normalize.invisible("Café – naïve €")
