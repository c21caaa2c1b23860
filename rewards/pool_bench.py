"""Rewards that hang, a thousand in a row, beside rewards that do not: what the others lose, and what is left behind."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import yaml

from rewards.document import Document
from rewards.fuzz import POLICY, group
from rewards.nursery import open_files, resident_bytes
from rewards.pool import Pair, RewardPool
from rewards.task import TASK_FOLDER, Task, task_from_dict

HANGS = "hang"  # how the ids of documents begin at which the reward hangs


def hangs_or_scores(document: Document, attempt: Mapping[str, Any], task: Task) -> float:
    """The custom reward of the bench."""
    if document.id.startswith(HANGS):
        time.sleep(3600)
    return 0.5


def bench_task() -> Task:
    """The receipt task with one custom reward more, which hangs where the document says so."""
    raw = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text(encoding="utf-8"))
    name = f"{hangs_or_scores.__module__}:{hangs_or_scores.__name__}"
    raw["rubric"]["rewards"][name] = 1.0
    raw["rubric"]["allow"] = [name]
    return task_from_dict(raw, "receipt with a reward that hangs")


def _work(task: Task, documents: Sequence[Document], seed: int) -> list[Pair]:
    found: list[Pair] = []
    for i, document in enumerate(documents):
        texts = group(POLICY, task.canonical(document.gold or {}), document.text, Random(f"pool/{seed}/{i}"))
        found.append((Document(document.id, document.text, document.group, None), texts))
    return found


class Stream:
    """Hands a pool its work in small portions, as long as it lasts, and counts the seconds."""

    def __init__(self, pool: RewardPool, good: Sequence[Pair]) -> None:
        self.pool, self.good, self.at = pool, good, 0

    def next(self, count: int) -> list[Pair]:
        found = [self.good[(self.at + i) % len(self.good)] for i in range(count)]
        self.at += count
        return found


def measure(
    documents: Sequence[Document], hangs: int = 1000, deadline_s: float = 0.3, workers: int = 2, rounds: int = 20
) -> dict[str, Any]:
    """Groups a second of a pool alone, and of the same pool while rewards hang, in turns (A B A B ...).

    In B one reward after the other hangs: the next about when the last one was killed, until `hangs` of them were. The
    groups a second count only those that do not hang. ratio: the median over the rounds of B / A. A hang costs the
    others a kill, a fork and a cold start, some milliseconds, so that a longer deadline gives a ratio nearer to 1.
    cpu_ms_a_hang: what one costs in CPU time of all processes, the scoring of its document included, counted over a
    tenth as many hangs with nothing beside them: unlike the ratio it is the same on a busy machine. speed_for_hangs:
    the share of the workers' cores that takes, where one reward after the other hangs until the deadline.
    memory_growth_mb: of this process, from the end of the first round to that of the last, which does about the
    same work.
    """
    elsewhere = _children()
    task = bench_task()
    completion = task.canonical(documents[0].gold or {})
    good = _work(task, documents, 0)
    rounds = min(rounds, hangs)
    per_round = hangs // rounds
    rates: list[tuple[float, float]] = []
    outcomes: dict[str, int] = {}
    with RewardPool(task, workers, deadline_s) as pool:
        stream = Stream(pool, good)
        pool.score(stream.next(50))  # warm-up
        rate = _alone(pool, stream, 200)
        before = (0, open_files(), _children())
        start = time.perf_counter()
        for turn in range(rounds):
            # In one call, as beside the hanging ones: what it returns, and what that costs to keep, is then alike.
            rate = _alone(pool, stream, max(1, round(rate * per_round * deadline_s / 2)))
            share = max(1, round(rate * deadline_s))  # others for each that hangs
            pairs: list[Pair] = []
            for i in range(per_round):
                pairs.append((Document(f"{HANGS}-{turn}-{i}", documents[0].text, "", None), [completion]))
                pairs.extend(stream.next(share))
            begun = time.perf_counter()
            scores = pool.score(pairs)
            spent = time.perf_counter() - begun
            rates.append((rate, per_round * share / spent))
            for (document, _), found in zip(pairs, scores, strict=True):
                kind = "hanging" if document.id.startswith(HANGS) else "other"
                said = found[0].error or "scored"
                key = f"{kind}: {said}"
                outcomes[key] = outcomes.get(key, 0) + 1
            del pairs, scores
            if turn == 0:  # what one round's work takes is there from now on; growth is what comes on top
                before = (resident_bytes(), *before[1:])
        used, count = _cpu_seconds(), max(1, hangs // 10)
        pool.score([(Document(f"{HANGS}-{i}", documents[0].text, "", None), [completion]) for i in range(count)])
        cost = (_cpu_seconds() - used) / count
        seconds = time.perf_counter() - start
        after = (resident_bytes(), open_files(), _children())
    ratios = [b / a for a, b in rates]
    return {
        "hangs": per_round * rounds,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "cpu_ms_a_hang": 1000 * cost,
        "speed_for_hangs": cost / (deadline_s * min(workers, os.cpu_count() or 1)),
        "groups_per_s_alone": statistics.median(a for a, _ in rates),
        "groups_per_s_beside_hanging": statistics.median(b for _, b in rates),
        "deadline_s": deadline_s,
        "workers": workers,
        "seconds": seconds,
        "outcomes": outcomes,
        "memory_growth_mb": (after[0] - before[0]) / 2**20,
        "open_files_growth": after[1] - before[1],
        "processes_growth": after[2] - before[2],
        "processes_left": _children() - elsewhere,
    }


def _alone(pool: RewardPool, stream: Stream, count: int) -> float:
    """Groups a second over `count` groups, none of which hangs."""
    pairs, begun = stream.next(count), time.perf_counter()
    scores = pool.score(pairs)
    return len(scores) / (time.perf_counter() - begun)


def _below() -> list[list[str]]:
    """The fields of /proc/N/stat, from the state on, of every process below this one; [] where there is no /proc."""
    below: dict[int, list[tuple[int, list[str]]]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(") ")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append((int(name), fields))
    found, ahead = [], [os.getpid()]
    while ahead:
        for pid, fields in below.get(ahead.pop(), ()):
            found.append(fields)
            ahead.append(pid)
    return found


def _children() -> int:
    """Processes below this one, of every generation; 0 where that cannot be known."""
    return sum(fields[0] != "Z" for fields in _below())


def _cpu_seconds() -> float:
    """What this process and all below it have used, those that have ended among them."""
    ticks = sum(int(used) for fields in _below() for used in fields[11:15])  # its own, and of those it has reaped
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")
