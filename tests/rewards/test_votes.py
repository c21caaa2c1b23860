"""The task `votes`: three prints of the same result, each mistake that a model makes in it, and the real filings."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from rewards.document import Document
from rewards.mutate import mutants
from rewards.rubric import Rubric, RubricScore
from rewards.task import load_task

TASK = load_task("votes")
HEAD = "Item 5.07 Submission of Matters to a Vote of Security Holders.\nOn May 3, 2023, the meeting was held.\n"
TABLE = (
    HEAD + "Proposal 1: Election of directors\n"
    "Nominee For Withheld Broker Non-Votes\n"
    "Ada Lindqvist 5,515,788 424,626 1,001,676\n"
    "Bruno Kestrel 5,680,396 260,018 1,001,676\n"
    "Proposal 2: Ratification of Merle & Crane LLP as auditor for the year ending December 31, 2023\n"
    "For Against Abstain Broker Non-Votes\n"
    "6,800,000 100,000 42,090 —\n"
)
LABELS = (
    HEAD + "1. Election of Ada Lindqvist as director\nFor: 5,515,788\nWithheld: 424,626\nBroker Non-Votes: 1,001,676\n"
    "2. Election of Bruno Kestrel as director\nFor: 5,680,396\nWithheld: 260,018\nBroker Non-Votes: 1,001,676\n"
    "3. Ratification of Merle & Crane LLP as auditor\nFor: 6,800,000\nAgainst: 100,000\nAbstain: 42,090\n"
)
PROSE = (
    HEAD
    + "The election of Ada Lindqvist received 5,515,788 votes for, 424,626 withheld and 1,001,676 broker non-votes.\n"
    "The election of Bruno Kestrel received 5,680,396 votes for, 260,018 withheld and 1,001,676 broker non-votes.\n"
    "The ratification of Merle & Crane LLP as auditor received 6,800,000 votes for, 100,000 votes against and 42,090"
    " abstentions.\n"
)


def _row(name: str, *counts: int | None) -> dict[str, Any]:
    return {"proposal": name, **dict(zip(("for", "against", "abstain", "broker_non_votes"), counts, strict=True))}


GOLD: dict[str, Any] = {
    "proposals": [
        _row("Election of Ada Lindqvist", 5515788, 424626, None, 1001676),
        _row("Election of Bruno Kestrel", 5680396, 260018, None, 1001676),
        _row("Ratification of Merle & Crane LLP as auditor", 6800000, 100000, 42090, None),
    ]
}


def _score(value: dict[str, Any], text: str = TABLE) -> RubricScore:
    score = Rubric(TASK).score(Document("f1", text, "f1", None), json.dumps(value))
    assert score.status == "scored" and score.gate is None, score
    return score


@pytest.mark.parametrize("text", [TABLE, LABELS, PROSE], ids=["table", "labels", "prose"])
def test_the_right_reading_earns_nearly_everything(text: str) -> None:
    score = _score(GOLD, text)
    assert score.parts["reconciles"] == 1.0
    assert score.parts["covers"] == 1.0
    assert score.total > 0.97, score.findings


def test_a_number_copied_from_another_proposal_is_caught_twice() -> None:
    """What models do most: the non-votes of the election, in the ratification as well."""
    wrong = copy.deepcopy(GOLD)
    wrong["proposals"][2]["broker_non_votes"] = 1001676
    score = _score(wrong)
    points = {finding.path: finding.points for finding in score.findings}
    assert points["proposals[2].broker_non_votes"] is not None and points["proposals[2].broker_non_votes"] < 0.2
    assert score.parts["reconciles"] == pytest.approx(2 / 3)
    assert score.total < _score(GOLD).total - 0.05


def test_an_election_in_one_row_is_no_row_of_the_page() -> None:
    summed = {"proposals": [_row("Election of directors", 11196184, 684644, None, 1001676), GOLD["proposals"][2]]}
    score = _score(summed)
    assert score.parts["covers"] == pytest.approx(1 / 3, abs=0.35) and score.total < 0.6 * _score(GOLD).total


def test_totals_need_not_be_the_same_for_a_single_vote() -> None:
    single = {"proposals": GOLD["proposals"][2:]}
    text = HEAD + TABLE[TABLE.index("Proposal 2") :]
    score = _score(single, text)
    assert score.parts["reconciles"] is None
    assert score.total > 0.97


def test_years_days_and_page_numbers_are_no_votes() -> None:
    text = TABLE + "2\nThe next meeting is on May 4, 2024.\n3\n"
    assert _score(GOLD, text).parts["covers"] == 1.0


def test_every_kind_of_known_worse_edit_is_seen() -> None:
    document = Document("f1", TABLE, "f1", GOLD)
    whole = _score(GOLD).total
    edits = list(mutants(TASK, document))
    missed = {edit.kind for edit in edits if _score(edit.value).total >= whole - 1e-9}
    assert len({edit.kind for edit in edits}) >= 20
    assert not missed, missed
