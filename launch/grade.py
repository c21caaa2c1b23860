"""offramp grade: the rubric as judge of completions that are there already, and its risk-coverage curve over gold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.score import known_documents, number_of, pair_up, read_completions, read_keys
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.fields import FieldReport, compare
from rewards.grade import Graded, RiskCoverage, confidence, doubted, grade, review_order, risk_coverage, table
from rewards.task import Task, load_task, nearest

KEYS = {
    "task": "a name in configs/task, or a task file",
    "docs.path": "documents, JSON lines; their gold, where there is any, is only compared with, never scored with",
    "completions": 'JSON lines of {"id": ..., "completion": ...}; traces will do',
    "field": "the field whose answers are judged: a path such as total, header or document (header; document without)",
    "accept": "the confidence from which an answer is accepted (0.8)",
    "aside": "fields whose own faults make no answer doubted, with commas between: items[].name",
    "coverage": "the share of answers at which precision is reported (0.75)",
    "precision": "the precision for which the largest coverage is reported (0.98)",
    "output": "a folder for graded.jsonl (the review queue), and with gold curve.json and curve.png",
    "queue": "how many of the least sure answers are printed (5)",
    "max_bad": "bad lines tolerated in each file (0)",
}


def run(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """The table, the share accepted, the head of the review queue; with gold, the curve."""
    values = read_keys("grade", args, KEYS, required=("task", "docs.path", "completions"))
    if values is None:
        return None
    task = load_task(values["task"])
    max_bad = number_of(values, "max_bad", 0, int)
    shares = {key: _share(values, key, default) for key, default in (("coverage", 0.75), ("precision", 0.98))}
    accept = _share(values, "accept", 0.8)
    documents = {d.id: d for d in known_documents(values["docs.path"], max_bad)}
    pairs = pair_up(documents, read_completions(values["completions"], max_bad), values["completions"])
    flat = [(document, completion) for document, completions in pairs for completion in completions]
    wanted = _field(values, task)
    aside = _aside(values, task)
    fields = None if wanted in ("header", "document") else [wanted]
    attempts = grade(flat, task)
    result = table(attempts, accept)
    result["field"] = wanted
    result["accepted"] = sum(confidence(a, fields) >= accept for a in attempts) / len(attempts)
    result["doubted"] = sum(doubted(a, aside) for a in attempts)
    judged = _judged(task, flat, attempts, wanted)
    curve = None
    if judged:
        curve = risk_coverage([confidence(a, fields) for a, _ in judged], [right for _, right in judged])
        result |= _numbers(curve, accept, shares["coverage"], shares["precision"])
    _print(result)
    queue = review_order(attempts, fields)
    for entry in queue[: number_of(values, "queue", 5, int)]:
        print(f"review {entry.attempt.document}  {entry.confidence:.3f}  {'; '.join(entry.reasons[:2])}")
    if values.get("output"):
        folder = _folder(values["output"])
        with (folder / "graded.jsonl").open("w", encoding="utf-8") as file:
            for entry in queue:
                row = {
                    "id": entry.attempt.document,
                    "confidence": round(entry.confidence, 6),
                    "reward": round(entry.attempt.score.total, 6),
                    "accepted": entry.confidence >= accept,
                    "doubted": doubted(entry.attempt, aside),
                    "reasons": entry.reasons,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if curve is not None:
            write_curve(folder, curve, result)
        result["output"] = str(folder)
    return result


def _share(values: dict[str, str], key: str, default: float) -> float:
    number: float = number_of(values, key, default, float)
    if number > 1:
        raise ConfigError(f"{key}={values[key]}: must be at most 1")
    return number


def _field(values: dict[str, str], task: Task) -> str:
    heads = [path for path, spec in task.fields.items() if spec.expected == "always" and "[]" not in path]
    wanted = values.get("field") or ("header" if heads else "document")
    known = ["header", "document", *(path for path in task.fields if "[]" not in path)]
    if wanted not in known:
        raise ConfigError(f"field={wanted}: no field outside arrays{nearest(wanted, known)}")
    return wanted


def _aside(values: dict[str, str], task: Task) -> list[str]:
    names = [name.strip() for name in values.get("aside", "").split(",") if name.strip()]
    for name in names:
        if name not in task.fields:
            raise ConfigError(f"aside={name}: no field of the task{nearest(name, list(task.fields))}")
    return names


def _judged(
    task: Task, flat: Sequence[tuple[Document, str]], attempts: Sequence[Graded], wanted: str
) -> list[tuple[Graded, bool]]:
    """The attempts whose truth is known, and whether they are right."""
    truth: dict[str, Callable[[FieldReport], bool | None]] = {
        "header": lambda report: report.header_exact,
        "document": lambda report: report.document_exact,
    }

    def by_field(report: FieldReport) -> bool | None:
        counts = report.fields.get(wanted)
        return counts.exact if counts is not None and counts.tp + counts.fn > 0 else None

    right_of = truth.get(wanted, by_field)
    found = []
    for (document, _), attempt in zip(flat, attempts, strict=True):
        if document.gold is not None:
            right = right_of(compare(task, attempt.value, document.gold))
            if right is not None:
                found.append((attempt, right))
    return found


def _numbers(curve: RiskCoverage, accept: float, coverage: float, precision: float) -> dict[str, Any]:
    at, best = curve.at_coverage(coverage), curve.at_precision(precision)
    chosen = next((p for p in reversed(curve.points) if p.threshold >= accept), None)
    return {
        "with_gold": curve.n,
        "right": curve.right / curve.n,
        "precision_accepted": None if chosen is None else chosen.precision,
        "coverage_accepted": 0.0 if chosen is None else chosen.coverage,
        "at_coverage": {"coverage": at.coverage, "precision": at.precision, "threshold": at.threshold},
        "at_precision": None
        if best is None
        else {"coverage": best.coverage, "precision": best.precision, "threshold": best.threshold},
        "aurc": curve.aurc,
        "augrc": curve.augrc,
    }


def _print(result: dict[str, Any]) -> None:
    def line(name: str, value: float | None, note: str = "") -> None:
        print(f"{name:28} {'-' if value is None else format(value, '.4f'):>7}  {note}".rstrip())

    line("reward", result["reward"], f"{result['n']} completions")
    for name, value in result["parts"].items():
        line(f"  {name}", value)
    for path, one in result["fields"].items():
        note = f"{100 * one['doubted']:.0f} % doubted: {one['why']}" if one["why"] else ""
        line(f"  {path}", one["points"], note)
    line("doubted", result["doubted"] / result["n"], f"{result['doubted']} completions lost points")
    line("accepted", result["accepted"], f"confidence in {result['field']} at least {result['accept']:g}")
    if "with_gold" in result:
        line("right", result["right"], f"{result['field']} equals gold, {result['with_gold']} completions")
        line("right of the accepted", result["precision_accepted"], f"coverage {result['coverage_accepted']:.4f}")
        at, best = result["at_coverage"], result["at_precision"]
        line(f"right at {at['coverage']:.3f} coverage", at["precision"], f"confidence {at['threshold']:.4f}")
        if best is not None:
            line(f"coverage at {best['precision']:.4f} right", best["coverage"], f"confidence {best['threshold']:.4f}")
        line("aurc", result["aurc"])
    for gate, count in result["gates"].items():
        print(f"failed at {gate}: {count}")
    if result["errors"]:
        print(f"scoring errors: {result['errors']}")


def _folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(f"output={path}: cannot be made: {fault.strerror or fault}") from None
    return folder


def write_curve(folder: Path, curve: RiskCoverage, result: dict[str, Any]) -> None:
    """curve.json (the numbers and every point) and curve.png."""
    numbers = {key: value for key, value in result.items() if key not in ("fields", "output")}
    points = [[round(p.threshold, 6), round(p.coverage, 6), round(p.precision, 6)] for p in curve.points]
    content = {**numbers, "columns": ["threshold", "coverage", "precision"], "points": points}
    (folder / "curve.json").write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot([p.coverage for p in curve.points], [p.precision for p in curve.points], color="#1f5fa8")
    axes.axhline(curve.right / curve.n, color="#888888", linewidth=1, linestyle="--", label="all accepted")
    at = result["at_coverage"]
    axes.plot([at["coverage"]], [at["precision"]], "o", color="#c4452f")
    label = f"{at['precision']:.3f} at {at['coverage']:.2f}"
    axes.annotate(label, (at["coverage"], at["precision"]), textcoords="offset points", xytext=(-10, -16), ha="right")
    axes.set_xlabel("share of answers accepted (coverage)")
    axes.set_ylabel(f"{result['field']} right among the accepted")
    axes.set_xlim(0, 1.01)
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(folder / "curve.png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
