"""Why a completion scored what it scored: a tree by field, each remark with its check, points, reason and evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rewards.document import Document
from rewards.rubric import RubricScore
from rewards.task import Task

LONGEST_VALUE = 60  # characters of a value or of evidence on one line
WHOLE = "(whole)"


class Remark(NamedTuple):
    """What one check says about one field.

    number: its place among the score's findings.  check: the reward or the gate.  points: in [0, 1], or None where the
    field was left out.  span: character offsets in the document.  line: that of the span, from 1.  evidence: its text.

    Example: Remark(4, "grounded", "13.00", 1.0, "printed on a line of its own", (44, 49), 3, "13.00")
    """

    number: int
    check: str
    value: Any
    points: float | None
    why: str
    span: tuple[int, int] | None
    line: int | None
    evidence: str | None


@dataclass(slots=True)
class Branch:
    """A field (total), an array (items), a row ([2]) or a leaf of a row (amount), and what was said about it."""

    name: str
    path: str
    remarks: list[Remark] = field(default_factory=list)
    children: dict[str, Branch] = field(default_factory=dict)

    @property
    def value(self) -> Any:
        """What was extracted; None where nothing was, and for what has no value of its own."""
        return next((remark.value for remark in self.remarks if remark.value is not None), None)

    @property
    def grade(self) -> str:
        """The worst grade among its remarks and those below it."""
        grades = {grade(remark.points) for branch in self.walk() for remark in branch.remarks}
        return next((name for name in ("wrong", "part", "right") if name in grades), "out")

    def walk(self) -> Iterator[Branch]:
        """This branch and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def remarks(score: RubricScore, document: Document | None = None) -> list[tuple[str, Remark]]:
    """(path, remark) of every finding in the rubric's order; evidence and line need the document."""
    checks = [*score.checks, *[""] * (len(score.findings) - len(score.checks))]
    found = []
    for number, (check, finding) in enumerate(zip(checks, score.findings, strict=False)):
        line = evidence = None
        if finding.span is not None and document is not None:
            start, end = finding.span
            line, evidence = document.text.count("\n", 0, start) + 1, document.text[start:end]
        remark = Remark(number, check, finding.value, finding.points, finding.why, finding.span, line, evidence)
        found.append((finding.path, remark))
    return found


def tree(score: RubricScore, document: Document | None = None) -> list[Branch]:
    """The remarks by field: items[2].amount lies in items, in [2]; what concerns the whole stands last."""
    root = Branch("", "")
    for path, remark in remarks(score, document):
        branch = root
        for name in names(path):
            glue = "" if name.startswith("[") or not branch.path else "."
            branch = branch.children.setdefault(name, Branch(name, f"{branch.path}{glue}{name}"))
        branch.remarks.append(remark)
    return sorted(root.children.values(), key=lambda branch: branch.name == WHOLE)


def names(path: str) -> list[str]:
    """The steps of a path: "items[2].amount" and "items.2.amount" are items, [2], amount."""
    found = re.findall(r"\[\d+\]|[^.\[\]]+", path)
    return [f"[{name}]" if name.isdecimal() else name for name in found] or [WHOLE]


def grade(points: float | None) -> str:
    """right | part | wrong | out: the four looks of a remark."""
    return "out" if points is None else "right" if points >= 0.995 else "wrong" if points < 0.005 else "part"


MARKS = {"right": "✓", "part": "~", "wrong": "✗", "out": "·"}


def plain(text: str, limit: int = LONGEST_VALUE) -> str:
    """Text for one line of a terminal: what is invisible, reorders or moves the cursor is spelled out."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)


def value_text(value: Any) -> str:
    """A value as the tree shows it: text in quotes."""
    return f'"{plain(value)}"' if isinstance(value, str) else plain(str(value))


def weight_of(task: Task | None, part: str) -> float | None:
    return None if task is None else task.rubric.rewards.get(part)


def part_text(name: str, value: float | None, weight: float | None) -> str:
    """One line about one reward of the rubric."""
    shown = "  does not apply" if value is None else f"{value:7.3f}"
    return f"{name:<12} {shown}" + ("" if weight is None else f"   weight {weight:g}")


def remark_text(remark: Remark) -> str:
    """One line about one remark: check, points, why, evidence."""
    points = "   -" if remark.points is None else f"{remark.points:4.2f}"
    where = "" if remark.span is None else f"   ← {place(remark)}"
    return f"{remark.check} {points}  {plain(remark.why, 200)}{where}"


def place(remark: Remark) -> str:
    """Where the evidence stands, with its words where the document is at hand."""
    assert remark.span is not None
    if remark.evidence is None:
        return f"[{remark.span[0]}:{remark.span[1]}]"
    return f"line {remark.line}: {value_text(remark.evidence)}"


def head_text(score: RubricScore) -> str:
    stopped = f"   stopped at the gate {score.gate}" if score.gate else ""
    return f"error  {score.error}" if score.status == "error" else f"reward {score.total:.3f}{stopped}"


def label(branch: Branch) -> str:
    """The name of a branch, with the value that was extracted there."""
    value = branch.value
    return branch.name if value is None else f"{branch.name} {value_text(value)}"


def explain_text(score: RubricScore, document: Document | None = None, task: Task | None = None) -> str:
    """The tree as plain text: the reward, its parts, then every field with check, points, why and evidence.

    The document adds the words and lines of the evidence, the task the weights.
    """
    lines = [head_text(score)]
    branches = tree(score, document)
    for i, (name, value) in enumerate(score.parts.items()):
        last = i == len(score.parts) - 1 and not branches
        lines.append(f"{'└─' if last else '├─'} {part_text(name, value, weight_of(task, name))}")
    for i, branch in enumerate(branches):
        lines += _lines(branch, "", i == len(branches) - 1)
    return "\n".join(lines)


def _lines(branch: Branch, indent: str, last: bool) -> list[str]:
    twig, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
    named = f"{indent}{twig}{MARKS[branch.grade]} {label(branch)}"
    if len(branch.remarks) == 1 and not branch.children:
        return [f"{named}   {remark_text(branch.remarks[0])}"]
    lines = [named]
    children = list(branch.children.values())
    for i, remark in enumerate(branch.remarks):
        end = i == len(branch.remarks) - 1 and not children
        lines.append(f"{indent}{below}{'└─' if end else '├─'} {MARKS[grade(remark.points)]} {remark_text(remark)}")
    for i, child in enumerate(children):
        lines += _lines(child, indent + below, i == len(children) - 1)
    return lines
