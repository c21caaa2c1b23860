"""The receipt rubric on real receipts with human gold, where ../shared/data is present (train split only)."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rewards.document import Document
from rewards.fields import compare
from rewards.hacks import HACKS, hacks
from rewards.mutate import mutants
from rewards.parse import Attempt, parse
from rewards.rubric import Rubric
from rewards.task import load_task

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "receipts"
TASK = load_task("receipt")


def _read(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.is_file():
        warnings.warn(f"{path} is missing: the tests on real receipts are skipped", stacklevel=2)
        pytest.skip(f"no real receipts at {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def receipts() -> list[Document]:
    return [Document(r["id"], r["text"], r["group"], r["gold"]) for r in _read("train.jsonl")]


@pytest.fixture(scope="module")
def itemised(receipts: list[Document]) -> list[Document]:
    return [r for r in receipts if r.gold and "items" in r.gold]


def _gold(document: Document) -> dict[str, Any]:
    assert document.gold is not None
    return document.gold


def test_human_gold_scores_at_least_97(itemised: list[Document]) -> None:
    rubric = Rubric(TASK)
    scores = [rubric.score(r, TASK.canonical(_gold(r))) for r in itemised]
    assert all(score.gate is None and score.status == "scored" for score in scores)
    assert sum(score.total for score in scores) / len(scores) >= 0.97


def test_wholesale_hacks_score_below_half_of_gold(itemised: list[Document]) -> None:
    rubric = Rubric(TASK)
    below: dict[str, list[bool]] = {}
    for receipt in itemised:
        found = hacks(TASK, receipt, itemised)
        gold, *scores = rubric.score_group(receipt, [TASK.canonical(_gold(receipt)), *found.values()])
        for name, score in zip(found, scores, strict=True):
            below.setdefault(name, []).append(score.total < gold.total / 2)
    assert set(below) == set(HACKS)
    for name, outcomes in below.items():
        assert sum(outcomes) >= 0.99 * len(outcomes), (name, sum(outcomes), len(outcomes))


@pytest.mark.slow
def test_known_worse_edits_score_below_gold(itemised: list[Document]) -> None:
    rubric = Rubric(TASK)
    made: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    for receipt in itemised[::3]:
        worse = list(mutants(TASK, receipt))
        completions = [TASK.canonical(_gold(receipt)), *(mutant.completion for mutant in worse)]
        gold, *scores = rubric.score_group(receipt, completions)
        for mutant, score in zip(worse, scores, strict=True):
            made[mutant.kind] += 1
            killed[mutant.kind] += score.total < gold.total
    assert len(made) >= 40
    assert killed.total() >= 0.98 * made.total(), (killed.total(), made.total())
    for kind in ("row_duplicated", "row_dropped", "row_digit", "amount_paid", "invented", "invented_with_amends"):
        assert killed[kind] >= 0.98 * made[kind], (kind, killed[kind], made[kind])


def test_points_follow_the_truth(receipts: list[Document]) -> None:
    """What GPT-4o answered for the training receipts: a right field earns far more than a wrong one, without gold."""
    traces = {row["id"]: row["completion"] for row in _read("traces_gpt4o.jsonl")}
    rubric = Rubric(TASK)
    points: dict[str, dict[bool, list[float]]] = {k: {True: [], False: []} for k in ("vendor", "date", "total")}
    totals: list[tuple[float, bool]] = []
    for receipt in receipts:
        if receipt.id not in traces:
            continue
        attempt = parse(traces[receipt.id])
        score = rubric.score(receipt, traces[receipt.id])
        report = compare(TASK, attempt.value if isinstance(attempt, Attempt) else None, _gold(receipt))
        given = {finding.path: finding.points for finding in score.findings}
        for key, by_truth in points.items():
            counts = report.fields[key]
            if counts.tp + counts.fn:
                by_truth[counts.exact].append(given.get(key) or 0.0)
        if report.fields["total"].tp + report.fields["total"].fn:
            totals.append((score.total, report.fields["total"].exact))
    for key, by_truth in points.items():
        right, wrong = (sum(by_truth[truth]) / len(by_truth[truth]) for truth in (True, False))
        assert right > 0.95, (key, right)
        assert wrong < 0.6, (key, wrong)
    totals.sort(reverse=True)
    trusted = totals[: int(0.75 * len(totals))]
    assert sum(right for _, right in trusted) / len(trusted) >= 0.98
