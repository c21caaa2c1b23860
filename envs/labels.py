"""Training labels from gold, from a teacher's traces, and from attempts that the task's own rubric has graded.

All labels have one form, the task's canonical JSON, so that methods which learn from different sources differ in what
the labels say and not in how they are written.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from envs.documents import Trace, read_traces
from rewards import normalize
from rewards.dates import iso
from rewards.document import Document
from rewards.errors import DataError
from rewards.parse import Attempt, parse
from rewards.rubric import Rubric
from rewards.task import Task

CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Label:
    """What a document's completion should be.

    Example: Label("r-1", {"vendor": "MAJU", ...}, "gpt-4o-2024-05-13", reward=0.97, weight=0.97, unknown=())
    """

    document_id: str
    value: dict[str, Any]
    """In the order of the schema, values in canonical form."""
    source: str
    """Who said it: "gold", an extractor's name, or "policy"."""
    reward: float | None = None
    """What the rubric says of it, in [0, 1]; None where nobody asked."""
    weight: float = 1.0
    """Of its loss, relative to the others."""
    unknown: tuple[str, ...] = ()
    """Keys on which the source is silent: their values here are no label."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one document; the rubric prefers the first. Rewards in [0, 1]."""

    document_id: str
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float


def traces_by_document(paths: Sequence[str]) -> dict[str, list[Trace]]:
    """Traces of all files by document id, in the order of the files. Raises DataError."""
    found: dict[str, list[Trace]] = {}
    for path in paths:
        for trace in read_traces(path, max_bad=0, quarantine=None):
            found.setdefault(trace.id, []).append(trace)
    return found


def canonical_value(task: Task, completion: str) -> dict[str, Any] | None:
    """A completion's object in canonical form; None where it is no JSON object or lacks what the schema needs."""
    attempt = parse(completion)
    if not isinstance(attempt, Attempt):
        return None
    try:
        return canonical_object(task, attempt.value)
    except DataError:
        return None


