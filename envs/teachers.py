"""Teachers: who answers a document in place of the policy. Traces that are there, an endpoint, or gold with errors.

(A local model is a teacher too; it needs torch and stands in rl/label.py.) A teacher is a function from jobs to
outcomes, in any order; envs/labelling.py writes them down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field

from envs.documents import read_traces
from envs.faulty import FaultyTeacher
from envs.grounded_grammar import grounded_grammar
from envs.prompts import messages
from rewards.chat import Endpoint, Request, Trouble
from rewards.document import Document
from rewards.endpoint import Client
from rewards.errors import ConfigError, DataError
from rewards.parse import Attempt, parse
from rewards.task import Task

__all__ = ["Failed", "FaultyTeacher", "Job", "Labelled", "OpenaiTeacher", "RecordedTeacher"]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RecordedTeacher(_Strict):
    """Answers that were recorded before: production traces."""

    kind: Literal["recorded"]
    path: Annotated[str, Field(min_length=1)]
    """Traces, JSON lines."""
    extractor: str | None
    """Take only this extractor's; null takes all."""
    max_bad: Annotated[int, Field(ge=0)]


class OpenaiTeacher(_Strict):
    """A model behind any OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    endpoint: Endpoint
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Annotated[int, Field(ge=1)]
    """Longest answer, in tokens."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Sent with each request, plus the number of the sample."""
    schema_in_prompt: bool
    """Append the task's JSON Schema to the prompt."""


@dataclass(frozen=True, slots=True)
class Job:
    """One answer that is wanted: the document, and which of its samples (from 0)."""

    document: Document
    sample: int

    @property
    def key(self) -> tuple[str, int]:
        return self.document.id, self.sample


@dataclass(frozen=True, slots=True)
class Labelled:
    """usage: prompt_tokens, completion_tokens, cost, cached.  faults: errors that were put in, by name."""

    job: Job
    extractor: str
    completion: str
    usage: dict[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """kind: as in rewards.chat, or "missing".  fatal: the others would fail the same way."""

    job: Job
    kind: str
    reason: str
    fatal: bool = False


Outcome = Labelled | Failed


def recorded(config: RecordedTeacher, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """The n-th trace of a document is its sample n. Raises DataError."""
    found: dict[str, list[tuple[str, str]]] = {}
    for trace in read_traces(config.path, max_bad=config.max_bad, quarantine=None, key="teacher.max_bad"):
        if config.extractor in (None, trace.extractor):
            found.setdefault(trace.id, []).append((trace.extractor, trace.completion))
    if not found:
        raise DataError(f"teacher.path={config.path}: has no trace of teacher.extractor={config.extractor}")
    for job in jobs:
        traces = found.get(job.document.id, [])
        if job.sample < len(traces):
            yield Labelled(job, *traces[job.sample])
        else:
            yield Failed(job, "missing", f"{len(traces)} traces of this document in {config.path}")


def ask_endpoint(config: OpenaiTeacher, client: Client, task: Task, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Answers of the endpoint as they come. What is not the schema is asked for again, then a failure."""
    validator = jsonschema_rs.validator_for(task.schema)

    def check(text: str) -> str | None:
        found = tidy(text, task, validator)
        return found.reason if isinstance(found, Unusable) else None

    requests = [
        Request(
            messages=tuple(messages(task, job.document.text, schema_in_prompt=config.schema_in_prompt)),
            schema=task.schema,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            seed=config.seed + job.sample,
            grammar=partial(grounded_grammar, task, job.document.text),
            check=check,
        )
        for job in jobs
    ]
    for i, outcome in client.complete_all(requests):
        job = jobs[i]
        if isinstance(outcome, Trouble):
            yield Failed(job, outcome.kind, outcome.message, outcome.fatal)
            continue
        found = tidy(outcome.text, task, validator)
        if isinstance(found, Unusable):  # from a cache that another program wrote
            yield Failed(job, "content", found.reason)
            continue
        usage = {
            "prompt_tokens": outcome.prompt_tokens, "completion_tokens": outcome.completion_tokens,
            "cost": outcome.cost, "cached": outcome.cached,
        }  # fmt: skip
        yield Labelled(job, config.endpoint.model, found, usage)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why an answer is no label."""

    reason: str


_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.DOTALL)


def tidy(text: str, task: Task, validator: Any) -> str | Unusable:
    """The answer as a completion: a code fence taken off, nulls of keys that may be left out taken away.

    Anything else stays as the model wrote it. validator: of task.schema.
    """
    fenced = _FENCED.fullmatch(text)
    text = fenced[1] if fenced else text.strip()
    attempt = parse(text)
    if not isinstance(attempt, Attempt):
        return Unusable(attempt.reason)
    if validator.is_valid(attempt.value):
        return text
    try:  # the strict form of a schema has null where ours has no key
        canonical = task.canonical(attempt.value)
    except DataError as fault:
        return Unusable(str(fault))
    again = parse(canonical)
    if isinstance(again, Attempt) and _same_but_nulls(attempt.value, again.value) and validator.is_valid(again.value):
        return canonical
    first = next(iter(validator.iter_errors(attempt.value)), None)
    return Unusable(f"not the schema: {str(first).splitlines()[0][:120] if first is not None else 'invalid'}")


def _same_but_nulls(value: Any, canonical: Any) -> bool:
    """Whether only keys with null were left out: a key that the schema does not know is the model's fault."""
    if isinstance(value, dict) and isinstance(canonical, dict):
        return all(
            _same_but_nulls(below, canonical[key]) if key in canonical else below is None
            for key, below in value.items()
        )
    if isinstance(value, list) and isinstance(canonical, list):
        return len(value) == len(canonical) and all(map(_same_but_nulls, value, canonical))
    return bool(value == canonical)


def check_samples(config: OpenaiTeacher | RecordedTeacher | FaultyTeacher, samples: int) -> None:
    """Raises ConfigError where all samples would be the same."""
    if samples > 1 and isinstance(config, OpenaiTeacher) and config.temperature == 0:
        raise ConfigError(f"samples={samples}: they would all be the same; set teacher.temperature above 0")
