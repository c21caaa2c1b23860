"""offramp replay: a run's rollouts under another rubric, and what that would have taught. No torch, no GPU."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launch.numbers import kendall, mean, share, sign, spearman
from launch.rollouts import Recorded, RunFolder, choose_steps, documents_of, find_run, read_rollouts
from launch.score import number_of, read_keys
from rewards.errors import DataError
from rewards.explain import plain
from rewards.pool import RewardPool
from rewards.rubric import RubricScore

KEYS = {
    "run": "a run's folder, such as runs/demo",
    "task": "a task file or a name in configs/task (the run's own)",
    "rubric": "a name in configs/rubric, or a file with gates, rewards and abstain, instead of the task's",
    "rewards": "weights instead of the rubric's: grounded:4,covers:1",
    "step": "12, 10-20 or last (all)",
    "docs.path": "documents, JSON lines (what the run recorded, or its configuration names)",
    "show": "disagreements to show (5)",
    "workers": "processes that score (1)",
    "deadline_s": "seconds for one document's completions (10)",
}
EPSILON = 1e-4
MIN_SPREAD = 1e-6
"""Both as in rl/advantages.py, which needs torch."""
BLANK = 1e-3  # an advantage closer to 0 than this pushes nowhere


@dataclass(frozen=True, slots=True)
class Pair:
    """One rollout, as recorded and as scored now; rewards and advantages under either."""

    row: Recorded
    score: RubricScore
    before: float | None
    after: float | None
    advantage_before: float
    advantage_after: float


def replay(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """Rank changes within groups, changes of advantages and parts, and the biggest disagreements."""
    values = read_keys("replay", args, KEYS, required=("run",))
    if values is None:
        return None
    run = find_run(values["run"])
    task = run.task(values.get("task"), values.get("rubric"), values.get("rewards"))
    rollouts = read_rollouts(run, choose_steps(run, values.get("step")))
    documents = documents_of(run, rollouts, task, values.get("docs.path"))
    groups: dict[tuple[int, str], list[Recorded]] = {}
    for row in rollouts:
        groups.setdefault((row.step, row.document_id), []).append(row)
    known = [group for (_, name), group in groups.items() if name in documents]
    if not known:
        raise DataError(f"run={run.path}: the text of none of its documents is to be found; give docs.path=FILE")
    pairs = [(documents[group[0].document_id], [row.completion for row in group]) for group in known]
    with RewardPool(task, number_of(values, "workers", 1, int), number_of(values, "deadline_s", 10.0, float)) as pool:
        scores = pool.score(pairs)
    kind, scale = method_of(run)
    compared = compare(known, scores, kind, scale)
    result = {
        "run": str(run.path),
        "task": task.name,
        "rewards": dict(task.rubric.rewards),
        "steps": len({group[0].step for group in known}),
        "rollouts": sum(map(len, known)),
        "without_document": len(rollouts) - sum(map(len, known)),
        **summary(compared, kind, scale),
        "disagreements": disagreements(compared, number_of(values, "show", 5, int)),
    }
    _table(result)
    return result


def method_of(run: RunFolder) -> tuple[str, str]:
    """(method.kind, method.scale_rewards) of the run. Raises DataError."""
    method = run.config.get("method")
    if not isinstance(method, dict) or not {"kind", "scale_rewards"} <= method.keys():
        raise DataError(f"{run.path / 'config.json'}: method: names no kind and scale_rewards")
    return str(method["kind"]), str(method["scale_rewards"])


def advantages(rows: Sequence[Sequence[float | None]], kind: str, scale: str) -> list[list[float]]:
    """One step's rewards by group, None where the scoring failed, to advantages: rl/advantages.py without torch."""
    leave_one_out = kind == "rloo"
    centred: list[list[float | None]] = []
    for row in rows:
        known = [value for value in row if value is not None]
        middle = mean(known) or 0.0
        # The mean of the others lies n / (n - 1) times as far from a value as the mean of all.
        stretch = (len(known) / (len(known) - 1) if len(known) > 1 else 0.0) if leave_one_out else 1.0
        centred.append([None if value is None else stretch * (value - middle) for value in row])
    everything = [value for row in (centred if leave_one_out else rows) for value in row if value is not None]
    if leave_one_out and scale == "batch":
        middle = mean(everything) or 0.0
        centred = [[None if value is None else value - middle for value in row] for row in centred]
    found = []
    for row, own in zip(rows, centred, strict=True):
        values = everything if scale == "batch" else [value for value in row if value is not None]
        width = 1.0 if scale == "none" else statistics.stdev(values) + EPSILON if len(values) > 1 else math.inf
        found.append([0.0 if value is None else value / width for value in own])
    return found


