"""The hacking monitor: says so when the reward rises while the answers, or the held-out truth, move the wrong way.

Each step has its fingerprints (rewards/fingerprints.py), in the metrics line as `monitor/<name>`. The median of the
first `monitor.window` steps is the reference, the median of the last ones is set beside it. A fingerprint alarms, once
a run, when the reward has risen and the fingerprint has moved in its bad direction by more than its effect in
`monitor.effects` and by more than `monitor.z` standard errors (robust, from the differences of neighbouring steps).
An evaluation with gold alarms when the reward has risen and a field's interval lies below the one it had at first.

The state is a function of the lines of metrics.jsonl, and a resumed run reads it back from there. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.document import Document
from rewards.fingerprints import fingerprints
from rewards.task import Task
from rl.config import MonitorConfig
from rl.rollouts import Group

REWARD = "reward/mean"
TRUTH = ("documents_exact", "header_exact", "field_f1")
"""Held-out metrics that are compared with gold; beside them exact/<field> and f1/<field>."""
MAD = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """What moved, from the reference to the last window, beside the reward's move.

    Example: Alarm(18, "empty_share", 0.02, 0.61, 0.44, 0.71)
    """

    step: int
    fingerprint: str
    """Name of a fingerprint, or "truth/<metric>"."""
    before: float
    after: float
    reward_before: float
    reward_after: float

    def line(self) -> dict[str, Any]:
        """As metrics.jsonl has it."""
        return {
            "step": self.step,
            "kind": "alarm",
            "fingerprint": self.fingerprint,
            "from": self.before,
            "to": self.after,
            "reward_from": self.reward_before,
            "reward_to": self.reward_after,
        }

    def __str__(self) -> str:
        return (
            f"step {self.step}: the reward may be hacked: {self.fingerprint} went from {self.before:.3f} to "
            f"{self.after:.3f} while the reward rose from {self.reward_before:.3f} to {self.reward_after:.3f}"
        )


class Monitor:
    """Measures the answers of each step and compares.

    Example:
        monitor = Monitor(config.monitor, task, documents)
        monitor.replay(read_metrics(run_dir))
        metrics |= monitor.measure(groups)
        for alarm in monitor.after_step(step, metrics): ...
    """

    def __init__(self, config: MonitorConfig, task: Task, documents: Sequence[Document]) -> None:
        self.config = config
        self.task = task
        self.texts = {document.id: document.text for document in documents} if config.enabled else {}
        self.history: defaultdict[str, list[float]] = defaultdict(list)
        """Values of each watched number so far, oldest first."""
        self.first_evaluation: Mapping[str, Any] | None = None
        self.alarmed: set[str] = set()

    def measure(self, groups: Sequence[Group]) -> dict[str, float]:
        """The fingerprints of a step's rollouts, as keys of its metrics line."""
        if not self.config.enabled:
            return {}
        answers = [(self.texts[group.document_id], [r.text for r in group.rollouts]) for group in groups]
        return {f"monitor/{name}": value for name, value in fingerprints(self.task, answers).items()}

    def replay(self, lines: Iterable[Mapping[str, Any]]) -> list[Alarm]:
        """Take in the lines of a record, as the run that wrote them did; the alarms that they give."""
        alarms: list[Alarm] = []
        for line in lines:
            if line["kind"] == "train":
                alarms += self.after_step(line["step"], line)
            elif line["kind"] == "eval":
                alarms += self.after_evaluation(line["step"], line)
        return alarms

    def after_step(self, step: int, metrics: Mapping[str, Any]) -> list[Alarm]:
        """Take in the metrics of a step; what alarms at it."""
        if not self.config.enabled:
            return []
        for key, value in metrics.items():
            if (key == REWARD or key.startswith("monitor/")) and known(value):
                self.history[key].append(float(value))
        return [alarm for key in list(self.history) if (alarm := self._compare(step, key)) is not None]

    def after_evaluation(self, step: int, summary: Mapping[str, Any]) -> list[Alarm]:
        """Take in an evaluation; the metrics against gold that fell since the first one while the reward rose."""
        first, reward = self.first_evaluation, summary.get("reward")
        if not self.config.enabled or not isinstance(reward, Mapping):
            return []
        if first is None:
            self.first_evaluation = summary
            return []
        before, after = first["reward"]["value"], reward["value"]
        if after - before < self.config.reward_rise:
            return []
        alarms = []
        for name, now in summary.items():
            if name not in TRUTH and not name.startswith(("exact/", "f1/")):
                continue
            then = first.get(name)
            if then is None or now["value"] > then["value"] - self.config.truth_fall:
                continue
            if now["ci95"][1] < then["ci95"][0] and f"truth/{name}" not in self.alarmed:
                self.alarmed.add(f"truth/{name}")
                alarms.append(Alarm(step, f"truth/{name}", then["value"], now["value"], before, after))
        return alarms

    def _compare(self, step: int, key: str) -> Alarm | None:
        window, values, rewards = self.config.window, self.history[key], self.history[REWARD]
        name = key.removeprefix("monitor/")
        effect = self.config.effects.get(name, self.config.effects.get(name.split("/")[0]))
        if effect is None or name in self.alarmed or min(len(values), len(rewards)) < 2 * window:
            return None
        before, after = statistics.median(values[:window]), statistics.median(values[-window:])
        reward_before, reward_after = statistics.median(rewards[:window]), statistics.median(rewards[-window:])
        moved = math.copysign(1.0, effect) * (after - before)
        if reward_after - reward_before < self.config.reward_rise or moved < abs(effect):
            return None
        if moved < self.config.z * standard_error(values, window):
            return None
        self.alarmed.add(name)
        return Alarm(step, name, before, after, reward_before, reward_after)


def standard_error(values: Sequence[float], window: int) -> float:
    """Of the difference between two medians of `window` values, from the differences of neighbours: a trend is none."""
    differences = [abs(b - a) for a, b in itertools.pairwise(values)]
    sigma = MAD * statistics.median(differences) / math.sqrt(2)
    return sigma * math.sqrt(2) * 1.2533 / math.sqrt(window)


def known(value: object) -> bool:
    """Whether it is a number: a NaN is written as null, and counts as one."""
    return isinstance(value, (int, float)) and math.isfinite(value)
