"""offramp explain: why one completion scored what it scored, on the terminal and as a page. No torch, no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.rollouts import Recorded, choose, choose_steps, documents_of, find_run, read_rollouts
from launch.score import completion_of, document_of_file, read_keys
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.explain import (
    MARKS,
    Branch,
    explain_text,
    grade,
    head_text,
    label,
    part_text,
    remark_text,
    remarks,
    tree,
    weight_of,
)
from rewards.rubric import Rubric, RubricScore
from rewards.task import Task, load_task

if TYPE_CHECKING:
    from rich.tree import Tree

KEYS = {
    "task": "a name in configs/task, or a task file (of a run: the run's own)",
    "docs.path": "documents, JSON lines (of a run: what it recorded)",
    "id": "the document",
    "completion": "the completion's text, or - for standard input",
    "completions": "instead of completion: JSON lines, of which the id's is taken",
    "run": "instead of completion: a run's folder, such as runs/demo",
    "step": "of the run: the training step (the last)",
    "sample": "of the run: its number, worst or best (worst)",
    "html": "write the page to this file as well",
}
COLOURS = {"right": "green", "part": "yellow", "wrong": "red", "out": "bright_black"}


def explain(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """The tree of one score: parts, then each field with check, points, why and the evidence in the text."""
    values = read_keys("explain", args, KEYS, required=())
    if values is None:
        return None
    task, document, completion, recorded = _of_run(values) if "run" in values else _of_files(values)
    score = Rubric(task).score(document, completion)
    print(where := f"{document.id}" if recorded is None else f"{document.id}, step {recorded.step}")
    if recorded is not None and recorded.reward is not None and abs(recorded.reward - score.total) > 1e-9:
        print(f"{where}: the run recorded {recorded.reward:.3f}; below is what the task says now", file=sys.stderr)
    show(score, document, task)
    result = as_dict(score, document)
    if recorded is not None:
        result |= {"step": recorded.step, "sample": recorded.sample, "recorded": recorded.reward}
    if "html" in values:
        result["html"] = write_page(values["html"], score, document, completion, task)
    return result


def _of_files(values: dict[str, str]) -> tuple[Task, Document, str, None]:
    for key in ("task", "docs.path", "id"):
        if not values.get(key):
            raise ConfigError(f"{key}: has no value yet; give {key}=VALUE ({KEYS[key]}), or run=FOLDER")
    for key in ("step", "sample"):
        if key in values:
            raise ConfigError(f"{key}={values[key]}: only with run=FOLDER")
    task = load_task(values["task"])
    document = document_of_file(values["docs.path"], values["id"])
    return task, document, completion_of(values, document.id), None


def _of_run(values: dict[str, str]) -> tuple[Task, Document, str, Recorded]:
    for key in ("completion", "completions"):
        if key in values:
            raise ConfigError(f"{key}: not with run=, whose completion is taken")
    run = find_run(values["run"])
    task = run.task(values.get("task"))
    steps = choose_steps(run, values.get("step", "last"))
    if len(steps) > 1:
        raise ConfigError(f"step={values['step']}: give one step")
    found = choose(read_rollouts(run, steps), values.get("id"), values.get("sample", "worst"))
    documents = documents_of(run, [found], task, values.get("docs.path"))
    if found.document_id not in documents:
        raise DataError(f"id={found.document_id}: its text is not to be found; give docs.path=FILE")
    return task, documents[found.document_id], found.completion, found


def show(score: RubricScore, document: Document, task: Task) -> None:
    """Prints the tree: in colours on a terminal, plain elsewhere."""
    if not sys.stdout.isatty():
        print(explain_text(score, document, task))
        return
    from rich.console import Console

    Console(highlight=False, soft_wrap=False).print(rich_tree(score, document, task))


def rich_tree(score: RubricScore, document: Document, task: Task) -> Tree:
    """The same tree as explain_text, for a terminal. No text in it is read as markup."""
    from rich.text import Text
    from rich.tree import Tree

    tone = "red" if score.status == "error" else COLOURS[grade(score.total)]
    root = Tree(Text(head_text(score), style=f"bold {tone}"), guide_style="bright_black")
    for name, value in score.parts.items():
        root.add(Text(part_text(name, value, weight_of(task, name)), style=COLOURS[grade(value)]))

    def grow(parent: Tree, branch: Branch) -> None:
        text = Text(f"{MARKS[branch.grade]} ", style=COLOURS[branch.grade]).append(label(branch), style="default")
        if len(branch.remarks) == 1 and not branch.children:
            remark = branch.remarks[0]
            parent.add(text.append("   ").append(remark_text(remark), style=COLOURS[grade(remark.points)]))
            return
        twig = parent.add(text)
        for remark in branch.remarks:
            look = grade(remark.points)
            twig.add(Text(f"{MARKS[look]} {remark_text(remark)}", style=COLOURS[look]))
        for child in branch.children.values():
            grow(twig, child)

    for branch in tree(score, document):
        grow(root, branch)
    return root


def as_dict(score: RubricScore, document: Document) -> dict[str, Any]:
    """The score as --json says it."""
    return {
        "id": document.id,
        "total": score.total,
        "status": score.status,
        "gate": score.gate,
        "parts": dict(score.parts),
        "findings": [
            {
                "path": path,
                "check": remark.check,
                "value": remark.value,
                "points": remark.points,
                "why": remark.why,
                "span": remark.span,
                "line": remark.line,
                "evidence": remark.evidence,
            }
            for path, remark in remarks(score, document)
        ],
        "error": score.error,
    }


def write_page(path: str, score: RubricScore, document: Document, completion: str, task: Task) -> str:
    """Writes the page of one score; its path. Raises ConfigError."""
    from rewards.explain_html import explain_html

    page = explain_html(score, document, completion, task)
    try:
        # A completion may hold lone surrogates, which no file of UTF-8 can.
        Path(path).write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"html={path}: cannot be written: {error.strerror}") from None
    print(f"page: {path}", file=sys.stderr)
    return path
