from __future__ import annotations

from typing import Any

import pytest

from rewards.fields import FieldCounts, compare
from rewards.task import load_task

TASK = load_task("receipt")
GOLD: dict[str, Any] = {
    "vendor": "KEDAI MAJU SDN. BHD.",
    "date": "2018-03-12",
    "items": [{"name": "MILK 1L", "amount": "13.00"}, {"name": "BREAD", "amount": "3.20"}],
    "tax": None,
    "rounding": None,
    "total": "16.20",
}


def test_gold_against_itself() -> None:
    report = compare(TASK, GOLD, GOLD)
    assert report.document_exact
    assert report.header_exact is True
    assert report.fields["items[].name"] == FieldCounts(2, 0, 0, True)
    assert report.fields["tax"] == FieldCounts(0, 0, 0, True)
    assert "discount" not in report.fields


def test_values_are_compared_in_their_canonical_form() -> None:
    attempt = GOLD | {"vendor": "Kedai Maju Sdn Bhd", "total": "16.2"}
    assert compare(TASK, attempt, GOLD).document_exact


@pytest.mark.parametrize(
    ("change", "field", "counts", "header"),
    [
        ({"total": "16.21"}, "total", FieldCounts(0, 1, 1, False), False),
        ({"total": None}, "total", FieldCounts(0, 0, 1, False), False),
        ({"tax": "0.90"}, "tax", FieldCounts(0, 1, 0, False), True),
        ({"date": "2018-12-03"}, "date", FieldCounts(0, 1, 1, False), False),
        ({"vendor": "KEDAI MAJU"}, "vendor", FieldCounts(0, 1, 1, False), False),
        ({"items": []}, "items[].amount", FieldCounts(0, 0, 2, False), True),
    ],
)
def test_counts(change: dict[str, Any], field: str, counts: FieldCounts, header: bool) -> None:
    report = compare(TASK, GOLD | change, GOLD)
    assert report.fields[field] == counts
    assert report.header_exact is header
    assert not report.document_exact


def test_rows_are_aligned_in_any_order() -> None:
    report = compare(TASK, GOLD | {"items": GOLD["items"][::-1]}, GOLD)
    assert report.document_exact


def test_a_wrong_amount_keeps_the_row_together() -> None:
    rows = [{"name": "BREAD", "amount": "3.30"}, {"name": "MILK 1L", "amount": "13.00"}]
    report = compare(TASK, GOLD | {"items": rows}, GOLD)
    assert report.fields["items[].name"] == FieldCounts(2, 0, 0, True)
    assert report.fields["items[].amount"] == FieldCounts(1, 1, 1, False)


def test_an_added_row_is_a_false_positive() -> None:
    report = compare(TASK, GOLD | {"items": [*GOLD["items"], {"name": "CASH", "amount": "20.00"}]}, GOLD)
    assert report.fields["items[].name"] == FieldCounts(2, 1, 0, False)
    assert not report.document_exact


def test_what_gold_does_not_know_is_left_out() -> None:
    gold = {"vendor": "A B", "date": None, "total": "1.00"}
    report = compare(TASK, GOLD | {"vendor": "AB", "date": None, "total": "1.00"}, gold)
    assert set(report.fields) == {"vendor", "date", "total"}
    assert report.document_exact
    assert report.header_exact is None  # gold has no date


def test_nothing_extracted() -> None:
    report = compare(TASK, None, GOLD)
    assert not report.document_exact
    assert report.header_exact is False
    assert report.fields["items[].name"] == FieldCounts(0, 0, 2, False)
    assert not report.fields["tax"].exact


def test_hostile_shapes_do_not_raise() -> None:
    attempt: dict[str, Any] = {"vendor": ["x"], "items": [None, 3, {"name": 5}], "total": {"a": 1}, "date": True}
    assert not compare(TASK, attempt, GOLD).document_exact
    assert not compare(TASK, attempt | {"items": "x"}, GOLD).document_exact
