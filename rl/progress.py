"""What a person sees of a run: a live line in a terminal, plain lines elsewhere. On stderr: stdout is for results."""

import os
import sys
from collections.abc import Mapping
from typing import Any

SHOWN = {
    "reward/mean": ("reward", ".3f"),
    "rollout/completion_tokens_mean": ("tokens", ".0f"),
    "logprob_gap": ("gap", ".4f"),
    "grad_norm": ("norm", ".2f"),
    "seconds/total": ("seconds", ".1f"),
}
"""Metrics of the line of a step: short name and format."""
EVALUATED = {"reward": "reward", "documents_exact": "documents exact", "header_exact": "header exact"}


class Reporter:
    """Prints steps and evaluations."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self._live: Any = None
        self._task: Any = None
        plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        if sys.stderr.isatty() and not plain:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self._live = Progress(*columns, console=Console(stderr=True))
            self._live.start()
            self._task = self._live.add_task(name, total=steps, numbers="")

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        numbers = [f"{n} {metrics[k]:{f}}" for k, (n, f) in SHOWN.items() if metrics.get(k) is not None]
        if self._live is not None:
            self._live.update(self._task, completed=step, numbers="  ".join(numbers))
        else:
            self._line(f"step {step}/{self.steps}  " + "  ".join(numbers))

    def evaluation(self, step: int, summary: Mapping[str, Any]) -> None:
        numbers = []
        for key, name in EVALUATED.items():
            metric = summary.get(key)
            if isinstance(metric, Mapping) and metric.get("value") is not None:
                low, high = metric.get("ci95") or (None, None)
                interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
                numbers.append(f"{name} {metric['value']:.3f}{interval}")
        self._line(f"evaluation after step {step}  " + "  ".join(numbers))

    def warn(self, text: str) -> None:
        self._line(f"warning: {text}")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
