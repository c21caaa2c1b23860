"""Evaluation: greedy answers on held-out documents, scored by the same rubric, and compared with gold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from envs.documents import read_documents
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.fields import FieldCounts, FieldReport, compare
from rewards.parse import Attempt, parse
from rewards.pool import RewardPool
from rewards.rubric import RubricScore
from rewards.task import Task, load_task
from rl.bootstrap import Bootstrap, Floats
from rl.config import EvaluateConfig, read_config
from rl.constraint import constraint
from rl.prepare import Prepared, load_documents, prepare
from rl.task_of import task_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rl.sampler import Sampler

CHANGE = "change (paired)"
Ratio = tuple[Floats, Floats]
"""Numerator and denominator of a metric, each [N]: a document without the metric has denominator 0."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One document's answer, judged.

    Example: Answer("receipt-0007", "MAJU", '{"vendor":...}', "stop", 88, RubricScore(total=0.97, ...), report)
    """

    document_id: str
    group: str
    completion: str
    finish_reason: str
    tokens: int
    score: RubricScore
    report: FieldReport | None
    """None where the document has no gold."""


def main(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a model, or the best policy of a run, on its own; prints a table and returns the summary.

    Raises ConfigError and DataError.
    """
    from transformers import AutoTokenizer

    from rl.sampler import Sampler

    task = task_of(config)
    before = None if config.baseline is None else read_baseline(config.baseline)
    with RewardPool(task, config.rewards.workers, config.rewards.deadline_s) as pool:
        run_dir, model_path = find_model(config.model.path)
        parts = load_documents(config.docs, task, None)
        seen_groups = groups_seen(config.seen, run_dir)
        documents = {"all": (*parts.train, *parts.test), "train": parts.train, "test": parts.test}[config.part]
        prepared = prepare(
            documents[: config.documents],
            task,
            AutoTokenizer.from_pretrained(model_path),
            max_prompt_tokens=config.model.max_positions - config.sampler.max_tokens,
            schema_in_prompt=config.model.schema_in_prompt,
            what=config.part,
        )
        sampler = Sampler(
            model_path,
            config.sampler,
            max_model_len=config.model.max_positions,
            dtype=config.model.dtype,
            threads=config.threads,
            seed=config.seed,
            constraint=constraint(config.sampler.structured, task, prepared.documents),
        )
        try:
            start = time.perf_counter()
            answers = answer(
                prepared,
                sampler,
                pool,
                task,
                max_tokens=config.sampler.max_tokens,
                best_of=config.best_of,
                seed=config.seed,
            )
            seconds = time.perf_counter() - start
        finally:
            sampler.close()
    if config.output is not None:
        write_answers(Path(config.output), answers)
    summary = summarise(answers, resamples=config.bootstrap, seen_groups=seen_groups)
    columns = {"all": summary} | {name: summary[name] for name in ("seen", "unseen") if name in summary}
    if before is not None:
        summary["delta"] = differences(before, answers, config.baseline or "", resamples=config.bootstrap)
        columns[CHANGE] = summary["delta"]
    print(table(columns))
    speed = sum(a.tokens for a in answers) / max(seconds, 1e-9)
    return summary | {"left_out": len(prepared.left_out), "tokens_per_second": round(speed, 1)}


def find_model(path: str) -> tuple[Path | None, str]:
    """(the run that made the model or None, the model to load): a run's folder stands for its best policy."""
    folder = Path(path)
    if (folder / "metrics.jsonl").is_file():
        if not (folder / "best").is_dir():
            raise ConfigError(f"model.path: the run {path} has no best policy yet; give a model folder")
        return folder, str(folder / "best")
    return (folder.parent if (folder.parent / "metrics.jsonl").is_file() else None), path


def groups_seen(seen: str | None, run_dir: Path | None) -> frozenset[str] | None:
    """Groups of the training documents: of a JSONL file, of a run, or None where neither is known."""
    if seen is not None and Path(seen).is_file():
        return frozenset(d.group for d in read_documents(seen, max_bad=0, quarantine=None))
    folder = run_dir if seen is None else Path(seen)
    if folder is None:
        return None
    if not (folder / "config.json").is_file():
        raise ConfigError(f"seen: {folder} is neither a JSONL file nor a run's folder")
    try:
        config = read_config((folder / "config.json").read_bytes())
    except ValidationError:
        raise ConfigError(f"seen: {folder} is not a run's folder; give one, or a JSONL file of documents") from None
    return frozenset(d.group for d in load_documents(config.docs, load_task(config.task), None).train)


