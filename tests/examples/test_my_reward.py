"""Tests of a task file, to copy beside your own: change the task, the document and the answers.

Any pytest runs it where Offramp is installed; the fixtures come from its plugin (rewards/testing.py).
"""

import pytest

from rewards.document import Document
from rewards.properties import check_rubric
from rewards.strategies import wrong_answers

RECEIPT = """KEDAI RUNCIT MAJU SDN BHD
12, JALAN MAWAR, 43000 KAJANG
DATE: 12/03/2018  14:22
MILK FULL CREAM 1L   13.00
BREAD WHOLEMEAL       3.20
TOTAL                16.20
CASH                 20.00
CHANGE                3.80"""

RIGHT = {
    "vendor": "KEDAI RUNCIT MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK FULL CREAM 1L", "amount": "13.00"}, {"name": "BREAD WHOLEMEAL", "amount": "3.20"}],
    "tax": None,
    "rounding": None,
    "total": "16.20",
}

pytestmark = pytest.mark.offramp(task="receipt", text=RECEIPT)


def test_the_right_answer_scores_the_maximum(assert_reward):
    assert_reward(RIGHT, at_least=1.0, fields={"total": 1.0, "items[].amount": 1.0}, reason="reconciles")


def test_the_cash_is_not_the_total(assert_reward):
    assert_reward(RIGHT | {"total": "20.00"}, at_most=0.8, fields={"total": (0.0, 0.2)}, reason="reconciles")


def test_one_row_that_carries_the_total_does_not_pass(assert_reward):
    one = [{"name": "MILK FULL CREAM 1L", "amount": "16.20"}]
    assert_reward(RIGHT | {"items": one}, at_most=0.6, reason="covers")


def test_null_is_worth_less_than_a_right_value_and_more_than_a_wrong_one(assert_reward):
    null = assert_reward(RIGHT | {"date": None}, fields={"date": 0.25})
    wrong = assert_reward(RIGHT | {"date": "2019-09-09"}, fields={"date": 0.0})
    assert wrong.total < null.total < 1.0


@pytest.mark.parametrize("completion", ["", "{}", "Sure! Here is the JSON:", '{"total": "16.20"', RECEIPT])
def test_form_alone_earns_next_to_nothing(completion, assert_reward):
    assert_reward(completion, at_most=0.05)


def test_the_rubric_keeps_its_promises(task, document):
    """Bounds; repeatable; keys, white space and row order do not matter; putting a field right never lowers."""
    check_rubric(task, Document(document.id, document.text, document.group, gold=RIGHT), examples=8)


def test_the_strategies_are_there_for_promises_of_your_own(task, document, rubric):
    from hypothesis import given, settings

    labelled = Document(document.id, document.text, document.group, gold=RIGHT)

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(wrong_answers(task, labelled, most=1))
    def wrong_is_worse(wrong):
        assert rubric.score(document, wrong.completion).total < rubric.score(document, wrong.better).total

    wrong_is_worse()
