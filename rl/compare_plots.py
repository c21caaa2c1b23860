"""The plots of a comparison, from its summary: quality against cost, learning curves, bars by field."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.record import read_metrics

PALETTE = ("#2563eb", "#ea580c", "#16a34a", "#7c3aed", "#dc2626", "#0891b2", "#ca8a04", "#db2777", "#475569")
LINES = {"teacher": ("#0f172a", "--"), "best_trace": ("#64748b", ":"), "starter": ("#94a3b8", "-.")}


def draw(folder: Path, summary: Mapping[str, Any], runs: Mapping[str, Path]) -> dict[str, Path]:
    """Title -> PNG, those for which there is something to show."""
    folder.mkdir(parents=True, exist_ok=True)
    colors = {
        m: PALETTE[i % len(PALETTE)]
        for i, m in enumerate(m for m, e in summary["methods"].items() if e["documents"] is not None)
    }
    drawn = {
        "Quality against cost": _cost(folder / "quality_cost.png", summary, colors),
        "By field": _fields(folder / "fields.png", summary, colors),
        "Learning curves by step": _steps(folder / "curves_steps.png", summary, colors, runs),
        "Learning curves by documents": _documents(folder / "curves_documents.png", summary, colors),
    }
    return {title: path for title, path in drawn.items() if path is not None}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.tick_params(labelsize=9)
    return figure, axis


def _save(figure: Any, path: Path) -> Path:
    aside = path.with_name(path.stem + ".part.png")
    figure.savefig(aside, metadata={"Software": None})
    os.replace(aside, path)
    return path


def _reference_lines(axis: Any, summary: Mapping[str, Any], metric: str) -> None:
    """Teacher's, best trace's and starter's own score."""
    for name, (color, style) in LINES.items():
        value = (summary["methods"].get(name, {}).get(metric) or {}).get("value")
        if value is not None:
            label = f"{name.replace('_', ' ')} {value:.3f}"
            axis.axhline(value, color=color, linestyle=style, linewidth=1.2, label=label, zorder=1)


def _bounds(metric: Mapping[str, Any]) -> tuple[float, float]:
    low, high = metric["ci95"]
    return max(metric["value"] - low, 0.0), max(high - metric["value"], 0.0)


def _cost(path: Path, summary: Mapping[str, Any], colors: Mapping[str, str]) -> Path | None:
    metric = summary["metric"]
    points = [(m, e) for m, e in summary["methods"].items() if m in colors and metric in e]
    if not points:
        return None
    from matplotlib.transforms import ScaledTranslation

    money = any(e["cost"].get("money") for _, e in points)
    costs = [e["cost"].get("money", 0.0) if money else e["cost"].get("seconds_training", 0.0) / 60 for _, e in points]
    figure, axis = _figure(7.2, 4.6)
    _reference_lines(axis, summary, metric)
    for i, (name, entry) in enumerate(points):
        near = [j for j, cost in enumerate(costs) if abs(cost - costs[i]) <= 0.05 * max(cost, costs[i])]
        aside = (near.index(i) - (len(near) - 1) / 2) * 5 / 72  # inches: rows of one cost stand side by side
        below, above = _bounds(entry[metric])
        axis.errorbar(
            costs[i],
            entry[metric]["value"],
            [[below], [above]],
            fmt="o",
            color=colors[name],
            capsize=3,
            label=name,
            zorder=3,
            transform=axis.transData + ScaledTranslation(aside, 0, figure.dpi_scale_trans),
        )
    if money and min(costs) > 0 and max(costs) > 30 * min(costs):
        axis.set_xscale("log")
        axis.set_xlim(min(costs) / 2, max(costs) * 2)
    else:
        axis.set_xlim(0, 1.08 * max(costs) or 1.0)
    lines = [e for m, e in summary["methods"].items() if m in LINES and metric in e]
    ends = [end for _, e in points for end in e[metric]["ci95"]] + [e[metric]["value"] for e in lines]
    axis.set_ylim(min(ends) - 0.02, max(ends) + 0.02)
    what = "cost of labels, teacher and training, in the money of config.json" if money else "training, minutes"
    axis.set_xlabel(f"{what};\nrows of one cost stand side by side")
    axis.set_ylabel(metric)
    axis.set_title(f"{metric} on the test documents against cost", loc="left", fontsize=11, fontweight="bold")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def _fields(path: Path, summary: Mapping[str, Any], colors: Mapping[str, str]) -> Path | None:
    methods = [(m, e) for m, e in summary["methods"].items() if m in colors or m in LINES]
    # A scalar field is right or not; the fields of rows are shown by F1.
    names = [k for k in methods[0][1] if k.startswith("exact/") and "[]" not in k]
    names += [k for k in methods[0][1] if k.startswith("f1/") and "[]" in k]
    names = [n for n in names if all(n in e for _, e in methods)]
    if not names:
        return None
    figure, axis = _figure(max(7.2, 1.35 * len(names) + 1), 4.6)
    width = 0.84 / len(methods)
    for i, (name, entry) in enumerate(methods):
        values = [entry[n]["value"] for n in names]
        errors = [[_bounds(entry[n])[side] for n in names] for side in (0, 1)]
        places = [x - 0.42 + (i + 0.5) * width for x in range(len(names))]
        color = colors.get(name) or LINES[name][0]
        axis.bar(places, values, width * 0.92, color=color, alpha=0.85, label=name.replace("_", " "))
        axis.errorbar(places, values, errors, fmt="none", ecolor="#0f172a", elinewidth=0.8, capsize=1.5)
    axis.set_xticks(range(len(names)), [n.replace("exact/", "").replace("f1/", "F1 ") for n in names])
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("share exact, or F1")
    axis.set_title("By field, with 95 % intervals", loc="left", fontsize=11, fontweight="bold")
    axis.legend(fontsize=8, frameon=False, ncols=min(len(methods), 5), loc="upper center", bbox_to_anchor=(0.5, -0.09))
    return _save(figure, path)


