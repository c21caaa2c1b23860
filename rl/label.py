"""`offramp label`: the configuration of a labelling, its documents, and the teacher that is a local model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import Field

from envs import faulty, teachers
from envs.documents import read_documents
from envs.labelling import Tally, label
from envs.teachers import Failed, FaultyTeacher, Job, Labelled, OpenaiTeacher, Outcome, RecordedTeacher, Unusable, tidy
from rewards.document import Document
from rewards.endpoint import Client
from rewards.errors import ConfigError, DataError
from rewards.task import Task, load_task
from rl.config import Count, DocsConfig, JsonlDocs, ModelConfig, SamplerConfig, Seed, Share, Strict, Text
from rl.constraint import constraint
from rl.prepare import encode, load_documents
from rl.rollouts import Rollout

CHUNK = 64
"""Documents that a local model answers at a time: what is lost when it is killed."""


class VllmTeacher(Strict):
    """A local model, through the sampler."""

    kind: Literal["vllm"]
    model: ModelConfig
    sampler: SamplerConfig
    greedy: bool
    """The most likely answer instead of samples at sampler.temperature."""
    seed: Seed
    threads: Count | None


Teacher = Annotated[OpenaiTeacher | RecordedTeacher | FaultyTeacher | VllmTeacher, Field(discriminator="kind")]


class LabelConfig(Strict):
    """Everything that decides a labelling."""

    task: Text
    docs: DocsConfig
    """All documents are labelled, of every side of the split."""
    teacher: Teacher
    samples: Count
    """Answers of each document."""
    out: Text
    """Traces, JSON lines: {"id", "extractor", "completion", "sample", "usage"}."""
    documents: Count | None
    """At most so many documents, the first ones; null takes all."""
    max_failed: Share
    """Share of answers in trouble above which the labelling stops (answers that are no label do not count)."""


NOT_DECISIVE = (
    "concurrency", "timeout_s", "attempts", "retries", "prompt_price", "completion_price", "max_cost",
    "max_total_tokens", "cache", "key_env", "base_url",
)  # fmt: skip
"""Keys of an endpoint that may be otherwise when a labelling goes on."""


def main(config: LabelConfig, report: Callable[[Tally], None]) -> dict[str, Any]:
    """Labels the documents; returns the summary. Raises ConfigError, DataError, InfraError, Paused."""
    task = load_task(config.task)
    teacher = config.teacher
    if isinstance(teacher, VllmTeacher):
        if config.samples > 1 and teacher.greedy:
            raise ConfigError(f"samples={config.samples}: they would all be the same; set teacher.greedy=false")
    else:
        teachers.check_samples(teacher, config.samples)
    if isinstance(teacher, FaultyTeacher):
        faulty.check(teacher, task)
    jobs = [Job(document, n) for document in documents_of(config, task) for n in range(config.samples)]
    made = teacher.model_dump(mode="json")
    for key in NOT_DECISIVE:
        made.get("endpoint", {}).pop(key, None)
    made = {"task": task.name, "prompt": task.prompt, "schema": task.schema, "teacher": made}
    ask = asker(teacher, task, config.samples)
    tally = label(jobs, ask, Path(config.out), made, max_failed=config.max_failed, report=report)
    return {"out": config.out, "teacher": teacher.kind, **tally.summary()}


def documents_of(config: LabelConfig, task: Task) -> list[Document]:
    """Every document of `docs` once."""
    docs = config.docs
    if isinstance(docs, JsonlDocs):
        paths = [docs.path, *docs.extra, *([docs.test_path] if docs.test_path is not None else [])]
        found = [
            d for path in paths for d in read_documents(path, max_bad=docs.max_bad, quarantine=None, limit=docs.limit)
        ]
    else:
        parts = load_documents(docs, task, None)
        found = [*parts.train, *parts.test]
    once = list({document.id: document for document in found}.values())
    if len(once) < len(found):
        raise DataError(f"docs: {len(found) - len(once)} documents have the id of another one; make them differ")
    return once[: config.documents]


def asker(
    teacher: OpenaiTeacher | RecordedTeacher | FaultyTeacher | VllmTeacher, task: Task, samples: int
) -> Callable[[Sequence[Job], float], Iterator[Outcome]]:
    """(open jobs, money spent before) -> outcomes, for envs.labelling. A key that is not set is a ConfigError here."""
    if isinstance(teacher, OpenaiTeacher):
        Client(teacher.endpoint.model_copy(update={"cache": None}), "teacher.endpoint")
        return lambda jobs, spent: teachers.ask_endpoint(
            teacher, Client(teacher.endpoint, "teacher.endpoint", spent), task, jobs
        )
    if isinstance(teacher, RecordedTeacher):
        return lambda jobs, spent: teachers.recorded(teacher, jobs)
    if isinstance(teacher, FaultyTeacher):
        return lambda jobs, spent: _with_faults(teacher, task, jobs)
    return lambda jobs, spent: local(teacher, task, jobs, samples)


def _with_faults(teacher: FaultyTeacher, task: Task, jobs: Sequence[Job]) -> Iterator[Outcome]:
    for job in jobs:
        completion, faults = faulty.answer(teacher, task, job.document, job.sample)
        yield Labelled(job, "faulty", completion, faults=faults)


def local(teacher: VllmTeacher, task: Task, jobs: Sequence[Job], samples: int) -> Iterator[Outcome]:
    """Answers of a local model. A document's samples are drawn together, also where only some are open, so that a
    labelling that goes on gives the same ones."""
    from rl.sampler import Sampler

    model, settings = teacher.model, teacher.sampler
    sampler = Sampler(
        model.path, settings, max_model_len=model.max_positions, dtype=model.dtype, threads=teacher.threads,
        seed=teacher.seed, constraint=constraint(settings.structured, task, (job.document for job in jobs)),
    )  # fmt: skip
    validator = jsonschema_rs.validator_for(task.schema)
    try:
        by_document = [list(group) for _, group in groupby(jobs, key=lambda job: job.document.id)]
        for start in range(0, len(by_document), CHUNK):
            fits: list[tuple[list[Job], tuple[str, tuple[int, ...]]]] = []
            for group in by_document[start : start + CHUNK]:
                ids = encode(group[0].document, task, sampler.tokenizer, schema_in_prompt=model.schema_in_prompt)
                if len(ids) + settings.max_tokens > model.max_positions:
                    reason = f"{len(ids)} prompt tokens do not fit teacher.model.max_positions={model.max_positions}"
                    yield from (Failed(job, "truncated", reason) for job in group)
                else:
                    fits.append((group, (group[0].document.id, ids)))
            prompts = [prompt for _, prompt in fits]
            if teacher.greedy:
                drawn: list[tuple[Rollout, ...]] = [(r,) for r in sampler.greedy(prompts, settings.max_tokens)]
            else:
                drawn = [g.rollouts for g in sampler.rollout(prompts, samples, run_seed=teacher.seed, step=0)]
            for (group, (_, ids)), rollouts in zip(fits, drawn, strict=True):
                for job in group:
                    rollout = rollouts[job.sample]
                    found = tidy(rollout.text, task, validator)
                    tokens = len(rollout.completion_ids)
                    if rollout.finish_reason == "length":
                        yield Failed(job, "truncated", f"cut at teacher.sampler.max_tokens={settings.max_tokens}")
                    elif isinstance(found, Unusable):
                        yield Failed(job, "content", found.reason)
                    else:
                        usage = {"prompt_tokens": len(ids), "completion_tokens": tokens, "cost": 0.0, "cached": False}
                        yield Labelled(job, model.path, found, usage)
    finally:
        sampler.close()
