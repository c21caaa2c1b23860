"""Known-worse edits of a right answer: what a rubric must tell from it, by kind. Kinds follow from a task's fields.

An edit that leaves the answer right (the other row has the same amount) is no mutant: `rewards.fields.compare` decides.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from rewards.document import Document, DocumentIndex, read
from rewards.fields import compare
from rewards.mutate_records import MENTION_KINDS, RECORD_KINDS
from rewards.mutate_rows import ROW_KINDS
from rewards.mutate_scalars import SCALAR_KINDS
from rewards.mutate_shared import Answer, Edit, Page
from rewards.plan import compile_plan
from rewards.task import Task

KINDS: Mapping[str, Edit] = {**SCALAR_KINDS, **ROW_KINDS, **RECORD_KINDS, **MENTION_KINDS}
# Worse to a reader of characters, the same to `compare`, which folds look-alikes.
UNSEEN = ("text_lookalike", "text_invisible", "row_name_lookalike", "record_name_lookalike")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit of gold. kind: a key of KINDS or EQUAL.  path: the field that was edited, or the array.  value: the
    whole answer after the edit.  completion: the same as compact JSON."""

    kind: str
    path: str
    value: Answer
    completion: str


def page_of(task: Task, document: Document, index: DocumentIndex | None = None) -> Page:
    """What the edits read of a document: its index and the compiled task."""
    return Page(task, compile_plan(task), read(document.text) if index is None else index)


def mutants(task: Task, document: Document, seed: int = 0, kinds: Mapping[str, Edit] = KINDS) -> Iterator[Mutant]:
    """At most one mutant of each kind and field for a document with gold; the same ones for the same seed."""
    if document.gold is None:
        return
    page = page_of(task, document)
    gold = json.loads(task.canonical(document.gold))
    for kind, edit in kinds.items():
        rng = Random(f"{seed}/{document.id}/{kind}")
        for path, value in edit(page, copy.deepcopy(gold), rng):
            if kind in UNSEEN or not compare(task, value, gold).document_exact:
                yield Mutant(kind, path, value, task.canonical(value))


def _shuffled_rows(page: Page, gold: Answer, rng: Random) -> str:
    for array in page.plan.arrays:
        rng.shuffle(gold.get(array) or [])
    return page.task.canonical(gold)


def _shuffled_keys(page: Page, gold: Answer, rng: Random) -> str:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            rng.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(row) for row in value] if isinstance(value, list) else value

    return json.dumps(shuffled(gold), ensure_ascii=False)


def _spread_out(page: Page, gold: Answer, rng: Random) -> str:
    return json.dumps(gold, ensure_ascii=rng.random() < 0.5, indent=rng.choice([1, 2, 4])) + "\n"


# Edits that change nothing of what the answer says: their score must be the gold's own.
EQUAL: Mapping[str, Callable[[Page, Answer, Random], str]] = {
    "rows_reordered": _shuffled_rows,
    "keys_reordered": _shuffled_keys,
    "white_space": _spread_out,
}


def equals(task: Task, document: Document, seed: int = 0) -> Iterator[Mutant]:
    """The same answer, written differently."""
    if document.gold is None:
        return
    page = page_of(task, document)
    gold = json.loads(task.canonical(document.gold))
    for kind, write in EQUAL.items():
        completion = write(page, copy.deepcopy(gold), Random(f"{seed}/{document.id}/{kind}"))
        yield Mutant(kind, "", json.loads(completion), completion)
