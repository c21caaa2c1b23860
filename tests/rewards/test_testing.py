"""The pytest plugin: assert_reward, fixtures and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rewards.document import Document
from rewards.rubric import Rubric, RubricScore
from rewards.score import Finding
from rewards.task import load_task
from rewards.testing import assert_reward

TEXT = "KEDAI MAJU SDN BHD\nDATE: 12/03/2018\nMILK 1L  13.00\nBREAD  3.20\nTOTAL  16.20\nCASH  20.00"
GOLD = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK 1L", "amount": "13.00"}, {"name": "BREAD", "amount": "3.20"}],
    "tax": None,
    "rounding": None,
    "total": "16.20",
}
RUBRIC = Rubric(load_task("receipt"))
DOCUMENT = Document("r1", TEXT, "g", GOLD)


def message(completion: object, **expected: object) -> str:
    """What a failing assert_reward says."""
    with pytest.raises(AssertionError) as caught:
        assert_reward(completion, document=DOCUMENT, rubric=RUBRIC, **expected)  # type: ignore[arg-type]
    return str(caught.value)


def passes(completion: object, **expected: object) -> RubricScore:
    return assert_reward(completion, document=DOCUMENT, rubric=RUBRIC, **expected)  # type: ignore[arg-type]


def test_what_is_as_expected_passes() -> None:
    passes(GOLD, at_least=1.0, at_most=1.0, parts={"covers": 1.0}, fields={"total": 1.0, "items[].name": 1.0})
    passes(json.dumps(GOLD), reason="reconciles")
    passes(GOLD | {"total": "20.00"}, at_most=0.9, reason="reconciles")
    passes(GOLD | {"total": "20.00"}, fields={"total": (0.0, 0.5), "discount": None}, reason="but not as this")
    passes("{", at_most=0.0, reason="parses")
    passes({}, at_most=0.05, reason="schema")


def test_a_failure_shows_every_fault_and_the_tree() -> None:
    said = message(
        GOLD | {"total": "20.00"},
        at_least=0.9,
        parts={"reconciles": 1.0, "covres": 1.0},
        fields={"total": 1.0, "totl": 1.0},
        reason="covers well",
    )
    assert "expected at least 0.9" in said
    assert "parts: reconciles is 0.00, expected 1.00" in said
    assert "parts: no 'covres': did you mean 'covers'?" in said
    assert "fields: total has 0.10 points, expected 1.00: printed, but not as this" in said
    assert "fields: nothing is said about 'totl': did you mean 'total'?" in said
    assert "no reward is called 'covers well'" in said
    assert '← line 6: "20.00"' in said
    assert '"total": "20.00"' in said


def test_each_expectation_can_fail() -> None:
    assert "expected at most 0.5" in message(GOLD, at_most=0.5)
    assert "items[1].amount has" in message(
        GOLD | {"items": [GOLD["items"][0], {"name": "BREAD", "amount": "9.99"}]},  # type: ignore[index]
        fields={"items[].amount": 1.0},
    )
    assert "fields: total has 1.00 points, expected none" in message(GOLD, fields={"total": None})
    assert "reason: reconciles is 1.00, expected less than 1" in message(GOLD, at_most=1.0, reason="reconciles")
    assert "passed the gates, expected to stop at schema" in message(GOLD, reason="schema")
    assert "stopped at the gate parses" in message("{", parts={"covers": 1.0})


def test_trouble_is_no_low_score() -> None:
    class Broken:
        task = RUBRIC.task

        def score(self, document: Document, completion: str) -> RubricScore:
            return RubricScore(0.0, "error", None, {}, (Finding("", None, None, None, "x"),), "mine: boom")

    with pytest.raises(AssertionError, match="could not be scored: mine: boom"):
        assert_reward("{}", document=DOCUMENT, rubric=Broken(), at_most=0.5)  # type: ignore[arg-type]


def test_every_pytest_finds_the_plugin() -> None:
    assert [point.value for point in entry_points(group="pytest11") if point.name == "offramp"] == ["rewards.testing"]


TESTS = """
import pytest

def test_of_the_configuration(task, documents, document, rubric, assert_reward):
    assert (task.name, len(documents), document.id) == ("receipt", 2, "a")
    assert rubric.task is task
    assert_reward({}, at_most=0.05)

@pytest.mark.offramp(id="b")
class TestMarked:
    def test_id(self, document, assert_reward):
        assert document.id == "b"
        assert_reward("{", reason="parses")

    @pytest.mark.offramp(text="TOTAL 5.00", task="invoice")
    def test_closest_marker(self, document, task):
        assert (document.text, task.name) == ("TOTAL 5.00", "invoice")

@pytest.mark.offramp(task="receit")
def test_wrong_task(task): pass

@pytest.mark.offramp(docs="nowhere.jsonl")
def test_wrong_docs(document): pass

@pytest.mark.offramp(id="c")
def test_wrong_id(document): pass

@pytest.mark.offramp("receipt")
def test_wrong_marker(task): pass

@pytest.mark.offramp(docs="broken.jsonl")
def test_broken_docs(document): pass

def test_fails(assert_reward):
    assert_reward("no JSON", at_least=0.5)
"""


def test_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nofframp_task = receipt\nofframp_docs = docs.jsonl\n")
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y", "group": "g"}\n')
    (tmp_path / "broken.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": 1}\n')
    (tmp_path / "test_mine.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--strict-markers",
        "--no-header",
        "-rfE",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 3 passed, 5 errors" in done.stdout, done.stdout + done.stderr
    for says in (
        "task: no task named 'receit'; did you mean 'receipt'?",
        "docs=nowhere.jsonl: cannot be read: No such file or directory",
        "id=c: no such document: there is a, b",
        "the marker is offramp(task=, docs=, id=, text=)",
        "line 2: must be an object with an id and a text",
        "reward 0.000, expected at least 0.5",
        "does not start with {",
    ):
        assert says in done.stdout, says
    assert "Traceback" not in done.stdout
