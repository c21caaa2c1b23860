from __future__ import annotations

import json

from envs.synthetic import documents
from rewards import hostile, throughput
from rewards.rubric import Rubric
from rewards.task import load_task

TASK = load_task("receipt")
DOCUMENTS = documents("receipt", 5, 0)


def test_malformed_completions_have_verdicts_and_the_same_ones_again() -> None:
    first = hostile.measure(TASK, DOCUMENTS, 400)
    assert (first["n"], first["raised"], first["first"]) == (400, 0, None)
    assert {"passed", "parses", "schema"} <= set(first["outcomes"])
    assert hostile.measure(TASK, DOCUMENTS, 400)["digest"] == first["digest"]
    assert hostile.measure(TASK, DOCUMENTS, 400, seed=1)["digest"] != first["digest"]


def test_no_bomb_is_an_error() -> None:
    result = hostile.measure_bombs(TASK, DOCUMENTS[0])
    assert result["bombs"] >= 30
    assert set(result["verdicts"].values()) <= {"parses", "schema", "passed"}
    assert result["verdicts"]["deep arrays"] == result["verdicts"]["too many keys"] == "parses"
    assert result["slowest_ms"] < 500  # of a busy machine; the bench holds the limit of 50


def test_groups_are_distinct_and_mostly_pass_the_gates() -> None:
    for _, completions in throughput.groups(TASK, DOCUMENTS, 0):
        assert len(completions) == len(set(completions)) >= 7
    result = throughput.measure(TASK, DOCUMENTS)
    assert result["completions_per_s_core"] > 0
    assert result["outcomes"]["passed"] > result["outcomes"]["failed_parses"]
    assert "error" not in result["outcomes"]


def test_a_verdict_names_characters_by_their_number() -> None:
    """U+31C32 is a letter from Unicode 15 on: its repr is another one on Python 3.11 than on 3.12."""
    document = DOCUMENTS[0]
    answer = json.dumps({**document.gold, "vendor": document.gold["vendor"] + "\U00031c32"}, ensure_ascii=False)
    (score,) = Rubric(TASK).score_group(document, [answer])
    assert any(finding.why == "the character U+31C32 is not in the document" for finding in score.findings)