def answer(
    prepared: Prepared,
    sampler: Sampler,
    pool: RewardPool,
    task: Task,
    *,
    max_tokens: int,
    best_of: int = 1,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> list[Answer]:
    """Answers to all documents, in their order, on every rank; each rank answers its shard.

    Greedy ones, or the best by the rubric among that and `best_of` - 1 others, drawn from `seed`. Rewards see the
    documents without gold; gold is only for the comparison after it.
    """
    from rl.distributed import gather, shard

    indexes = list(range(len(prepared)))
    mine = prepared.take(shard(indexes, accelerator) if accelerator else indexes)
    rollouts = [[rollout] for rollout in sampler.greedy(mine.prompts, max_tokens)] if len(mine) else []
    if best_of > 1 and rollouts:
        groups = sampler.rollout(mine.prompts, best_of - 1, run_seed=seed, step=0)
        rollouts = [[*greedy, *group.rollouts] for greedy, group in zip(rollouts, groups, strict=True)]
    pairs = [(without_gold(d), [r.text for r in drawn]) for d, drawn in zip(mine.documents, rollouts, strict=True)]
    answers = []
    for document, drawn, scores in zip(mine.documents, rollouts, pool.score(pairs), strict=True):
        totals = [score.total if score.status == "scored" else -1.0 for score in scores]
        best = totals.index(max(totals))  # the greedy one comes first, and stays where none is better
        rollout = drawn[best]
        answers.append(
            Answer(
                document.id,
                document.group,
                rollout.text,
                rollout.finish_reason,
                len(rollout.completion_ids),
                scores[best],
                report(task, rollout.text, document.gold),
            )
        )
    return gather(answers, accelerator) if accelerator else answers


def report(task: Task, completion: str, gold: Mapping[str, Any] | None) -> FieldReport | None:
    """How the completion compares with gold; None without gold. What does not parse has every field wrong."""
    if gold is None:
        return None
    attempt = parse(completion)
    return compare(task, attempt.value if isinstance(attempt, Attempt) else None, dict(gold))


def without_gold(document: Document) -> Document:
    """What training and scoring may see."""
    return replace(document, gold=None)


def ratios(answers: Sequence[Answer]) -> dict[str, Ratio]:
    """Every metric as numerator and denominator a document, [N] each, in the order in which a table shows them."""
    table: dict[str, Ratio] = {}

    def mean(name: str, value: Callable[[Answer], float | bool | None]) -> None:
        values = [value(a) for a in answers]
        numerator = np.array([0.0 if v is None else float(v) for v in values])
        table[name] = numerator, np.array([float(v is not None) for v in values])

    scored = [a.score.status == "scored" for a in answers]
    mean("reward", lambda a: a.score.total if a.score.status == "scored" else None)
    mean("documents_exact", lambda a: a.report.document_exact if a.report else None)
    mean("header_exact", lambda a: a.report.header_exact if a.report else None)
    _add_fields(table, answers)
    mean("parses", lambda a: a.score.gate != "parses" if a.score.status == "scored" else None)
    mean("schema_valid", lambda a: a.score.gate not in ("parses", "schema") if a.score.status == "scored" else None)
    mean("truncated", lambda a: a.finish_reason == "length")
    mean("tokens", lambda a: float(a.tokens))
    for part in _ordered_union(a.score.parts for a, s in zip(answers, scored, strict=True) if s):
        mean(f"part/{part}", partial(_part, part))
    return table


def _part(name: str, answer: Answer) -> float | None:
    return answer.score.parts.get(name) if answer.score.status == "scored" else None


def _add_fields(table: dict[str, Ratio], answers: Sequence[Answer]) -> None:
    """field_accuracy and field_f1 over all fields, then exact/<field> and f1/<field> of each."""
    reports = [a.report.fields if a.report else {} for a in answers]
    paths = _ordered_union(reports)
    n = len(answers)
    exact_FN, known_FN = np.zeros((len(paths), n)), np.zeros((len(paths), n))
    twice_tp_FN, all_FN = np.zeros((len(paths), n)), np.zeros((len(paths), n))
    for column, fields in enumerate(reports):
        for row, path in enumerate(paths):
            if (counts := fields.get(path)) is not None:
                exact_FN[row, column], known_FN[row, column] = float(counts.exact), 1.0
                twice_tp_FN[row, column] = 2 * counts.tp
                all_FN[row, column] = 2 * counts.tp + counts.fp + counts.fn
    table["field_accuracy"] = exact_FN.sum(axis=0), known_FN.sum(axis=0)
    table["field_f1"] = twice_tp_FN.sum(axis=0), all_FN.sum(axis=0)
    for row, path in enumerate(paths):
        table[f"exact/{path}"] = exact_FN[row], known_FN[row]
        table[f"f1/{path}"] = twice_tp_FN[row], all_FN[row]


def _ordered_union(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    names: dict[str, None] = {}
    for mapping in mappings:
        names.update(dict.fromkeys(mapping))
    return list(names)


def summarise(answers: Sequence[Answer], *, resamples: int, seen_groups: Collection[str] | None) -> dict[str, Any]:
    """{"n": ..., metric: {"value": ..., "ci95": [low, high]}, ..., "seen": {...}, "unseen": {...}}.

    Metrics that no document has are left out. seen and unseen, by group, are there when `seen_groups` is.
    """
    bootstrap = Bootstrap(len(answers), resamples=resamples)
    summary: dict[str, Any] = {"n": len(answers)}
    for name, ratio in ratios(answers).items():
        estimate = bootstrap.ratio(*ratio)
        if estimate.value is not None:
            summary[name] = estimate.as_dict()
    if seen_groups is not None:
        for part, wanted in (("seen", True), ("unseen", False)):
            members = [a for a in answers if (a.group in seen_groups) is wanted]
            summary[part] = summarise(members, resamples=resamples, seen_groups=None)
    return summary


def delta(before: Sequence[Answer], after: Sequence[Answer], metric: str, *, resamples: int) -> dict[str, Any]:
    """after - before of one metric, with the interval of the paired difference over documents."""
    if [a.document_id for a in before] != [a.document_id for a in after]:
        raise ValueError("a paired difference needs the same documents in the same order")
    bootstrap = Bootstrap(len(before), resamples=resamples)
    return bootstrap.paired_delta(ratios(before)[metric], ratios(after)[metric]).as_dict()


def read_baseline(path: str) -> list[Answer]:
    """Answers of another evaluation. Raises DataError where the file holds none."""
    try:
        answers = read_answers(Path(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"baseline={path}: not what offramp evaluate writes to its output") from error
    if not answers:
        raise DataError(f"baseline={path}: no answers in it")
    return answers


def differences(before: Sequence[Answer], after: Sequence[Answer], path: str, *, resamples: int) -> dict[str, Any]:
    """{"n": ..., metric: {"value": after - before, "ci95": [low, high]}, ...}, paired over documents.

    Raises DataError unless both answered the same documents.
    """
    at = {answer.document_id: answer for answer in before}
    missing = [answer.document_id for answer in after if answer.document_id not in at]
    if missing or len(at) != len(after):
        which = f"not {missing[0]!r} among them" if missing else f"{len(after)} here"
        raise DataError(
            f"baseline={path}: answers to {len(at)} documents, {which}; evaluate both on the same documents"
        )
    ordered = [at[answer.document_id] for answer in after]
    known = ratios(ordered).keys()
    changes = {
        metric: delta(ordered, after, metric, resamples=resamples) for metric in ratios(after) if metric in known
    }
    return {"n": len(after)} | {metric: change for metric, change in changes.items() if change["value"] is not None}


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """One JSON object a document: answer, score and comparison. `read_answers` reads it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for a in answers:
            row = {
                "id": a.document_id,
                "group": a.group,
                "completion": a.completion,
                "finish_reason": a.finish_reason,
                "tokens": a.tokens,
                "status": a.score.status,
                "reward": a.score.total,
                "gate": a.score.gate,
                "parts": a.score.parts,
                "error": a.score.error,
                "report": asdict(a.report) if a.report else None,
            }
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def read_answers(path: Path) -> list[Answer]:
    """The answers that `write_answers` wrote, findings left out."""
    return [_answer(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _answer(row: dict[str, Any]) -> Answer:
    score = RubricScore(
        total=row["reward"],
        status=row["status"],
        gate=row["gate"],
        parts=row["parts"],
        findings=(),
        error=row["error"],
    )
    report = row["report"]
    if report is not None:
        fields = {path: FieldCounts(**counts) for path, counts in report.pop("fields").items()}
        report = FieldReport(fields=fields, **report)
    return Answer(row["id"], row["group"], row["completion"], row["finish_reason"], row["tokens"], score, report)


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Summaries side by side, a metric a row: value and interval, in plain text that a log file can hold."""
    names = [n for n in _ordered_union(columns.values()) if n not in ("n", "seen", "unseen", "delta")]
    rows = [["", *columns], ["documents", *(str(c["n"]) for c in columns.values())]]
    signs = ["+" if column == CHANGE else "" for column in columns]
    rows += [
        [name, *(_cell(c.get(name), sign) for c, sign in zip(columns.values(), signs, strict=True))] for name in names
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cell(metric: Mapping[str, Any] | None, sign: str) -> str:
    if metric is None:
        return "-"
    digits = 3 if abs(metric["value"]) < 10 else 1
    low, high = metric["ci95"]
    return f"{metric['value']:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
