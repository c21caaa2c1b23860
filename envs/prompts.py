"""Documents to chat messages. Gold never enters a prompt."""

from __future__ import annotations

import json

from rewards.task import Task


def messages(task: Task, text: str, *, schema_in_prompt: bool = False) -> list[dict[str, str]]:
    """One user message: the task's instruction, its JSON Schema if asked for, then the document's text."""
    parts = [task.prompt]
    if schema_in_prompt:
        parts.append("JSON Schema:\n" + json.dumps(task.schema, ensure_ascii=False, separators=(",", ":")))
    return [{"role": "user", "content": "\n\n".join([*parts, text])}]
