from __future__ import annotations

import faulthandler
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from envs.synthetic import documents
from rewards import pool_bench
from rewards.document import Document
from rewards.pool import RewardPool
from rewards.rubric import Rubric
from rewards.score import Finding, Score
from rewards.task import TASK_FOLDER, Task, load_task, task_from_dict
from tests.endpoint_stub import wait_for

TEXT = "KEDAI MAJU SDN BHD\nDATE 12/03/2018\nMILK  13.00\nTOTAL  13.00"
GOLD = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK", "amount": "13.00"}],
    "total": "13.00",
}


LEAKED: list[bytearray] = []


def misbehave(document: Document, attempt: Mapping[str, Any], task: Task) -> Any:
    """A custom reward that does what its document says."""
    order = document.id
    if order == "hang":
        time.sleep(60)
    if order == "spin":
        while True:
            pass
    if order == "regex":
        re.match(r"(a+)+$", "a" * 40 + "b")
    if order == "segfault":
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == "os exit":
        os._exit(7)
    if order == "allocate":
        return float(len(bytearray(4 * 2**30)))
    if order == "leak":
        LEAKED.append(bytearray(b"x") * (60 * 2**20))
    if order == "fork":
        os.fork()
    if order == "fork and stay":
        if os.fork() == 0:
            time.sleep(60)
        os._exit(1)
    if order == "print":
        print("a reward's own words " * 1000, flush=True)
        os.write(2, b"and more of them")
    if order == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        time.sleep(60)
    if order == "unpicklable":
        return Score(0.5, "scored", (Finding("total", lambda: None, None, 0.5, "cannot be sent"),))
    if order == "change":
        attempt["items"].clear()
        attempt["total"] = "0.00"
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
    if order == "list":
        return [0.5]
    if order == "lists":
        return [0.5, 0.5]
    if order == "true":
        return True
    if order == "infinity":
        return float("inf")
    if order == "negative":
        return -0.1
    if order == "numpy":
        return Fraction(1, 2)
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
    with RewardPool(task, workers, deadline_s=60) as pool:
        scores = pool.score([(document, completions) for document in documents])
    rubric = Rubric(task)
    assert scores == [rubric.score_group(document, completions) for document in documents]
    assert [s.gate for s in scores[0]] == [None, "schema", "parses", None]


def test_no_documents() -> None:
    with RewardPool(load_task("receipt"), 1, deadline_s=60) as pool:
        assert pool.score([]) == []
        assert pool.score([(_document("a"), [])]) == [[]]


ENDS = {
    "hang": "longer than 10 s",
    "spin": "longer than 10 s",
    "regex": "longer than 10 s",
    "deaf": "longer than 10 s",
    "segfault": "died (SIGSEGV)",
    "os exit": "died (exit code 7)",
    "fork and stay": "died (exit code 1)",
    "exit": "called sys.exit(3)",
    "allocate": "memory limit of 500 MB",
    "unpicklable": "cannot be sent",
    "raise": "KeyError",
    "none": "returned None",
    "list": "returned [0.5]",
}


def test_each_misbehaviour_has_an_outcome_that_names_the_reward_and_the_others_go_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    task = _task()
    completion = task.canonical(GOLD)
    names = [name for bad in ENDS for name in (bad, "good")] + ["print", "fork", "leak"] + ["leak", "good"] * 9
    with RewardPool(task, 2, deadline_s=10.0, memory_mb=500) as pool:
        scores = pool.score([(_document(name), [completion] * 2) for name in names])
        again = pool.score([(_document("good"), [completion])] * 4)
    for name, group in zip(names, scores, strict=True):
        assert len(group) == 2
        for score in group:
            if name in ENDS:
                assert score.status == "error", name
                assert ENDS[name] in str(score.error), name
                assert "misbehave" in str(score.error), name
                assert "\n" not in str(score.error)
            else:
                assert score.status == "scored", (name, score.error)
                assert score.parts[f"{misbehave.__module__}:misbehave"] == 0.5
    assert [group[0].status for group in again] == ["scored"] * 4
    assert "own words" not in "".join(capfd.readouterr())


def test_a_worker_that_dies_between_jobs_is_replaced() -> None:
    task = _task()
    with RewardPool(task, 1, deadline_s=60.0) as pool:
        assert pool.score([(_document("good"), [task.canonical(GOLD)])])[0][0].status == "scored"
        pids = [worker.pid for worker in pool._workers if worker.pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(_lives, pids)), 60.0)
        again = pool.score([(_document("good"), [task.canonical(GOLD)])] * 5)
    assert [group[0].status for group in again] == ["scored"] * 5


