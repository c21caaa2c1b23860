"""offramp validate: is a rubric honest where gold is known? Gold scores the maximum, empties and echoes the minimum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs import synthetic
from launch.score import known_documents, number_of, read_keys
from rewards.document import Document
from rewards.errors import ConfigError, DataError, RewardError
from rewards.hacks import HACKS, complete, hacks
from rewards.rubric import Rubric, RubricScore
from rewards.task import Task, load_task

KEYS = {
    "task": "a name in configs/task, or a task file",
    "docs.path": "documents with gold, JSON lines; a bare word will do. synthetic: made in code",
    "min_gold": "the mean that gold must reach (0.97)",
    "min_share": "the share of documents on which each hack must score below half of gold (0.99)",
    "worst": "how many of the worst golds are printed, with their reasons (10)",
    "gold": "a file to write the golds to, as completions for offramp score",
    "count": "how many synthetic documents (200)",
    "seed": "of the synthetic documents (0)",
    "max_bad": "bad lines tolerated (0)",
}


def run(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """gold_mean, the worst golds, and each wholesale hack beside gold. Exit code 4 where a threshold fails."""
    values = read_keys("validate", bare_path(args), KEYS, required=("task", "docs.path"))
    if values is None:
        return None
    task = load_task(values["task"])
    least = share_of(values, "min_gold", 0.97)
    share = share_of(values, "min_share", 0.99)
    worst = number_of(values, "worst", 10, int)
    documents = with_gold(task, values)
    if values.get("gold"):
        _write(task, documents, values["gold"])
    rubric = Rubric(task)
    golds: list[tuple[RubricScore, Document]] = []
    below: dict[str, list[tuple[bool, float, str]]] = {}
    beaten = 0
    for document in documents:
        assert document.gold is not None
        found = hacks(task, document, documents)
        scores = rubric.score_group(document, [task.canonical(document.gold), *found.values()])
        for score in scores:
            if score.status == "error":
                raise RewardError(f"{document.id}: the rubric failed: {score.error}")
        gold, *others = scores
        golds.append((gold, document))
        beaten += any(other.total >= gold.total for other in others)
        for name, other in zip(found, others, strict=True):
            below.setdefault(name, []).append((other.total < gold.total / 2, other.total, document.id))
    golds.sort(key=lambda pair: pair[0].total)
    result: dict[str, Any] = {
        "task": task.name,
        "documents": len(documents),
        "gold_mean": sum(score.total for score, _ in golds) / len(golds),
        "gold_full": sum(score.total == 1.0 for score, _ in golds) / len(golds),
        "gold_below_0.9": sum(score.total < 0.9 for score, _ in golds),
        "gold_highest": 1.0 - beaten / len(golds),
        "worst": [_entry(score, document) for score, document in golds[:worst] if score.total < 1.0],
        "hacks": {name: _hack(below[name]) for name in HACKS if name in below},
    }
    result["failures"] = _failures(result, least, share)
    _print(result)
    return result | ({"exit_code": RewardError.exit_code} if result["failures"] else {})


def bare_path(args: list[str]) -> list[str]:
    """A word without = is the file of documents."""
    return [word if "=" in word or word.startswith("-") else f"docs.path={word}" for word in args]


def with_gold(task: Task, values: dict[str, str]) -> list[Document]:
    """The documents whose gold knows every required key. Raises DataError where there is none."""
    path = values["docs.path"]
    if path == "synthetic":
        seed = values.get("seed", "0")
        if not seed.isdigit():
            raise ConfigError(f"seed={seed}: must be a whole number")
        try:
            return synthetic.documents(task.name, number_of(values, "count", 200, int), int(seed))
        except ValueError as fault:
            raise ConfigError(f"docs.path=synthetic: {fault}") from None
    documents = known_documents(path, number_of(values, "max_bad", 0, int))
    known = [document for document in documents if complete(task, document)]
    if not known:
        keys = ", ".join(task.schema.get("required", ()))
        raise DataError(f"docs.path={path}: no document has gold with all of {keys}")
    left_out = len(documents) - len(known)
    if left_out:
        print(f"{left_out} of {len(documents)} documents are left out: their gold does not know every required key")
    return known


def share_of(values: dict[str, str], key: str, default: float) -> float:
    """A number in [0, 1]. Raises ConfigError."""
    try:
        share = float(values.get(key, default))
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"{key}={values[key]}: must be a number from 0 to 1")
    return share


def _write(task: Task, documents: list[Document], path: str) -> None:
    rows = ({"id": d.id, "completion": task.canonical(d.gold)} for d in documents if d.gold is not None)
    try:
        Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as fault:
        raise ConfigError(f"gold={path}: cannot be written: {fault.strerror}") from None


def _entry(score: RubricScore, document: Document) -> dict[str, Any]:
    return {"id": document.id, "total": score.total, "gate": score.gate, "reasons": list(_reasons(score))[:6]}


def _reasons(score: RubricScore) -> Iterator[str]:
    for finding in sorted(score.findings, key=lambda f: 1.0 if f.points is None else f.points):
        if finding.points is not None and finding.points < 1.0:
            given = "" if finding.value is None else f" {finding.value!r}"
            yield f"{finding.path or '(whole)'}{given}: {finding.why} ({finding.points:.2f})"


def _hack(outcomes: list[tuple[bool, float, str]]) -> dict[str, Any]:
    return {
        "documents": len(outcomes),
        "below_half": sum(below for below, _, _ in outcomes) / len(outcomes),
        "mean": sum(total for _, total, _ in outcomes) / len(outcomes),
        "not_below": [name for below, _, name in outcomes if not below],
    }


def _failures(result: dict[str, Any], least: float, share: float) -> list[str]:
    found = []
    if result["gold_mean"] < least:
        found.append(f"gold_mean {result['gold_mean']:.4f} is below min_gold {least}")
    for name, hack in result["hacks"].items():
        if hack["below_half"] < share:
            found.append(f"{name}: below half of gold on {hack['below_half']:.4f} of documents, min_share is {share}")
    return found


def _print(result: dict[str, Any]) -> None:
    print(f"gold mean {result['gold_mean']:.4f} over {result['documents']} documents; full {result['gold_full']:.4f}")
    print(f"gold above every hack {result['gold_highest']:.4f}; below 0.9: {result['gold_below_0.9']}")
    print(f"\n{'hack':20} {'below half':>10} {'mean':>7}  documents")
    for name, hack in result["hacks"].items():
        print(f"{name:20} {hack['below_half']:10.4f} {hack['mean']:7.4f}  {hack['documents']:5}  {HACKS[name]}")
    for entry in result["worst"]:
        print(f"\n{entry['id']}  {entry['total']:.3f}")
        for reason in entry["reasons"]:
            print(f"  {reason}")
    print()
    for failure in result["failures"]:
        print(f"FAILED {failure}")
    if not result["failures"]:
        print("passed")