def canonical_object(task: Task, value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the schema's keys in its order, and each leaf as its kind is written. Raises DataError.

    What cannot be read as its kind stays as it is: a label says what its source says, right or wrong.
    """
    parsed = parse(task.canonical(value))
    if not isinstance(parsed, Attempt):
        raise DataError(f"a label that is no attempt: {parsed.reason}")
    for path, spec in task.fields.items():
        _rewrite(parsed.value, path.split("."), partial(_written, spec.kind))
    return parsed.value


def _rewrite(value: Any, keys: Sequence[str], written: Callable[[str], str]) -> None:
    """Puts written(text) in the place of each text at the path `keys`."""
    key, below = keys[0], keys[1:]
    if not isinstance(value, dict):
        return
    if key.endswith("[]"):
        rows = value.get(key[:-2])
        for row in rows if isinstance(rows, list) else ():
            _rewrite(row, below, written)
    elif below:
        _rewrite(value.get(key), below, written)
    elif isinstance(value.get(key), str):
        value[key] = written(value[key])


def _written(kind: str, text: str) -> str:
    if kind == "money":
        amount = normalize.amount(text)
        if amount is not None and amount == amount.quantize(CENT):
            return f"{amount:.2f}"
    if kind == "date":
        day = iso(text)
        return text if day is None else day.isoformat()
    return text


def as_printed(task: Task, value: dict[str, Any], text: str) -> dict[str, Any]:
    """`value` with each text in the document's own letters, where the document has it in other case or spacing.

    A teacher that writes "Pay parking ticket" for PAY PARKING TICKET is not wrong, but copying is what a small policy
    can learn, and rewriting is not.
    """
    found = copy.deepcopy(value)
    for path, spec in task.fields.items():
        if spec.kind == "text":
            _rewrite(found, path.split("."), partial(_printed, text))
    return found


def _printed(text: str, value: str) -> str:
    if not value.strip() or value in text:
        return value
    words = r"\s+".join(re.escape(word) for word in value.split())
    match = re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)
    return " ".join(match.group().split()) if match else value


def labels_from_gold(task: Task, documents: Iterable[Document]) -> list[Label]:
    """A label for each document with gold; a required key that gold lacks is unknown, which is not null."""
    labels = []
    for document in documents:
        if document.gold is not None:
            required = task.schema.get("required", ())
            unknown = tuple(key for key in required if key not in document.gold)
            value = as_printed(task, canonical_object(task, document.gold), document.text)
            labels.append(Label(document.id, value, "gold", unknown=unknown))
    return labels


def labels_from_traces(task: Task, documents: Iterable[Document], traces: Mapping[str, Sequence[Trace]]) -> list[Label]:
    """The last usable trace of each document, unchecked: distillation."""
    labels = []
    for document in documents:
        for trace in reversed(traces.get(document.id, ())):
            value = canonical_value(task, trace.completion)
            if value is not None:
                labels.append(Label(document.id, as_printed(task, value, document.text), trace.extractor))
                break
    return labels


def graded(rubric: Rubric, document: Document, traces: Iterable[Trace], *, prune: bool) -> list[Label]:
    """The traces of one document as labels with their rewards, the best first; equal ones keep their order.

    What the rubric could not judge is left out: no verdict is not a bad verdict. `prune` also leaves out values that
    the rubric would rather miss: each nullable field becomes null where that raises the reward.
    """
    values = [
        (trace.extractor, as_printed(rubric.task, value, document.text))
        for trace in traces
        if (value := canonical_value(rubric.task, trace.completion)) is not None
    ]
    texts = [rubric.task.canonical(value) for _, value in values]
    labels = [
        Label(document.id, value, source, reward=score.total)
        for (source, value), score in zip(values, rubric.score_group(document, texts), strict=True)
        if score.status == "scored"
    ]
    if prune:
        labels = [_pruned(rubric, document, label) for label in labels]
    return sorted(labels, key=lambda label: -(label.reward or 0.0))


def _pruned(rubric: Rubric, document: Document, label: Label) -> Label:
    """`label` with each nullable top-level value dropped where the rubric then gives more."""
    for key, below in rubric.task.schema["properties"].items():
        if label.value.get(key) is None or "null" not in _types(below):
            continue
        value = copy.deepcopy(label.value)
        value[key] = None
        score = rubric.score(document, rubric.task.canonical(value))
        if score.status == "scored" and score.total > (label.reward or 0.0):
            label = replace(label, value=value, reward=score.total)
    return label


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    declared = schema.get("type", ())
    return (declared,) if isinstance(declared, str) else tuple(declared)


def graded_labels(
    rubric: Rubric,
    documents: Iterable[Document],
    traces: Mapping[str, Sequence[Trace]],
    *,
    min_reward: float,
    weight_power: float,
    prune: bool,
) -> list[Label]:
    """Each document's best trace, where its reward is at least `min_reward`; its weight is reward ** weight_power."""
    labels = []
    for document in documents:
        for label in graded(rubric, document, traces.get(document.id, ()), prune=prune)[:1]:
            reward = label.reward or 0.0
            if reward >= min_reward:
                labels.append(replace(label, weight=reward**weight_power))
    return labels


def ranked_pairs(
    rubric: Rubric,
    documents: Iterable[Document],
    traces: Mapping[str, Sequence[Trace]],
    *,
    min_margin: float,
    pairs_per_document: int,
) -> list[Pair]:
    """The best answer of each document before its worst, the second before the second worst, and so on.

    What does not parse is kept as it was written, at the bottom; all else is in canonical form. Pairs closer than
    `min_margin` are left out, since the rubric cannot be said to prefer one of them.
    """
    pairs = []
    for document in documents:
        texts = list(dict.fromkeys(_form(rubric.task, trace) for trace in traces.get(document.id, ())))
        scores = rubric.score_group(document, texts)
        judged = [(s.total, t) for s, t in zip(scores, texts, strict=True) if s.status == "scored"]
        judged.sort(key=lambda item: -item[0])
        for i in range(min(pairs_per_document, len(judged) // 2)):
            (high, chosen), (low, rejected) = judged[i], judged[-1 - i]
            if high - low >= min_margin and high > low:
                pairs.append(Pair(document.id, chosen, rejected, high, low))
    return pairs


def _form(task: Task, trace: Trace) -> str:
    value = canonical_value(task, trace.completion)
    return trace.completion if value is None else task.canonical(value)
