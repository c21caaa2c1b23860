"""offramp profile: what a rubric costs and what it can tell apart, on completions that are already there."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launch.numbers import mean, pearson, percentile, share, spread
from launch.rollouts import choose_steps, documents_of, find_run, read_rollouts
from launch.score import known_documents, number_of, pair_up, read_completions, read_keys
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.rubric import Rubric, RubricScore
from rewards.task import Task, load_task

KEYS = {
    "task": "a name in configs/task, or a task file (of a run: the run's own)",
    "docs.path": "documents, JSON lines (of a run: what it recorded)",
    "completions": 'JSON lines of {"id": ..., "completion": ...}; those of one id are a group',
    "run": "instead of completions: a run's folder, such as runs/demo",
    "step": "of the run: 12, 10-20 or last (all)",
    "limit": "groups to look at (1000)",
    "slowest": "slow inputs to name (5)",
    "max_bad": "bad lines tolerated in each file (0)",
}
NO_SPREAD = 1e-6
"""As in training: a group whose rewards lie closer together teaches nothing."""
SATURATED, TWIN, SILENT, FLAT = 0.95, 0.95, 0.9, 0.5
"""Shares and correlations from which a note is made."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One completion, scored alone, the document's index included: milliseconds by the clock and of the CPU."""

    document: Document
    sample: int
    completion: str
    wall_ms: float
    cpu_ms: float


