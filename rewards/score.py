"""Score and Finding: what a reward says about one attempt, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Status = Literal["scored", "not_applicable", "error"]


class Finding(NamedTuple):
    """One remark about one field.

    path: where in the attempt ("items[2].amount"), "" for the whole.  value: what was extracted.
    span: (start, end) character offsets of the evidence in the document's text, or None.
    points: in [0, 1], or None where the field was left out of the score.  why: in words.
    """

    path: str
    value: Any
    span: tuple[int, int] | None
    points: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Score:
    """What one reward function returns: a value in [0, 1], or not applicable, or an error (trouble, never a 0)."""

    value: float | None
    status: Status
    findings: tuple[Finding, ...] = ()
    error: str | None = None

    def __post_init__(self) -> None:
        if self.status == "scored":
            # Written so that NaN fails: min and max let it through.
            if not (isinstance(self.value, (int, float)) and 0.0 <= self.value <= 1.0):
                raise ValueError(f"a scored value must be in [0, 1], got {self.value!r}")
        elif self.value is not None:
            raise ValueError(f"a Score that is {self.status} must have value None, got {self.value!r}")


def scored(value: float, findings: list[Finding] | tuple[Finding, ...] = ()) -> Score:
    """A Score with a value in [0, 1]."""
    return Score(value, "scored", tuple(findings))


def not_applicable(why: str, path: str = "") -> Score:
    """A Score that leaves the denominator, with the reason as its finding."""
    return Score(None, "not_applicable", (Finding(path, None, None, None, why),))


def error(message: str) -> Score:
    """A Score for infrastructure trouble: the attempt is not judged."""
    return Score(None, "error", (), message)