def compare(
    groups: Sequence[Sequence[Recorded]], scores: Sequence[Sequence[RubricScore]], kind: str, scale: str
) -> list[list[Pair]]:
    """Each group's rollouts beside what they score now; advantages are worked out step by step."""
    before = [[row.reward for row in group] for group in groups]
    after = [[score.total if score.status == "scored" else None for score in row] for row in scores]
    steps: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        steps.setdefault(group[0].step, []).append(i)
    old: dict[int, list[float]] = {}
    new: dict[int, list[float]] = {}
    for members in steps.values():
        old |= zip(members, advantages([before[i] for i in members], kind, scale), strict=True)
        new |= zip(members, advantages([after[i] for i in members], kind, scale), strict=True)
    return [
        [Pair(*parts) for parts in zip(group, scores[i], before[i], after[i], old[i], new[i], strict=True)]
        for i, group in enumerate(groups)
    ]


def summary(groups: Sequence[Sequence[Pair]], kind: str, scale: str) -> dict[str, Any]:
    """The numbers over all rollouts that were scored both times."""
    flat = [pair for group in groups for pair in group]
    both = [(pair.before, pair.after) for pair in flat if pair.before is not None and pair.after is not None]
    pushed = [p for p in flat if max(abs(p.advantage_before), abs(p.advantage_after)) > BLANK]
    flips = [sign(p.advantage_before, BLANK) * sign(p.advantage_after, BLANK) < 0 for p in pushed]
    return {
        "compared": len(both),
        "errors": {"recorded": sum(p.before is None for p in flat), "replayed": sum(p.after is None for p in flat)},
        "error": next((p.score.error for p in flat if p.score.error is not None), None),
        "reward": {
            "recorded": mean([a for a, _ in both]),
            "replayed": mean([b for _, b in both]),
            "mean_abs_change": mean([abs(a - b) for a, b in both]),
            "changed": share([abs(a - b) > 1e-9 for a, b in both]),
        },
        "gates": {
            "recorded": dict(Counter(p.row.gate for p in flat if p.row.gate)),
            "replayed": dict(Counter(p.score.gate for p in flat if p.score.gate)),
        },
        "ranks": ranks_of(groups),
        "advantages": {
            "method": kind,
            "scale_rewards": scale,
            "mean_abs": {
                "recorded": mean([abs(p.advantage_before) for p in flat]),
                "replayed": mean([abs(p.advantage_after) for p in flat]),
            },
            "mean_abs_change": mean([abs(p.advantage_before - p.advantage_after) for p in flat]),
            "sign_flips": share(flips),
        },
        "parts": parts_of(flat),
    }


