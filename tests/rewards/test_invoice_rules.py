"""The total rules of EN 16931 on an invoice that prints them all: each catches its own kind of mistake."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from rewards.document import Document
from rewards.rubric import Rubric
from rewards.task import load_task

TEXT = """Kranich Werkzeuge GmbH
Hafenstr. 12
20457 Hamburg
INVOICE NO: R-2044
DATE: 2024-03-05
CURRENCY: EUR
DESCRIPTION  QTY  PRICE  AMOUNT
Steel hinge 90 mm  40  2.50  100.00
Oak panel  3  60.00  180.00
SUBTOTAL  280.00
DISCOUNT  30.00
SHIPPING  10.00
TOTAL BEFORE TAX  260.00
VAT 19 % on 160.00  30.40
VAT 7 % on 100.00  7.00
TAX  37.40
TOTAL  297.40
PREPAID  100.00
ROUNDING  0.10
AMOUNT DUE  197.50
"""
GOLD: dict[str, Any] = {
    "vendor": "Kranich Werkzeuge GmbH", "invoice_number": "R-2044", "date": "2024-03-05", "currency": "EUR",
    "items": [
        {"name": "Steel hinge 90 mm", "quantity": "40", "unit_price": "2.50", "amount": "100.00"},
        {"name": "Oak panel", "quantity": "3", "unit_price": "60.00", "amount": "180.00"},
    ],
    "subtotal": "280.00", "discount": "30.00", "shipping": "10.00", "net_total": "260.00",
    "taxes": [{"rate": "19", "base": "160.00", "amount": "30.40"}, {"rate": "7", "base": "100.00", "amount": "7.00"}],
    "tax": "37.40", "total": "297.40", "prepaid": "100.00", "rounding": "0.10", "amount_due": "197.50",
}  # fmt: skip
TASK = load_task("invoice")


def _relations(attempt: dict[str, Any]) -> dict[str, float | None]:
    score = Rubric(TASK).score(Document("i1", TEXT, "Kranich", None), json.dumps(attempt))
    assert score.gate is None and score.status == "scored", score
    found = {f.path: f.points for f in score.findings if f.path.startswith("relations.")}
    return {path.removeprefix("relations."): points for path, points in found.items()}


def test_every_rule_closes_on_the_right_reading() -> None:
    names = ("amount", "subtotal", "net_total", "tax", "total", "amount_due", "category")
    assert _relations(GOLD) == {name: 1.0 for name in names}


@pytest.mark.parametrize(
    ("path", "value", "broken"),
    [
        ("subtotal", "260.00", {"subtotal", "net_total"}),  # BR-CO-10, BR-CO-13
        ("net_total", "297.40", {"net_total"}),  # BR-CO-13
        ("taxes/1/amount", "10.00", {"tax", "category"}),  # BR-CO-14, BR-CO-17
        ("tax", "30.40", {"tax", "total"}),  # BR-CO-14, BR-CO-15
        ("amount_due", "297.40", {"amount_due"}),  # BR-CO-16
        ("taxes/0/rate", "7", {"category"}),  # BR-CO-17
        ("prepaid", "10.00", {"amount_due"}),
    ],
)
def test_each_rule_catches_its_mistake(path: str, value: str, broken: set[str]) -> None:
    attempt = copy.deepcopy(GOLD)
    at: Any = attempt
    *above, last = path.split("/")
    for key in above:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    found = _relations(attempt)
    assert {name for name, points in found.items() if points is not None and points < 1.0} >= broken, found


def test_what_is_not_given_does_not_apply() -> None:
    bare = {key: value for key, value in GOLD.items() if key not in ("net_total", "taxes", "prepaid", "amount_due")}
    found = _relations(bare)
    assert [found[name] for name in ("net_total", "tax", "amount_due", "category")] == [None] * 4
    assert found["total"] == 1.0


def test_a_number_that_is_printed_once_proves_nothing_twice() -> None:
    """Copying the total into another field closes a relation, and earns hardly anything for it."""
    text = TEXT.replace("TOTAL BEFORE TAX  260.00\n", "").replace("DISCOUNT  30.00\nSHIPPING  10.00\n", "")
    text = text[: text.index("VAT 19")] + "TOTAL  280.00\n"
    text = text.replace("SUBTOTAL  280.00\n", "")
    gold = {key: GOLD[key] for key in ("vendor", "invoice_number", "date", "currency", "items")}
    copied = gold | {"subtotal": "280.00", "tax": None, "total": "280.00"}
    score = Rubric(TASK).score(Document("i2", text, "Kranich", None), json.dumps(copied))
    found = {f.path: f.points for f in score.findings}
    assert found["relations.total"] is not None and found["relations.total"] <= 0.2
