"""What a constrained sampler may write, document by document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from envs.grounded_grammar import grounded_grammar
from rewards.document import Document
from rewards.task import Task

Constraint: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Document id -> arguments of vLLM's StructuredOutputsParams."""


def constraint(
    structured: Literal["text", "schema", "grounded"], task: Task, documents: Iterable[Document]
) -> Constraint | None:
    """None for "text": anything may be written. "grounded" is made for `documents`, by id."""
    if structured == "text":
        return None
    schema = {"json": task.schema}
    if structured == "schema":
        return lambda _: schema
    texts = {document.id: document.text for document in documents}
    grammar = lru_cache(maxsize=1_000)(lambda document_id: grounded_grammar(task, texts[document_id]))
    return lambda document_id: {"grammar": grammar(document_id)}
