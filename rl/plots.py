"""The curves of a run as one picture: <run>/plots/curves.png."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREEN, RED, GREY = "#2563eb", "#ea580c", "#16a34a", "#dc2626", "#94a3b8"
PHASES = {"sample": BLUE, "score": GREEN, "update": ORANGE, "load": RED, "rest": GREY}


def draw(run_dir: str | Path) -> Path | None:
    """Draw metrics.jsonl; None when it has no lines yet. Written aside and renamed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rl.record import read_metrics

    run_dir = Path(run_dir)
    lines = list(read_metrics(run_dir))
    train = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    if not lines:
        return None
    # Not pyplot: it keeps global state and looks for a display.
    figure = Figure(figsize=(13, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flatten()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)

    reward, exact, parts, length, gap, seconds = axes
    _title(reward, "Reward")
    _curve(reward, train, "reward/mean", BLUE, "training, mean of the step")
    _evaluated(reward, evaluations, "reward", ORANGE, "held out, greedy")
    _unit(reward)

    _title(exact, "Held-out documents, share exact")
    _evaluated(exact, evaluations, "documents_exact", GREEN, "every field")
    _evaluated(exact, evaluations, "header_exact", BLUE, "vendor, date and total")
    _unit(exact)

    _title(parts, "Parts of the reward, unweighted")
    names = sorted({key for line in train for key in line if key.startswith("reward/part/")})
    palette = [BLUE, ORANGE, GREEN, RED, "#7c3aed", "#0891b2", "#ca8a04", "#db2777"]
    for index, name in enumerate(names):
        _curve(parts, train, name, palette[index % len(palette)], name.removeprefix("reward/part/"), raw=False)
    _unit(parts)

    _title(length, "Completion length, tokens")
    _curve(length, train, "rollout/completion_tokens_mean", BLUE, "mean of the step")
    length.set_ylim(bottom=0)

    _title(gap, "Sampler against trainer, nats a token")
    _curve(gap, train, "logprob_gap", RED, "mean |log-probability gap|", raw=False)
    gap.set_ylim(bottom=0)

    _title(seconds, "Seconds a step")
    steps = [line["step"] for line in train]
    stacks = [[line.get(f"seconds/{phase}") or 0.0 for line in train] for phase in PHASES]
    if steps:
        seconds.stackplot(steps, *stacks, labels=list(PHASES), colors=list(PHASES.values()), alpha=0.85)
        seconds.set_ylim(0, 1.2 * max(map(sum, zip(*stacks, strict=True)), default=1.0) or 1.0)
        seconds.legend(fontsize=8, frameon=False, loc="upper center", ncols=len(PHASES), columnspacing=1.0)

    for axis in axes[:-1]:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False, loc="best")
    figure.suptitle(run_dir.name, fontsize=12, fontweight="bold", x=0.01, ha="left")
    path = run_dir / "plots" / "curves.png"
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name("curves.part.png")
    figure.savefig(aside, metadata={"Software": None})
    os.replace(aside, path)
    return path


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average without the pull towards zero at the start (the correction of Adam)."""
    average, out = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        out.append(average / (1 - weight**count))
    return out


def _curve(axis: Any, lines: Sequence[Mapping[str, Any]], key: str, color: str, label: str, raw: bool = True) -> None:
    """A smoothed line, with the values themselves behind it."""
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if raw:
        axis.plot(steps, values, color=color, alpha=0.25, linewidth=1)
    axis.plot(steps, smooth(values), color=color, linewidth=1.8, label=label, marker="o" if len(points) == 1 else None)


def _evaluated(axis: Any, lines: Sequence[Mapping[str, Any]], key: str, color: str, label: str) -> None:
    """Points with their 95 % intervals."""
    points = [(line["step"], line[key]) for line in lines if (line.get(key) or {}).get("value") is not None]
    if not points:
        return
    steps = [step for step, _ in points]
    values = [metric["value"] for _, metric in points]
    axis.plot(steps, values, color=color, linewidth=1.8, marker="o", markersize=4, label=label)
    intervals = [metric.get("ci95") or [metric["value"]] * 2 for _, metric in points]
    if all(None not in interval for interval in intervals):
        low, high = zip(*intervals, strict=True)
        axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def _title(axis: Any, text: str) -> None:
    axis.set_title(text, fontsize=10, loc="left", fontweight="bold")


def _unit(axis: Any) -> None:
    axis.set_ylim(-0.02, 1.02)