def test_a_nursery_that_is_killed_is_replaced() -> None:
    task = _task()
    with RewardPool(task, 1, deadline_s=2.0) as pool:
        nursery = pool._nursery._process.pid or 0
        os.kill(nursery, signal.SIGKILL)
        wait_for(lambda: not _lives(nursery), 60.0)
        scores = pool.score([(_document(name), [task.canonical(GOLD)]) for name in ["hang", "good"] * 2])
    assert [group[0].status for group in scores] == ["error", "scored"] * 2


def test_a_pool_whose_nursery_died_closes_at_once() -> None:
    """Its workers live on, and hold its sentinel open."""
    pool = RewardPool(_task(), 1, deadline_s=60.0)
    nursery = pool._nursery._process.pid or 0
    os.kill(nursery, signal.SIGKILL)
    wait_for(lambda: not _lives(nursery), 60.0)
    begun = time.monotonic()
    pool._nursery.close()
    assert time.monotonic() - begun < 4.0
    pool.close()


def test_workers_end_with_the_process_that_has_them() -> None:
    script = (
        "import os, sys, time; sys.path.insert(0, '.');"
        "from rewards.pool import RewardPool; from rewards.pool_bench import _children, bench_task;"
        "pool = RewardPool(bench_task(), 2, 5.0); "
        "pids = [pool._nursery._process.pid, *[w.pid for w in pool._workers if w.pid]];"
        "print(*pids, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) >= 3, done.stderr
    until = time.monotonic() + 20
    while any(_lives(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "name",
    ["raise", "none", "nan", "string", "two", "list", "lists", "true", "infinity", "negative", "exit"],
)
def test_a_broken_reward_is_an_error_that_names_it(name: str) -> None:
    score = Rubric(_task()).score(_document(name), _task().canonical(GOLD))
    assert score.status == "error"
    assert score.total == 0.0
    assert "misbehave" in str(score.error)
    assert "\n" not in str(score.error)


def test_any_real_number_is_a_score_and_a_reward_cannot_change_the_attempt() -> None:
    task = _task(plausible=1.0, adds_up=1.0, characters=1.0)
    reference = f"{misbehave.__module__}:misbehave"
    for workers in (0, 1):
        with RewardPool(task, workers, deadline_s=60) as pool:
            whole, changed = pool.score([(_document(name), [task.canonical(GOLD)]) for name in ("numpy", "change")])
        assert whole[0].parts[reference] == changed[0].parts[reference] == 0.5
        assert changed[0].parts == whole[0].parts


def test_a_worker_that_ends_itself_before_we_do_took_too_long_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is too busy for us to look in time."""
    monkeypatch.setattr(RewardPool, "_overdue", lambda *_: time.sleep(0.05))
    task = _task(plausible=1.0)
    with RewardPool(task, 1, deadline_s=0.2) as pool:
        ((score,),) = pool.score([(_document("hang"), [task.canonical(GOLD)])])
    assert str(score.error).endswith("misbehave took longer than 0.2 s")


def test_a_custom_reward_can_abstain() -> None:
    score = Rubric(_task(grounded=1.0)).score(_document("abstain"), _task().canonical(GOLD))
    assert score.status == "scored"
    assert score.parts[f"{misbehave.__module__}:misbehave"] is None
    assert score.total == 1.0


@pytest.mark.slow
def test_many_hanging_rewards_take_no_speed_from_others_and_leave_nothing_behind() -> None:
    result = pool_bench.measure(documents("receipt", 20, 0), hangs=10, deadline_s=1.0, workers=2, rounds=5)
    hanging = {outcome: n for outcome, n in result["outcomes"].items() if outcome.startswith("hanging")}
    assert result["hangs"] == sum(n for outcome, n in hanging.items() if "longer than 1" in outcome), hanging
    others = {outcome: n for outcome, n in result["outcomes"].items() if outcome.startswith("other")}
    # On a busy machine one of them may get no core before its deadline.
    assert others["other: scored"] > 0.9 * sum(others.values())
    assert result["memory_growth_mb"] < 60
    assert result["open_files_growth"] <= 20  # those of the workers that are there at that moment
    assert result["processes_left"] == 0


def test_close_twice() -> None:
    pool = RewardPool(load_task("receipt"), 1, deadline_s=1)
    pool.close()
    pool.close()
