from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.document import Document
from rewards.pool import RewardPool
from rewards.rubric import Rubric
from rewards.score import Score
from rewards.task import TASK_FOLDER, Task, load_task, task_from_dict

TEXT = "KEDAI MAJU SDN BHD\nDATE 12/03/2018\nMILK  13.00\nTOTAL  13.00"
GOLD = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK", "amount": "13.00"}],
    "total": "13.00",
}


def misbehave(document: Document, attempt: Mapping[str, Any], task: Task) -> Any:
    """A custom reward that does what its document says."""
    order = document.id
    if order == "hang":
        time.sleep(60)
    if order == "segfault":
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == "raise":
        raise KeyError("lost\nand gone")
    if order == "exit":
        raise SystemExit(3)
    if order == "none":
        return None
    if order == "nan":
        return float("nan")
    if order == "string":
        return "1.0"
    if order == "two":
        return 2.0
    if order == "abstain":
        return Score(None, "not_applicable")
    assert document.gold is None, "a reward must never see gold"
    return 0.5


def _task(**rewards: float) -> Task:
    raw = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text())
    reference = f"{misbehave.__module__}:misbehave"
    raw["rubric"]["rewards"] = {reference: 1.0, **rewards}
    raw["rubric"]["allow"] = [reference]
    return task_from_dict(raw)


def _document(name: str) -> Document:
    return Document(name, TEXT, "g", GOLD)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pool_gives_what_the_rubric_gives(workers: int) -> None:
    task = load_task("receipt")
    completions = [task.canonical(GOLD), "{}", "not json", task.canonical(GOLD | {"total": "31.00"})]
    documents = [_document(str(i)) for i in range(7)]
    with RewardPool(task, workers, deadline_s=10) as pool:
        scores = pool.score([(document, completions) for document in documents])
    rubric = Rubric(task)
    assert scores == [rubric.score_group(document, completions) for document in documents]
    assert [s.gate for s in scores[0]] == [None, "schema", "parses", None]


def test_no_documents() -> None:
    with RewardPool(load_task("receipt"), 1, deadline_s=5) as pool:
        assert pool.score([]) == []
        assert pool.score([(_document("a"), [])]) == [[]]


def test_a_hanging_reward_is_killed_and_the_others_go_on() -> None:
    task = _task()
    completion = task.canonical(GOLD)
    names = ["a", "hang", "b", "segfault", "c", "exit", "d"]
    with RewardPool(task, 2, deadline_s=1.0) as pool:
        start = time.monotonic()
        scores = pool.score([(_document(name), [completion] * 2) for name in names])
        assert time.monotonic() - start < 20
        again = pool.score([(_document("a"), [completion])])
    for name, group in zip(names, scores, strict=True):
        assert len(group) == 2
        for score in group:
            if name in ("hang", "segfault", "exit"):
                assert score.status == "error"
                assert score.error
            else:
                assert score.status == "scored", score.error
    assert "longer than 1 s" in str(scores[1][0].error)
    assert "died" in str(scores[3][0].error)
    assert again[0][0].status == "scored"


@pytest.mark.parametrize("name", ["raise", "none", "nan", "string", "two"])
def test_a_broken_reward_is_an_error_that_names_it(name: str) -> None:
    score = Rubric(_task()).score(_document(name), _task().canonical(GOLD))
    assert score.status == "error"
    assert "misbehave" in str(score.error)
    assert "\n" not in str(score.error)


def test_a_custom_reward_can_abstain() -> None:
    score = Rubric(_task(grounded=1.0)).score(_document("abstain"), _task().canonical(GOLD))
    assert score.status == "scored"
    assert score.parts[f"{misbehave.__module__}:misbehave"] is None
    assert score.total == 1.0


def test_many_hanging_rewards_leave_nothing_behind() -> None:
    task = _task()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with RewardPool(task, 2, deadline_s=0.05) as pool:
        scores = pool.score([(_document("hang"), [task.canonical(GOLD)]) for _ in range(20)])
    assert all(group[0].status == "error" for group in scores)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_close_twice() -> None:
    pool = RewardPool(load_task("receipt"), 1, deadline_s=1)
    pool.close()
    pool.close()