def ranks_of(groups: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """Within groups: Kendall's tau-b and Spearman's rho, the share whose best rollout stays (one of) the best."""
    found: dict[str, list[float]] = {"kendall": [], "spearman": []}
    same: list[bool] = []
    flat_before: list[bool] = []
    flat_after: list[bool] = []
    for group in groups:
        rows = [(p.before, p.after) for p in group if p.before is not None and p.after is not None]
        if len(rows) < 2:
            continue
        before, after = [a for a, _ in rows], [b for _, b in rows]
        flat_before.append(max(before) - min(before) <= MIN_SPREAD)
        flat_after.append(max(after) - min(after) <= MIN_SPREAD)
        for name, value in (("kendall", kendall(before, after)), ("spearman", spearman(before, after))):
            if value is not None:
                found[name].append(value)
        if not (flat_before[-1] and flat_after[-1]):
            best = {i for i, value in enumerate(before) if value >= max(before) - MIN_SPREAD}
            same.append(any(after[i] >= max(after) - MIN_SPREAD for i in best))
    return {
        "groups": len(flat_before),
        "compared": len(found["kendall"]),
        **{name: mean(values) for name, values in found.items()},
        "same_best": share(same),
        "zero_spread": {"recorded": share(flat_before), "replayed": share(flat_after)},
    }


def parts_of(flat: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Each part under either rubric; mean absolute change where both have a value."""
    names = dict.fromkeys([name for p in flat for name in (*p.score.parts, *p.row.parts)])
    found = {}
    for name in names:
        before = [p.row.parts.get(name) for p in flat]
        after = [p.score.parts.get(name) for p in flat]
        both = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        found[name] = {
            "recorded": mean([a for a in before if a is not None]),
            "replayed": mean([b for b in after if b is not None]),
            "mean_abs_change": mean([abs(a - b) for a, b in both]),
        }
    return found


def disagreements(groups: Sequence[Sequence[Pair]], count: int) -> list[dict[str, Any]]:
    """The rollouts whose advantage changes most, at most one of a group, with the reasons that the rubric now gives."""
    worst = [max(group, key=lambda p: abs(p.advantage_before - p.advantage_after)) for group in groups]
    worst = [p for p in worst if abs(p.advantage_before - p.advantage_after) > BLANK]
    worst.sort(key=lambda p: -abs(p.advantage_before - p.advantage_after))
    return [
        {
            "step": p.row.step,
            "id": p.row.document_id,
            "sample": p.row.sample,
            "reward": {"recorded": p.before, "replayed": p.after},
            "advantage": {"recorded": p.advantage_before, "replayed": p.advantage_after},
            "parts": {
                name: {"recorded": p.row.parts.get(name), "replayed": p.score.parts.get(name)}
                for name in dict.fromkeys((*p.row.parts, *p.score.parts))
                if p.row.parts.get(name) != p.score.parts.get(name)
            },
            "why": [
                f"{check} {finding.path or 'whole'}: {finding.why}"
                for check, finding in zip(p.score.checks, p.score.findings, strict=False)
                if finding.points is not None and finding.points < 0.5
            ][:5],
            "completion": p.row.completion,
        }
        for p in worst[:count]
    ]


def _table(result: dict[str, Any]) -> None:
    def cell(value: float | None, form: str = ".3f") -> str:
        return "-" if value is None else format(value, form)

    reward, ranks, advantage = result["reward"], result["ranks"], result["advantages"]
    print(f"{result['run']}: {result['rollouts']} rollouts of {result['steps']} steps, under {result['task']}")
    print(f"\n{'':18}{'recorded':>10}{'replayed':>10}{'mean |change|':>15}")
    rows = [("reward", reward)] + [(f"  {name}"[:17], part) for name, part in result["parts"].items()]
    for name, row in rows:
        print(
            f"{name:18}" + f"{cell(row['recorded']):>10}{cell(row['replayed']):>10}{cell(row['mean_abs_change']):>15}"
        )
    size = advantage["mean_abs"]
    numbers = f"{cell(size['recorded']):>10}{cell(size['replayed']):>10}{cell(advantage['mean_abs_change']):>15}"
    print(f"{'mean |advantage|':18}{numbers}")
    flat = ranks["zero_spread"]
    print(f"{'without spread':18}{cell(flat['recorded'], '.1%'):>10}{cell(flat['replayed'], '.1%'):>10}")
    for gate in dict.fromkeys((*result["gates"]["recorded"], *result["gates"]["replayed"])):
        counts = [result["gates"][when].get(gate, 0) for when in ("recorded", "replayed")]
        print(f"{'failed at ' + gate:18}{counts[0]:>10}{counts[1]:>10}")
    orders = f"Kendall {cell(ranks['kendall'])}, Spearman {cell(ranks['spearman'])}"
    print(f"\nranks within {ranks['compared']} groups: {orders}")
    print(f"the best rollout stays the best in {cell(ranks['same_best'], '.1%')} of the groups with spread")
    print(f"advantages ({advantage['method']}): {cell(advantage['sign_flips'], '.1%')} change their sign")
    if any((lost := result["errors"]).values()):
        print(f"not scored: {lost['recorded']} recorded, {lost['replayed']} now: {result['error']}")
    if result["without_document"]:
        print(f"left out, without a document: {result['without_document']}")
    for one in result["disagreements"]:
        print(f"\nstep {one['step']}, {one['id']}, sample {one['sample']}", end="")
        for name in ("reward", "advantage"):
            print(f"   {name} {cell(one[name]['recorded'])} → {cell(one[name]['replayed'])}", end="")
        print(f"\n  {plain(one['completion'], 160)}")
        changes = (
            f"{name} {cell(v['recorded'], '.2f')} → {cell(v['replayed'], '.2f')}" for name, v in one["parts"].items()
        )
        print("  " + ", ".join(changes))
        for why in one["why"]:
            print(f"  {plain(why, 140)}")
    if result["disagreements"]:
        one = result["disagreements"][0]
        where = f"run={result['run']} step={one['step']} id={one['id']} sample={one['sample']}"
        print(f"\nlook closer: offramp explain {where}")