def profile(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """Time, slowest inputs, abstentions, spread within groups, correlation and saturation of the parts."""
    values = read_keys("profile", args, KEYS, required=())
    if values is None:
        return None
    task, groups = groups_of(values)
    groups = groups[: number_of(values, "limit", 1000, int)]
    rubric = Rubric(task)
    rubric.score(*_first(groups))  # what is made once, at the first use, is no cost of an input
    start = time.perf_counter()
    scores = [rubric.score_group(document, completions) for document, completions in groups]
    seconds = time.perf_counter() - start
    timed = [one for document, completions in groups for one in _time(rubric, document, completions)]
    result = {
        "task": task.name,
        "completions": len(timed),
        "groups": len(groups),
        **times(timed, seconds, number_of(values, "slowest", 5, int)),
        **statistics_of(task, scores),
    }
    result["notes"] = notes(result)
    _table(result)
    return result


def groups_of(values: dict[str, str]) -> tuple[Task, list[tuple[Document, list[str]]]]:
    """The task, and the completions of each document (of a run: of each document in each step)."""
    if "run" in values:
        if "completions" in values:
            raise ConfigError("completions: not with run=, whose completions are taken")
        run = find_run(values["run"])
        task = run.task(values.get("task"))
        rollouts = read_rollouts(run, choose_steps(run, values.get("step")))
        documents = documents_of(run, rollouts, task, values.get("docs.path"))
        found: dict[tuple[int, str], list[str]] = {}
        for row in rollouts:
            if row.document_id in documents:
                found.setdefault((row.step, row.document_id), []).append(row.completion)
        if not found:
            raise DataError(f"run={run.path}: the text of none of its documents is to be found; give docs.path=FILE")
        return task, [(documents[name], completions) for (_, name), completions in found.items()]
    for key in ("task", "docs.path", "completions"):
        if not values.get(key):
            raise ConfigError(f"{key}: has no value yet; give {key}=VALUE ({KEYS[key]}), or run=FOLDER")
    task = load_task(values["task"])
    max_bad = number_of(values, "max_bad", 0, int)
    known = {d.id: d for d in known_documents(values["docs.path"], max_bad)}
    return task, pair_up(known, read_completions(values["completions"], max_bad), values["completions"])


def _first(groups: Sequence[tuple[Document, list[str]]]) -> tuple[Document, str]:
    document, completions = groups[0]
    return document, completions[0]


def _time(rubric: Rubric, document: Document, completions: Sequence[str]) -> list[Timed]:
    found = []
    for sample, completion in enumerate(completions):
        walls, cpus = [], []
        for _ in range(2):  # the better of two: the other may have waited for another program
            wall, cpu = time.perf_counter(), time.thread_time()
            rubric.score(document, completion)
            walls.append(1e3 * (time.perf_counter() - wall))
            cpus.append(1e3 * (time.thread_time() - cpu))
        found.append(Timed(document, sample, completion, min(walls), min(cpus)))
    return found


def times(timed: Sequence[Timed], seconds: float, slowest: int) -> dict[str, Any]:
    """Percentiles of one completion scored alone, completions a second in their groups, and the slowest inputs."""
    result: dict[str, Any] = {"completions_per_second": len(timed) / seconds if seconds else None}
    for name in ("wall_ms", "cpu_ms"):
        values = [getattr(one, name) for one in timed]
        result[name] = {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
    result["slowest"] = [
        {
            "id": one.document.id,
            "sample": one.sample,
            "cpu_ms": one.cpu_ms,
            "wall_ms": one.wall_ms,
            "document_characters": len(one.document.text),
            "completion_characters": len(one.completion),
            "completion": one.completion[:200],
        }
        for one in sorted(timed, key=lambda one: -one.wall_ms)[:slowest]
    ]
    return result


def statistics_of(task: Task, scores: Sequence[Sequence[RubricScore]]) -> dict[str, Any]:
    """Rewards, gates, errors, groups, parts, correlations and fields of scored groups."""
    flat = [score for row in scores for score in row]
    known = [score for score in flat if score.status == "scored"]
    totals = [score.total for score in known]
    passed = [score for score in known if score.gate is None]
    names = [name for name, weight in task.rubric.rewards.items() if weight > 0]
    return {
        "reward": {"mean": mean(totals), "std": spread(totals) if totals else None},
        "errors": len(flat) - len(known),
        "error": next((score.error for score in flat if score.error is not None), None),
        "gates": {name: count / len(known) for name, count in Counter(s.gate for s in known if s.gate).items()},
        "spread": spread_of(scores),
        "parts": {name: part_of(task, name, scores, passed) for name in names},
        "correlation": {f"{a} ~ {b}": correlation(passed, a, b) for i, a in enumerate(names) for b in names[i + 1 :]},
        "fields": fields_of(passed),
    }


def spread_of(scores: Sequence[Sequence[RubricScore]]) -> dict[str, Any]:
    """Over the groups with two scored completions or more: how many cannot teach, and how far the others spread."""
    rows = [[score.total for score in row if score.status == "scored"] for row in scores]
    rows = [row for row in rows if len(row) > 1]
    return {
        "groups": len(rows),
        "zero_spread": share([max(row) - min(row) <= NO_SPREAD for row in rows]),
        "group_std": mean([spread(row) for row in rows]),
    }


def part_of(
    task: Task, name: str, scores: Sequence[Sequence[RubricScore]], passed: Sequence[RubricScore]
) -> dict[str, Any]:
    """One reward over the completions that passed the gates.

    abstained: share to which it does not apply.  at_1, at_0: shares of the others at either end.  group_std: mean
    standard deviation within a group.  with_reward: its correlation with the whole reward.
    """
    values = [value for score in passed if (value := score.parts.get(name)) is not None]
    within = [[v for s in row if s.gate is None and (v := s.parts.get(name)) is not None] for row in scores]
    pairs = [(score.parts[name], score.total) for score in passed if score.parts.get(name) is not None]
    return {
        "weight": task.rubric.rewards[name],
        "mean": mean(values),
        "abstained": share([score.parts.get(name) is None for score in passed]),
        "at_1": share([value >= 1.0 - 1e-9 for value in values]),
        "at_0": share([value <= 1e-9 for value in values]),
        "group_std": mean([spread(row) for row in within if len(row) > 1]),
        "with_reward": pearson([float(a or 0.0) for a, _ in pairs], [b for _, b in pairs]),
    }


def correlation(passed: Sequence[RubricScore], first: str, second: str) -> float | None:
    """Of two parts, over the completions to which both apply."""
    pairs = [(a, b) for s in passed if (a := s.parts.get(first)) is not None and (b := s.parts.get(second)) is not None]
    return pearson([a for a, _ in pairs], [b for _, b in pairs])


def fields_of(passed: Sequence[RubricScore]) -> dict[str, dict[str, Any]]:
    """Field -> its points when grounded: mean, share without a value, share left out of the score."""
    points: dict[str, list[float | None]] = {}
    empty: dict[str, list[bool]] = {}
    for score in passed:
        for check, finding in zip(score.checks, score.findings, strict=False):
            if check == "grounded" and finding.path:
                path = re.sub(r"\[\d+\]", "[]", finding.path)
                points.setdefault(path, []).append(finding.points)
                empty.setdefault(path, []).append(finding.value is None)
    return {
        path: {
            "points": mean([p for p in found if p is not None]),
            "null": share(empty[path]),
            "left_out": share([p is None for p in found]),
        }
        for path, found in points.items()
    }


def notes(result: dict[str, Any]) -> list[str]:
    """What an author should look at, in words."""
    found = []
    if result["errors"]:
        found.append(
            f"{result['errors']} of {result['completions']} completions could not be scored: {result['error']}"
        )
    zero = result["spread"]["zero_spread"]
    if zero is not None and zero > FLAT:
        found.append(f"{zero:.0%} of the groups have no spread: training learns nothing from them")
    for name, part in result["parts"].items():
        if part["abstained"] is not None and part["abstained"] > SILENT:
            found.append(f"{name} does not apply to {part['abstained']:.0%} of the completions")
        for end, key in (("1", "at_1"), ("0", "at_0")):
            if part[key] is not None and part[key] > SATURATED:
                found.append(f"{name} is {end} on {part[key]:.0%} of the completions: it tells few of them apart")
    for pair, value in result["correlation"].items():
        if value is not None and value > TWIN:
            found.append(f"{pair} say nearly the same (correlation {value:.2f})")
    return found


def cell(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _table(result: dict[str, Any]) -> None:
    print(f"{result['task']}: {result['completions']} completions in {result['groups']} groups")
    for name, about in (("cpu_ms", "CPU"), ("wall_ms", "wall clock")):
        at = result[name]
        print(f"  one alone, {about:10}  p50 {at['p50']:.2f} ms   p99 {at['p99']:.2f} ms   max {at['max']:.2f} ms")
    print(f"  in their groups        {cell(result['completions_per_second'], '.0f')} completions a second, one process")
    reward, within = result["reward"], result["spread"]
    print(f"\nreward  mean {cell(reward['mean'])}  std {cell(reward['std'])}", end="")
    print("".join(f"  failed at {gate} {part:.1%}" for gate, part in result["gates"].items()))
    flat = f"without spread {cell(within['zero_spread'], '.1%')} of {within['groups']}"
    print(f"within groups  std {cell(within['group_std'])}  {flat}")
    heads = ("weight", "mean", "abstain", "at 1", "at 0", "group std", "with reward")
    print(f"\n{'part':16}" + "".join(f"{head:>12}" for head in heads))
    for name, part in result["parts"].items():
        keys = ("weight", "mean", "abstained", "at_1", "at_0", "group_std", "with_reward")
        forms = ("g", ".3f", ".1%", ".1%", ".1%", ".3f", ".2f")
        print(f"{name[:15]:16}" + "".join(f"{cell(part[k], f):>12}" for k, f in zip(keys, forms, strict=True)))
    if any(value is not None for value in result["correlation"].values()):
        print("\ncorrelation of parts")
        for pair, value in result["correlation"].items():
            if value is not None:
                print(f"  {pair:32} {value:6.2f}")
    if result["fields"]:
        print(f"\n{'field':24}{'points':>10}{'null':>10}{'left out':>10}")
        for path, field in result["fields"].items():
            print(f"{path[:23]:24}{cell(field['points']):>10}{field['null']:>10.1%}{field['left_out']:>10.1%}")
    print("\nslowest")
    for one in result["slowest"]:
        print(
            f"  {one['wall_ms']:8.2f} ms  {one['id']} sample {one['sample']}: a document of "
            f"{one['document_characters']} characters, a completion of {one['completion_characters']}"
        )
    for note in result["notes"]:
        print(f"note: {note}")
