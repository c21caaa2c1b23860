"""The numbers of one step, from its groups and scores, and the clock that says where its time went."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rewards.rubric import RubricScore
from rl.rollouts import Group

PHASES = ("sample", "score", "update", "load")


class Clock:
    """Seconds by phase; what no phase covers is `rest`, so that the parts add up to `total`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        total = time.perf_counter() - self._start
        rest = total - sum(self._seconds.values())
        return {f"seconds/{name}": s for name, s in (self._seconds | {"rest": rest, "total": total}).items()}


def rollout_metrics(groups: Sequence[Group], scores: Sequence[Sequence[RubricScore]]) -> dict[str, float]:
    """Rewards, faults and lengths over all sampled groups, those without spread included.

    Rewards are over scored attempts only; a part is over the attempts to which it applies. Shares are in [0, 1].
    """
    rollouts = [r for group in groups for r in group.rollouts]
    flat = [s for row in scores for s in row]
    scored = [s for s in flat if s.status == "scored"]
    totals = [s.total for s in scored]
    spreads = [statistics.pstdev(values) for row in scores if len(values := known(row)) > 1]
    parts: dict[str, list[float]] = {}
    for score in scored:
        for name, value in score.parts.items():
            if value is not None:
                parts.setdefault(name, []).append(value)
    lengths = [len(r.completion_ids) for r in rollouts]
    judged = [s.parts["judge"] is None for s in scored if "judge" in s.parts]
    return {
        "reward/mean": mean(totals),
        "reward/std": statistics.pstdev(totals) if totals else math.nan,
        "reward/group_std": mean(spreads),
        **{f"reward/part/{name}": mean(values) for name, values in parts.items()},
        "rollout/parse_failed": mean([s.gate == "parses" for s in scored]),
        "rollout/schema_failed": mean([s.gate == "schema" for s in scored]),
        "rollout/truncated": mean([r.truncated for r in rollouts]),
        "rollout/score_errors": len(flat) - len(scored),
        **({"rollout/judge_abstained": mean(judged)} if judged else {}),
        "rollout/completion_tokens_mean": mean(lengths),
        "groups/sampled": len(groups),
        "tokens/prompt": sum(len(group.prompt_ids) for group in groups),
        "tokens/completion": sum(lengths),
    }


def known(row: Sequence[RubricScore]) -> list[float]:
    return [s.total for s in row if s.status == "scored"]


def mean(values: Sequence[float]) -> float:
    """NaN of nothing: the record writes that as null."""
    return math.fsum(values) / len(values) if values else math.nan


def peak_memory_mb() -> float:
    """Most memory that this process has held, in MB (10**6 bytes): on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
