"""A comparison in numbers: rows of answers to the same documents, paired differences, costs, and one sentence.

Everything is a ratio of two sums over documents, as in rl/evaluate.py; several seeds of a method add up within each
document, so that an interval is over documents, and the spread over seeds is told beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from envs.documents import Trace
from envs.labels import canonical_value, graded
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.rubric import Rubric
from rewards.task import Task
from rl.bootstrap import Bootstrap
from rl.compare_config import Prices
from rl.evaluate import Answer, Ratio, ratios, report, without_gold
from rl.record import read_metrics

Ratios = dict[str, Ratio]
PARTS = ("seen", "unseen")


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers to N documents as numerators and denominators: ids [N], ratios name -> ([N], [N])."""

    ids: tuple[str, ...]
    ratios: Ratios

    def at(self, ids: Sequence[str]) -> Ratios:
        """The ratios at these documents, in this order."""
        place = {name: i for i, name in enumerate(self.ids)}
        rows = [place[name] for name in ids]
        return {name: (top[rows], below[rows]) for name, (top, below) in self.ratios.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a method at a number of training documents, all its seeds."""

    name: str
    documents: int | None
    """Training documents; None for a row that was not trained."""
    seeds: tuple[int, ...]
    measured: Measured
    by_seed: tuple[Measured, ...] = ()
    cost: dict[str, Any] = field(default_factory=dict)


def data_hash(documents: Sequence[Document]) -> str:
    """SHA-256 over ids, texts, groups and gold, in order: 16 hex digits."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.text, document.group, document.gold]).encode())
    return digest.hexdigest()[:16]


def measure(task: Task, documents: Sequence[Document], answers: Sequence[Answer]) -> Measured:
    """Every metric of rl.evaluate.ratios, and those that need the document's text and the values.

    hallucination: values given that stand nowhere in the document, over values given. omission: values that gold has
    and the answer leaves out, over those of gold. reconciles: how far the declared relations close, mean.
    """
    known = {document.id: document for document in documents}
    if missing := [answer.document_id for answer in answers if answer.document_id not in known]:
        raise DataError(f"document {missing[0]}: answered, but not among the {len(known)} documents of the comparison")
    table = ratios(answers)
    rubric = Rubric(task)
    invented, given, left_out, wanted = (np.zeros(len(answers)) for _ in range(4))
    for i, answer in enumerate(answers):
        values = _values(rubric, known[answer.document_id], answer.completion)
        invented[i], given[i] = sum(not printed for printed in values), len(values)
        if answer.report is not None:
            for counts in answer.report.fields.values():
                left_out[i] += max(counts.fn - counts.fp, 0)
                wanted[i] += counts.tp + counts.fn
    table["hallucination"] = invented, given
    table["omission"] = left_out, wanted
    if "part/reconciles" in table:
        table["reconciles"] = table["part/reconciles"]
    return Measured(tuple(answer.document_id for answer in answers), table)


LOWER_IS_BETTER = ("hallucination", "omission", "truncated", "tokens")


def check_metric(task: Task, test: Sequence[Document], metric: str) -> None:
    """Raises ConfigError for a metric that cannot decide: none of that name, none that these documents can have."""
    rubric = Rubric(task)
    texts = [json.dumps(document.gold or {}) for document in test]  # gold may lack keys
    answers = [
        Answer(d.id, d.group, text, "stop", 0, rubric.score(without_gold(d), text), report(task, text, d.gold))
        for d, text in zip(test, texts, strict=True)
    ]
    table = measure(task, test, answers).ratios
    parts = ["reconciles", *(f"part/{name}" for name in task.rubric.rewards)]
    possible = [name for name, (_, below) in table.items() if name not in LOWER_IS_BETTER and below.sum()]
    if metric in LOWER_IS_BETTER:
        raise ConfigError(f"metric={metric}: the lower the better, so that the worst row would win; give another")
    if metric not in (*possible, *parts):
        raise ConfigError(
            f"metric={metric}: none of the {len(test)} test documents can have it; give one of "
            f"{', '.join(name for name in possible if '/' not in name)}, or exact/FIELD"
        )


def _values(rubric: Rubric, document: Document, completion: str) -> list[bool]:
    """For each value that the completion gives, whether the document has it somewhere; none for what fails a gate."""
    found = []
    for finding in rubric.score(without_gold(document), completion).findings:
        if re.sub(r"\[\d+\]", "[]", finding.path) in rubric.task.fields and finding.value is not None:
            found.append(finding.span is not None or bool(finding.points))
    return found


def combine(parts: Sequence[Measured]) -> Measured:
    """Seeds of one method as one: their numerators and denominators add up document by document."""
    ids = [name for name in parts[0].ids if all(name in set(part.ids) for part in parts)]
    tables = [part.at(ids) for part in parts]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return Measured(
        tuple(ids),
        {
            name: (np.sum([t[name][0] for t in tables], axis=0), np.sum([t[name][1] for t in tables], axis=0))
            for name in names
        },
    )


def recorded_answers(
    task: Task, documents: Sequence[Document], traces: Mapping[str, Sequence[Trace]], *, best: bool = False
) -> list[Answer]:
    """A teacher's recorded answers to documents that have one, judged like a policy's.

    The last trace of each document, or with `best` the one that the rubric prefers: the most that picking among the
    traces can reach. They are put into canonical form where they can be.
    """
    rubric = Rubric(task)
    answers = []
    for document in documents:
        of_document = traces.get(document.id, ())
        if not of_document:
            continue
        if best and (ranked := graded(rubric, without_gold(document), of_document, prune=False)):
            text = task.canonical(ranked[0].value)
        else:
            value = canonical_value(task, of_document[-1].completion)
            text = of_document[-1].completion if value is None else task.canonical(value)
        score = rubric.score(without_gold(document), text)
        answers.append(Answer(document.id, document.group, text, "stop", 0, score, report(task, text, document.gold)))
    return answers


def summarise(measured: Measured, *, resamples: int, groups: Mapping[str, str], seen: frozenset[str]) -> dict[str, Any]:
    """{"n", metric: {"value", "ci95"}, ..., "seen": {...}, "unseen": {...}}; seen: the group stands in training."""
    summary = _estimates(measured, measured.ids, resamples)
    for part, wanted in zip(PARTS, (True, False), strict=True):
        ids = [name for name in measured.ids if (groups[name] in seen) is wanted]
        summary[part] = _estimates(measured, ids, resamples)
    return summary


def _estimates(measured: Measured, ids: Sequence[str], resamples: int) -> dict[str, Any]:
    bootstrap = Bootstrap(len(ids), resamples=resamples)
    estimates: dict[str, Any] = {"n": len(ids)}
    for name, ratio in measured.at(ids).items():
        estimate = bootstrap.ratio(*ratio)
        if estimate.value is not None:
            estimates[name] = estimate.as_dict()
    return estimates


def differences(
    before: Measured, after: Measured, *, resamples: int, groups: Mapping[str, str], seen: frozenset[str]
) -> dict[str, Any]:
    """after - before with paired intervals, on the documents that both answered, and on their seen and unseen ones."""
    both = [name for name in after.ids if name in set(before.ids)]
    result = _deltas(before, after, both, resamples)
    for part, wanted in zip(PARTS, (True, False), strict=True):
        ids = [name for name in both if (groups[name] in seen) is wanted]
        result[part] = _deltas(before, after, ids, resamples)
    return result


def _deltas(before: Measured, after: Measured, ids: Sequence[str], resamples: int) -> dict[str, Any]:
    bootstrap = Bootstrap(len(ids), resamples=resamples)
    a, b = before.at(ids), after.at(ids)
    found: dict[str, Any] = {"n": len(ids)}
    for name in a:
        if name in b:
            estimate = bootstrap.paired_delta(a[name], b[name])
            if estimate.value is not None:
                found[name] = estimate.as_dict()
    return found


def run_cost(run_dir: Path) -> dict[str, float]:
    """Seconds, tokens and updates of a training run, from its record: the same sums for every method."""
    seconds = tokens = updates = 0.0
    for line in read_metrics(run_dir):
        if line["kind"] == "train":
            updates += 1
            seconds += line.get("seconds/total") or 0.0
            # GRPO's line counts its prompts and completions; the others' count what went through the update.
            sampled = (line.get("tokens/prompt") or 0) + (line.get("tokens/completion") or 0)
            tokens += sampled or line.get("tokens/trained") or 0
    return {"seconds_training": round(seconds, 1), "tokens_trained": int(tokens), "updates": int(updates)}


def teacher_tokens(
    documents: Sequence[Document], traces: Mapping[str, Sequence[Trace]], prices: Prices
) -> dict[str, float]:
    """Calls and tokens that the traces of these documents took, reckoned from the length of the texts."""
    calls = prompt = completion = 0.0
    for document in documents:
        for trace in traces.get(document.id, ()):
            calls += 1
            prompt += len(document.text) / prices.characters_per_token + prices.teacher_prompt_overhead
            completion += len(trace.completion) / prices.characters_per_token
    total = round(prompt + completion)
    return {"teacher_calls": int(calls), "teacher_tokens": total, "prompt": prompt, "completion": completion}


KEPT_METRICS = ("step", "kind", "n", "loss", "reward/mean", "grad_norm", "lr", "logprob_gap", "seconds/total")


def metric_lines(runs: Mapping[str, Path]) -> Iterator[str]:
    """The curves of all runs in one file, a JSON object a line: of a training step a few numbers, of an evaluation all
    its estimates; with the job's name."""
    for name, folder in sorted(runs.items()):
        for metrics in read_metrics(folder):
            if metrics.get("kind") not in ("train", "eval"):
                continue
            kept = {k: v for k, v in metrics.items() if k in KEPT_METRICS or (isinstance(v, dict) and "value" in v)}
            yield json.dumps({"job": name, **kept}) + "\n"


def money(cost: Mapping[str, Any], prices: Prices) -> float:
    """What a row's labels, calls and training come to."""
    total: float = (
        cost.get("human_labels", 0) * prices.human_label
        + cost.get("teacher_prompt_tokens", 0) / 1e6 * prices.teacher_prompt
        + cost.get("teacher_completion_tokens", 0) / 1e6 * prices.teacher_completion
        + cost.get("seconds_training", 0) / 3600 * prices.machine_hour
    )
    return round(total, 4)


def add_costs(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The costs of a chain's stages together: numbers add up, but labels and calls are paid once."""
    total: dict[str, Any] = {}
    for cost in costs:
        for name, value in cost.items():
            once = name in ("human_labels", "peak_memory_mb") or name.startswith("teacher_")
            total[name] = max(total.get(name, 0), value) if once else total.get(name, 0) + value
    return total


def mean_costs(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A method's cost: the mean over its seeds."""
    names = {name: None for cost in costs for name in cost}
    return {name: round(float(np.mean([cost.get(name, 0) for cost in costs])), 4) for name in names}


def verdict(
    rows: Sequence[Row], metric: str, baseline: Row, *, resamples: int, prices: Prices, teacher: str | None
) -> tuple[str, dict[str, Any]]:
    """The one honest sentence, and its numbers: which method, by how much, at what cost, can the data tell."""
    trained = [row for row in rows if row.documents is not None]
    if not trained:
        raise DataError("compare: no method was trained, so none can have won")

    def value(row: Row) -> float:
        top, below = row.measured.ratios[metric]
        best: float = float(top.sum()) / float(below.sum()) if below.sum() else float("-inf")
        return best

    none = [
        row.name for row in trained if metric not in row.measured.ratios or not row.measured.ratios[metric][1].sum()
    ]
    if none:
        raise DataError(f"metric={metric}: no answer of {none[0]} has it; give another")
    order = sorted(trained, key=lambda row: (-value(row), money(row.cost, prices)))  # of equals the cheaper one
    winner = order[0]
    facts: dict[str, Any] = {"winner": winner.name, "documents": winner.documents, "metric": metric}
    facts["value"] = _estimates(winner.measured, winner.measured.ids, resamples)[metric]

    def against(other: Row) -> dict[str, Any] | None:
        """None where no answer of the other has the metric."""
        ids = [name for name in winner.measured.ids if name in set(other.measured.ids)]
        delta: dict[str, Any] | None = _deltas(other.measured, winner.measured, ids, resamples).get(metric)
        return delta

    low, high = facts["value"]["ci95"]
    value_of = f"{metric} {facts['value']['value']:.3f} [{low:.3f}, {high:.3f}]"
    starts = [baseline, *(row for row in rows if row.documents is None and row.name not in (teacher, "best_trace"))]
    unbeaten = [row for row in starts if row is not winner and (d := against(row)) is not None and d["ci95"][1] < 0]
    facts["lost_to"] = list(dict.fromkeys(row.name for row in unbeaten))
    clauses = [f"{_title(winner)} won with {value_of}"]
    if unbeaten:
        clauses = [f"no method beat {unbeaten[0].name}: the best, {_title(winner)}, has {value_of}"]
    if baseline is not winner and (delta := against(baseline)) is not None:
        facts["over_baseline"] = delta
        clauses.append(f"{_signed(delta)} against {baseline.name}")
    cost, parts = winner.cost, []
    parts.append(f"{cost.get('human_labels', 0):.0f} human labels")
    parts.append(f"{cost.get('teacher_calls', 0):.0f} teacher calls")
    parts.append(f"{cost.get('seconds_training', 0) / 60:.1f} minutes of training")
    clauses.append(f"at {', '.join(parts)} ({money(cost, prices):.2f} {prices.currency})")
    sentence = ", ".join(clauses)
    # Of each other method its best size; of the winner's own method its other sizes, told by their number.
    others: dict[str, Row] = {}
    for row in order[1:]:
        others.setdefault(_title(row) if row.name == winner.name else row.name, row)
    rivals = [row for row in others.values() if row.name != winner.name]
    others |= {row.name: row for row in rows if row is not winner and (row is baseline or row.name == teacher)}
    deltas = {name: delta for name, row in others.items() if (delta := against(row)) is not None}
    facts["ties"] = ties = [name for name, delta in deltas.items() if _straddles(delta)]
    if deltas:
        sentence += (
            f"; the data cannot tell it from {' or '.join(ties)}" if ties else "; the data tell it from every other"
        )
    if rivals and rivals[0].name in deltas:
        facts["runner_up"], facts["over_runner_up"] = rivals[0].name, deltas[rivals[0].name]
        sentence += f" (next: {rivals[0].name}, {_signed(facts['over_runner_up'])})"
    if teacher is not None and teacher in deltas:
        facts["over_teacher"] = deltas[teacher]
        if teacher != baseline.name:
            sentence += f"; against {teacher} itself {_signed(deltas[teacher])}"
    n, seeds = len(winner.measured.ids), len(winner.seeds)
    facts["n"] = n
    return f"{sentence}. {n} test documents, {seeds} seed{'s' if seeds != 1 else ''}.", facts


def _title(row: Row) -> str:
    return f"{row.name} on {row.documents} documents" if row.documents is not None else row.name


def _signed(delta: Mapping[str, Any]) -> str:
    low, high = delta["ci95"]
    return f"{delta['value']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _straddles(delta: Mapping[str, Any]) -> bool:
    low, high = delta["ci95"]
    return bool(low <= 0 <= high)
