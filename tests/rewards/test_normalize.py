"""What the golden tables cannot say: values that are no text, and any text at all."""

from __future__ import annotations

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import normalize
from rewards.document import read

ANY = st.text(st.characters(exclude_categories=[]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12, "12"), (12.5, "12.5"), (-1, "-1"), (True, None), (None, None), (float("nan"), None), (float("inf"), None),
     (["12.50"], None), ({}, None), (b"1", None)],
)  # fmt: skip
def test_amounts_that_are_no_text(value: object, expected: str | None) -> None:
    assert normalize.amount(value) == (None if expected is None else Decimal(expected))


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_any_text_is_compared_without_trouble(text: str) -> None:
    once = normalize.plain(text)
    assert once == " ".join(once.split())
    assert normalize.words(once) == normalize.words(text)
    assert normalize.letters_digits(text) == normalize.letters_digits(f" {text}\u200b\n")
    assert not normalize.invisible(once)


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789.,'-+()RM$€ \u00a0\u2212CRcr", max_size=14))
def test_an_amount_never_has_other_digits_than_its_print(text: str) -> None:
    value = normalize.money(text)
    if value is not None:
        digits = "".join(c for c in text if c.isdigit())
        assert "".join(c for c in str(abs(value)) if c.isdigit()).strip("0") == digits.strip("0")
    for decimal in ".,":
        settled = normalize.money(text, decimal)
        assert value is None or settled is None or settled == value


@settings(max_examples=200, deadline=None)
@given(ANY)
def test_any_page_has_an_index_of_the_same_length(text: str) -> None:
    index = read(text)
    assert len(index.text) == len(text)
    for number in index.numbers:
        assert 0 <= number.start < number.end <= len(text)


@pytest.mark.parametrize("text", ["\U0001fae8 TOTAL", "\u0cf3", "A\U0002ebf0"])
def test_characters_newer_than_the_oldest_python_are_one_and_the_same(text: str) -> None:
    assert "\ufffd" in normalize.plain(text)
    assert "\ufffd" in read(text).text
    assert unicodedata.unidata_version >= "14"
