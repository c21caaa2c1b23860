"""Document: what one line of documents.jsonl says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """id; text; group: what must not leak between splits (the vendor); gold: the right answer, or None.

    Rewards never read gold; only rewards.fields and the evaluation do.
    """

    id: str
    text: str
    group: str
    gold: dict[str, Any] | None
