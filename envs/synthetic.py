"""Synthetic receipts and invoices with exact gold, made in code from a seed, as many as asked for.

A document is a pure function of `generate`'s arguments: a layout family is drawn, then a bill whose arithmetic closes
to the cent, then the family prints it. All that is gold stands on the page, protected from the noise. The order of the
draws, used or not, is part of the function: in another order every document is another one.

    >>> generate("receipt", seed=1, index=0).gold["total"]
    '1567.27'
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Literal

from envs import synthetic_invoice, synthetic_receipt
from envs.synthetic_bill import Family, unprotect
from rewards.document import Document
from rewards.errors import RewardError
from rewards.rubric import Rubric, RubricScore
from rewards.task import Task, load_task

FAMILIES: Mapping[str, tuple[Family, ...]] = {
    "receipt": synthetic_receipt.FAMILIES,
    "invoice": synthetic_invoice.FAMILIES,
}
_PRINT = {"receipt": synthetic_receipt.print_receipt, "invoice": synthetic_invoice.print_invoice}
Layouts = Literal["seen", "held_out", "all"]


def families(task: str, layouts: Layouts) -> tuple[Family, ...]:
    """The families that pre-training sees, those kept out of it, or all.

    Raises ValueError for a task without synthetic documents.
    """
    if task not in FAMILIES:
        raise ValueError(f"no synthetic documents for task {task!r}; there are some for: {', '.join(FAMILIES)}")
    return tuple(f for f in FAMILIES[task] if layouts == "all" or f.held_out == (layouts == "held_out"))


def generate(task: str, seed: int, index: int, layouts: Layouts = "all", noise: float = 0.5) -> Document:
    """Document `index` of the stream `seed`: the same on every machine.

    A page that cannot be told apart (an item called DELIVERY, a misread heading) is drawn again: about 1 in 400. Which
    it is, the task's own rubric says: gold below the maximum. Raises RewardError where every page is. noise: the share
    of documents with the noise of reading machines, in [0, 1].
    """
    known, rubric = _judge(task)
    for attempt in range(MOST_DRAWS):
        page = draw(task, seed, index, layouts, noise, attempt)
        score = rubric.score(page, known.canonical(page.gold or {}))
        if score.total == 1.0:
            return page
    raise RewardError(
        f"document {index} of seed {seed}: the rubric of task {task!r} gave none of {MOST_DRAWS} golds the maximum; "
        f"the last, {page.id}, has {score.total:.3f}: {_why(score)}"
    )


MOST_DRAWS = 50  # one in 400 pages is drawn twice


def _why(score: RubricScore) -> str:
    """The costliest finding, in words."""
    if score.error is not None:
        return score.error
    lost = [finding for finding in score.findings if finding.points is not None and finding.points < 1.0]
    worst = min(lost, key=lambda finding: finding.points or 0.0, default=None)
    return f"{worst.path or 'whole'}: {worst.why}" if worst is not None else "no finding says why"


def draw(task: str, seed: int, index: int, layouts: Layouts, noise: float, attempt: int = 0) -> Document:
    """One page as it comes, told apart or not."""
    rng = Random(f"{task}/{layouts}/{seed}/{index}" + (f"/{attempt}" if attempt else ""))
    family = rng.choice(families(task, layouts))
    lines, gold = _PRINT[task](rng, family)
    level = rng.choice([0.004, 0.01, 0.02]) if rng.random() < noise else 0.0
    text = unprotect("\n".join(line for line in lines if line), rng, level)
    group = re.sub(r"[^A-Z0-9]", "", str(gold["vendor"]).upper())
    return Document(id=f"{task}-{layouts}-{seed}-{index}-{family.name}", text=text, group=group, gold=gold)


@functools.cache
def _judge(task: str) -> tuple[Task, Rubric]:
    families(task, "all")  # raises for a task without synthetic documents
    known = load_task(task)
    return known, Rubric(known)


def documents(task: str, count: int, seed: int, layouts: Layouts = "all", start: int = 0) -> list[Document]:
    """`count` documents from `start` on. Vendors are of an open vocabulary: distinct streams share practically none."""
    return [generate(task, seed, start + i, layouts) for i in range(count)]


def mixture(weights: Mapping[str, float], seed: int, layouts: Layouts) -> Iterator[tuple[str, Document]]:
    """An endless stream of (task, document), tasks drawn by weight."""
    names: Sequence[str] = tuple(weights)
    for index in itertools.count():
        task = Random(f"mixture/{seed}/{index}").choices(names, [weights[name] for name in names])[0]
        yield task, generate(task, seed, index, layouts)
