"""The task `events` on three short texts written for it: names whole, each once, in the array they speak for."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from rewards.document import Document
from rewards.mutate import mutants
from rewards.rubric import Rubric, RubricScore
from rewards.task import load_task

TASK = load_task("events")
DOCS: list[tuple[str, dict[str, Any]]] = [
    (
        "FOR IMMEDIATE RELEASE\n"
        "Bergen, 4 March 2024 - Fjordline Ferries AS today appointed Ingrid Solheim as chief financial officer. "
        'Solheim joins from Nordlys Bank, where she led the treasury in Oslo. "She knows our coast," said Lars Brekke, '
        "chairman of Fjordline Ferries AS.",
        {
            "kind": "appointment",
            "date": "2024-03-04",
            "people": [
                {"name": "Ingrid Solheim", "role": "chief financial officer"},
                {"name": "Lars Brekke", "role": "chairman"},
            ],
            "organisations": [{"name": "Fjordline Ferries AS"}, {"name": "Nordlys Bank"}],
            "places": [{"name": "Bergen"}, {"name": "Oslo"}],
        },
    ),
    (
        "Two trams collided near Harbour Square in Lindmouth on 17 June 2023, and nine passengers were injured. The "
        "accident happened at about eight in the morning, the Lindmouth Transport Council said. Driver Tomas Vale was "
        "treated at Saint Agnes Hospital.",
        {
            "kind": "accident",
            "date": "2023-06-17",
            "people": [{"name": "Tomas Vale", "role": "Driver"}],
            "organisations": [{"name": "Lindmouth Transport Council"}, {"name": "Saint Agnes Hospital"}],
            "places": [{"name": "Harbour Square"}, {"name": "Lindmouth"}],
        },
    ),
    (
        "Quillon Robotics Inc. and the University of Tarn signed an agreement on September 9, 2022 to build a "
        "laboratory in Tarn. Professor Amara Okoye will lead it; the company, led by Jonas Weil, pays for the "
        'building. "Tarn is the right place," Weil said.',
        {
            "kind": "agreement",
            "date": "2022-09-09",
            "people": [{"name": "Amara Okoye", "role": "Professor"}, {"name": "Jonas Weil", "role": None}],
            "organisations": [{"name": "Quillon Robotics Inc."}, {"name": "University of Tarn"}],
            "places": [{"name": "Tarn"}],
        },
    ),
]


def _score(text: str, value: dict[str, Any]) -> RubricScore:
    score = Rubric(TASK).score(Document("e1", text, "e1", None), json.dumps(value))
    assert score.status == "scored" and score.gate is None, score
    return score


@pytest.mark.parametrize(("text", "gold"), DOCS, ids=["appointment", "accident", "agreement"])
def test_the_right_reading_earns_everything_and_worse_ones_less(text: str, gold: dict[str, Any]) -> None:
    assert _score(text, gold).total == pytest.approx(1.0)
    edits = list(mutants(TASK, Document("e1", text, "e1", gold)))
    seen = [edit for edit in edits if _score(text, edit.value).total < 1.0 - 1e-9]
    assert len(edits) >= 15
    # A place that is called a person is a name of the text all the same: nothing in the source says otherwise.
    blind = {edit.kind for edit in edits} - {edit.kind for edit in seen}
    assert blind <= {"mention_moved"}, blind


def test_nothing_and_everything_earn_little() -> None:
    text, _ = DOCS[0]
    empty = {"kind": None, "date": None, "people": [], "organisations": [], "places": []}
    assert _score(text, empty).total < 0.3
    words = [{"name": word.strip(".,-")} for word in dict.fromkeys(text.split()) if len(word.strip(".,-")) > 1]
    assert _score(text, empty | {"places": words[:60]}).total < 0.5


@pytest.mark.parametrize(
    ("array", "row", "why"),
    [
        ("people", {"name": "Solheim", "role": None}, "a shorter form of another row"),
        ("people", {"name": "Ingrid Solheim", "role": None}, "repeats a row"),
        ("people", {"name": "Nordlys Bank", "role": None}, "its words speak for organisations"),
        ("people", {"name": "Ingrid Bergen", "role": None}, "not printed in the document"),
        ("organisations", {"name": "treasury"}, "printed, but not as a name"),
        ("organisations", {"name": "Nordlys"}, "a part of a longer name"),
    ],
)
def test_findings_say_what_is_wrong(array: str, row: dict[str, Any], why: str) -> None:
    text, gold = DOCS[0]
    value = copy.deepcopy(gold)
    if why == "a part of a longer name":
        value[array] = []
    value[array].append(row)
    score = _score(text, value)
    last = f"{array}[{len(value[array]) - 1}].name"
    assert [finding.why for finding in score.findings if finding.path == last] == [why]
