"""A run's folder with rollouts, made without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from envs.synthetic import documents
from rewards.document import Document
from rewards.rubric import Rubric
from rewards.task import Task, load_task
from rl.record import write_rollouts
from rl.rollouts import Group, Rollout

DOCS = {"kind": "synthetic", "part": "all", "seed": 0, "train": 4, "test": 0}


def worse(document: Document, task: Task) -> list[str]:
    """Gold and three answers that are worse in ways of their own."""
    gold = dict(document.gold or {})
    return [
        task.canonical(gold),
        task.canonical(gold | {"total": "0.07"}),
        task.canonical(gold | {"items": gold["items"][:1], "vendor": None}),
        "no JSON",
    ]


def make_run(
    folder: Path,
    *,
    steps: int = 2,
    kind: str = "grpo",
    scale: str = "group",
    texts: bool = True,
    answers: Callable[[Document, Task], Sequence[str]] = worse,
    config: dict[str, Any] | None = None,
) -> list[Document]:
    """Writes config.json and rollouts of `steps` steps; the documents."""
    task = load_task("receipt")
    rubric, made = Rubric(task), documents("receipt", 4, 0)
    (folder / "rollouts").mkdir(parents=True)
    settings = {"task": "receipt", "rubric": None, "docs": DOCS, "method": {"kind": kind, "scale_rewards": scale}}
    (folder / "config.json").write_text(json.dumps(settings | (config or {})))
    for step in range(1, steps + 1):
        drawn = made[(step - 1) * 2 % 4 :][:2]
        groups, scores = [], []
        for document in drawn:
            completions = answers(document, task)
            rollouts = [
                Rollout(document.id, (1, 2), (-0.5, 0.0), text, "stop", step, i) for i, text in enumerate(completions)
            ]
            groups.append(Group(document.id, (1,), tuple(rollouts)))
            scores.append(rubric.score_group(document, completions))
        path = folder / "rollouts" / f"step_{step:06d}.parquet"
        write_rollouts(path, step, groups, scores, {d.id: d.text for d in drawn} if texts else {})
    return made
