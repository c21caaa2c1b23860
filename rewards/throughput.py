"""How fast a rubric scores: completions a second on one core, groups of eight that share a document."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from rewards.document import Document
from rewards.fuzz import POLICY, group
from rewards.rubric import Rubric
from rewards.task import Task

ROUNDS = 3


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def groups(task: Task, documents: Sequence[Document], seed: int) -> list[tuple[Document, list[str]]]:
    """For each document, without its gold, eight distinct completions as a policy in training writes them."""
    found = []
    for i, document in enumerate(documents):
        gold = task.canonical(document.gold or {})
        completions = group(POLICY, gold, document.text, Random(f"throughput/{seed}/{i}"))
        found.append((Document(document.id, document.text, document.group, None), completions))
    return found


def measure(
    task: Task, documents: Sequence[Document], seed: int = 0, clock: Callable[[], float] = time.process_time
) -> dict[str, Any]:
    """Completions a second a core of the whole rubric, milliseconds a completion, and the slowest group.

    Each round scores fresh completions; the best of the rounds counts, since a busy machine only ever slows one down.
    Seconds are this process's CPU seconds. Nothing is kept from one group to the next.
    """
    rubric = Rubric(task)
    rounds: list[tuple[int, float, list[tuple[float, int, str]]]] = []
    gates: dict[str, int] = {}
    for turn in range(ROUNDS):
        work = groups(task, documents, seed + turn)
        spent: list[tuple[float, int, str]] = []
        start = clock()
        for document, completions in work:
            before = clock()
            scores = rubric.score_group(document, completions)
            spent.append((clock() - before, len(completions), document.id))
            for score in scores:
                key = "error" if score.status == "error" else f"failed_{score.gate}" if score.gate else "passed"
                gates[key] = gates.get(key, 0) + 1
        rounds.append((sum(count for _, count, _ in spent), clock() - start, spent))
    rates = [count / seconds for count, seconds, _ in rounds]
    count, _, spent = rounds[rates.index(max(rates))]
    each = [1000 * seconds / size for seconds, size, _ in spent]
    slowest = max(spent)
    return {
        "completions_per_s_core": max(rates),
        "rounds": rates,
        "p50_ms": percentile(each, 0.5),
        "p99_ms": percentile(each, 0.99),
        "slowest": {"document": slowest[2], "ms": 1000 * slowest[0] / slowest[1]},
        "documents": len(spent),
        "completions": count,
        "outcomes": gates,
    }
