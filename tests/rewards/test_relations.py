"""The relation language: what it reads, what it refuses and where, and that it is exact."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.errors import ConfigError
from rewards.relations import RelationFault, applies, evaluate, parse_relation
from rewards.task import TASK_FOLDER, task_from_dict

BILL: dict[str, Any] = {
    "rows": [{"n": "3", "price": "1.10", "amount": "3.30"}, {"n": "2", "price": "0.45", "amount": "0.90"}],
    "net": "4.20", "rate": "19", "tax": "0.80", "paid": None, "total": "5.00", "nested": {"fee": "0.10"},
}  # fmt: skip


def _left(text: str, value: dict[str, Any] = BILL, row: dict[str, Any] | None = None) -> Decimal | None:
    return evaluate(parse_relation(f"{text} == total").left, value, row)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("sum(rows[].amount)", "4.20"), ("sum(rows[].n * rows[].price)", "4.20"), ("net - tax * 2 + 1", "3.60"),
        ("net - (tax + 1) * 2", "0.60"), ("net * rate / 100", "0.798"), ("round(net * rate / 100)", "0.80"),
        ("round(net * rate / 100, 1)", "0.8"), ("round(0.005)", "0.01"), ("net - nested.fee", "4.10"),
        ("net + paid?", "4.20"), ("net + paid", None), ("net / paid?", None), ("sum(gone[].amount)", None),
        ("10 - 3 - 2", "5"), ("8 / 4 / 2", "1"),
    ],
)  # fmt: skip
def test_expressions(text: str, result: str | None) -> None:
    found = _left(text)
    assert found == (None if result is None else Decimal(result))


@settings(deadline=None)
@given(st.lists(st.integers(-(10**14), 10**14), min_size=1, max_size=30))
def test_sums_are_exact(cents: list[int]) -> None:
    value = {"rows": [{"a": f"{c // 100}.{c % 100:02d}" if c >= 0 else f"-{-c // 100}.{-c % 100:02d}"} for c in cents]}
    assert _left("sum(rows[].a)", value) == Decimal(sum(cents)) / 100


@settings(deadline=None)
@given(st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))
def test_products_are_exact(a: int, b: int) -> None:
    assert _left("a * b", {"a": a, "b": b}) == a * b


def test_a_missing_row_value_makes_the_sum_unknown() -> None:
    assert _left("sum(rows[].a)", {"rows": [{"a": "1.00"}, {"a": None}]}) is None
    assert _left("sum(rows[].a?)", {"rows": [{"a": "1.00"}, {"a": None}]}) == Decimal(1)


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("paid", {"paid": "1.00"}, True), ("paid", {"paid": "0.00"}, False), ("paid", {}, False),
        ("not paid", {"paid": None}, True), ("paid and not tax", {"paid": 1, "tax": 2}, False),
        ("paid or tax", {"tax": 2}, True), ("rows", {"rows": []}, False), ("rows", {"rows": [{}]}, True),
    ],
)  # fmt: skip
def test_conditions(condition: str, value: dict[str, Any], holds: bool) -> None:
    assert applies(parse_relation(f"net == total if {condition}"), value) is holds


def test_kinds_of_relation() -> None:
    assert parse_relation("same(votes[].for + votes[].against?)").kind == "same"
    assert parse_relation("same(votes[].for)").rows == "votes"
    assert parse_relation("rows[].n * rows[].price == rows[].amount if rows[].n").rows == "rows"
    assert parse_relation("sum(rows[].amount) == net").rows is None
    assert parse_relation("a == b if c").paths == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a = b", 2, "equality is =="), ("same(a)", 0, "same() takes fields of one array"),
        ("same(x[].a + y[].b)", 0, "one array"), ("a + same(x[].b) == c", 4, "stands alone"),
        ("same(x[].a) == b", 12, "expected the end"), ("sum(sum(x[].a)) == b", 4, "sum() inside sum()"),
        ("sum(x[].a + y[].b) == c", 4, "one array"), ("round(a, 9) == b", 9, "places"), ("x[] == a", 0, "which field"),
        ("a == b if", 9, "expected a field"), ("a == b if c?", 10, "no ?"), ("a == b if c d", 12, "expected the end"),
        ("(" * 40 + "a", 12, "deeper"), ("a == " + "b + " * 300, 500, "longer"),
        ("x[].a == b if y[].c", 14, "condition's rows"),
    ],
)  # fmt: skip
def test_faults_have_a_position(text: str, position: int, reason: str) -> None:
    with pytest.raises(RelationFault) as fault:
        parse_relation(text)
    assert (fault.value.position, reason in fault.value.reason) == (position, True), fault.value.reason


@settings(deadline=None)
@given(st.text(alphabet="ab[]().+-*/=? ,0sumeroundif", max_size=60))
def test_no_text_does_anything_but_parse_or_fault(text: str) -> None:
    try:
        relation = parse_relation(text)
    except RelationFault as fault:
        assert 0 <= fault.position <= len(text)
    else:
        evaluate(relation.left, {"a": "1.00"}, {"b": "2.00"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum(items[].amount) + taxx? == total", "no field 'taxx' at character 23 of 'sum(items[].amount) + taxx?"),
        ("sum(items[].amount) == total if txa", "no field 'txa' at character 33 of"),
        ("sum(items[].name) == total", "'items[].name' is text at character 5 of"),
    ],
)
def test_a_task_with_a_wrong_relation_does_not_load(text: str, message: str) -> None:
    raw = copy.deepcopy(yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text()))
    raw["relations"]["total"] = [text]
    with pytest.raises(ConfigError) as fault:
        task_from_dict(raw, "mine.yaml")
    assert str(fault.value).startswith(f"mine.yaml: relations.total[0]: {message}"), str(fault.value)