def _steps(path: Path, summary: Mapping[str, Any], colors: Mapping[str, str], runs: Mapping[str, Path]) -> Path | None:
    """The selection documents' reward (or metric) by update: every seed a line, at the largest size."""
    lines: list[tuple[str, list[int], list[float]]] = []
    metric = "reward"
    for method, entry in summary["methods"].items():
        if method not in colors or "@" in method:
            continue
        start = f"{method}-{entry['documents']}-s"
        for name, folder in runs.items():
            if name.startswith(start):
                points = [(e["step"], e[metric]["value"]) for e in _evaluations(folder) if metric in e]
                if points:
                    lines.append((method, [p[0] for p in points], [p[1] for p in points]))
    if not lines:
        return None
    figure, axis = _figure(7.2, 4.6)
    told: set[str] = set()
    for method, steps, values in lines:
        label = method if method not in told else None
        told.add(method)
        axis.plot(steps, values, color=colors[method], marker="o", markersize=3, linewidth=1.5, alpha=0.9, label=label)
    axis.set_xlabel("update")
    axis.set_ylabel("reward, greedy")
    axis.set_title("Reward on the selection documents by update", loc="left", fontsize=11, fontweight="bold")
    axis.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder) if line["kind"] == "eval"]


def _documents(path: Path, summary: Mapping[str, Any], colors: Mapping[str, str]) -> Path | None:
    metric = summary["metric"]
    sizes = sorted({e["documents"] for e in summary["curve"]})
    if len(sizes) < 2:
        return None
    figure, axis = _figure(7.2, 4.6)
    _reference_lines(axis, summary, metric)
    for method, color in colors.items():
        points: Sequence[Mapping[str, Any]] = sorted(
            (e for e in summary["curve"] if e["method"] == method and metric in e), key=lambda e: e["documents"]
        )
        x, y = [e["documents"] for e in points], [e[metric]["value"] for e in points]
        axis.plot(x, y, color=color, marker="o", markersize=4, linewidth=1.6, label=method)
        low, high = [e[metric]["ci95"][0] for e in points], [e[metric]["ci95"][1] for e in points]
        axis.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks(sizes, [str(s) for s in sizes])
    axis.minorticks_off()
    axis.set_xlabel("training documents")
    axis.set_ylabel(metric)
    axis.set_title(f"{metric} by number of training documents", loc="left", fontsize=11, fontweight="bold")
    axis.legend(fontsize=8, frameon=False)
    return _save(figure, path)
