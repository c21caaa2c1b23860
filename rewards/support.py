"""What the source says for a value: shared by the evidence of every kind of field."""

from __future__ import annotations

from typing import Any, NamedTuple


class Support(NamedTuple):
    """What the source says for one value: points in [0, 1], the span, why."""

    points: float
    span: tuple[int, int] | None
    why: str


class Evidence(NamedTuple):
    """What the source says about one field: supports by canonical value, and whether null is an abstention."""

    values: dict[Any, Support]
    expected: bool


NOT_PRINTED = Support(0.0, None, "not printed in the document")
BESIDE = "printed beside its label"
UNLABELLED = "printed, and no amount is labelled so"
ELSEWHERE = 0.1  # a printed value in the wrong place: below an abstention, above an invention


def put(values: dict[Any, Support], key: Any, support: Support) -> None:
    if key not in values or values[key].points < support.points:
        values[key] = support
