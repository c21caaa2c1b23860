"""The picture of the honesty study: what each score function says, and what gold says, by step."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.plots import BLUE, RED, smooth

COLORS = {"naive": RED, "full": BLUE}
NAMES = {"naive": "naive score", "full": "Offramp's rubric"}
FIELDS = {"f1/items[].amount": ("line items", "-"), "exact/date": ("date", (0, (4, 2)))}
"""Held-out metrics of the right panel: name and line style."""
Points = dict[int, list[float]]
"""Step -> one value a seed."""


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Two panels: the reward in training, and held-out truth; mean over seeds, and their extremes as a band."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.9), dpi=160)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.052, right=0.905, top=0.76, bottom=0.12, wspace=0.42)
    rewards, truth = figure.subplots(1, 2)
    seeds = len({line["seed"] for line in lines})
    steps = max(line["step"] for line in lines)
    for axis in (rewards, truth):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set(xlim=(0, steps), ylim=(0, 1.0))
        axis.set_xlabel("GRPO step", fontsize=9.5)
        axis.tick_params(labelsize=8.5)
    ends: dict[Any, list[tuple[float, str, str]]] = {rewards: [], truth: []}
    for rubric in ("full", "naive"):
        color = COLORS[rubric]
        own = [line for line in lines if line["rubric"] == rubric]
        by_seed = {
            seed: [x for x in own if x["seed"] == seed and x["kind"] == "train"] for seed in {x["seed"] for x in own}
        }
        points: Points = {}
        for train in by_seed.values():
            known = [line for line in train if line["reward/mean"] is not None]
            for line, value in zip(known, smooth([line["reward/mean"] for line in known], 0.7), strict=True):
                points.setdefault(line["step"], []).append(value)
        ends[rewards].append((_band(rewards, points, color, "-", marker=False), NAMES[rubric], color))
        for metric, (name, style) in FIELDS.items():
            points = {}
            for line in own:
                if line["kind"] == "eval" and metric in line:
                    points.setdefault(line["step"], []).append(line[metric]["value"])
            ends[truth].append((_band(truth, points, color, style, marker=True), f"{name}", color))
    for axis, labels in ends.items():
        for (_, text, color), height in zip(labels, _apart([value for value, _, _ in labels], 0.062), strict=True):
            axis.annotate(
                text,
                (steps, height),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                color=color,
                fontsize=9.5,
                fontweight="bold",
                annotation_clip=False,
            )
    rewards.set_title("What the reward says", fontsize=11.5, loc="left", fontweight="bold", pad=22)
    rewards.text(
        0,
        1.025,
        "mean reward of the attempts in training, by its own score function",
        transform=rewards.transAxes,
        fontsize=8.5,
        color="#475569",
    )
    truth.set_title("What is true", fontsize=11.5, loc="left", fontweight="bold", pad=22)
    truth.text(
        0,
        1.025,
        "held-out documents against gold that training never sees",
        transform=truth.transAxes,
        fontsize=8.5,
        color="#475569",
    )
    figure.text(
        0.052,
        0.945,
        "The same training under two score functions",
        fontsize=14,
        fontweight="bold",
        va="center",
    )
    figure.text(
        0.052,
        0.89,
        f"One starter, the same documents and trainer, two score functions; mean and range of {seeds} seeds",
        fontsize=9.5,
        color="#475569",
        va="center",
    )
    aside = path.with_name(path.name + ".part.png")
    figure.savefig(aside, metadata={"Software": None})
    os.replace(aside, path)


def _band(axis: Any, points: Points, color: str, style: Any, *, marker: bool) -> float:
    """Draws mean and extremes; the last mean."""
    steps = sorted(points)
    means = [statistics.fmean(points[step]) for step in steps]
    axis.fill_between(
        steps, [min(points[s]) for s in steps], [max(points[s]) for s in steps], color=color, alpha=0.14, linewidth=0
    )
    axis.plot(steps, means, color=color, linestyle=style, linewidth=2.2, marker="o" if marker else None, markersize=4)
    return means[-1]


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights, moved so that labels do not touch, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for low, high in itertools.pairwise(order):
        placed[high] = max(placed[high], placed[low] + least)
    over = max(0.0, placed[order[-1]] - 1.0) if order else 0.0
    return [height - over for height in placed]
