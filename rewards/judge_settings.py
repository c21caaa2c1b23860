"""The `judge:` section of a task file, and what it must not do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rewards.chat import Endpoint


class JudgeSpec(BaseModel):
    """A language model that says of the fields without a check in code whether their values are right.

    fields: path -> what the value should be, in words (what the model is told).
    unsure: points of a value that the model cannot decide on (right has 1, wrong 0).
    pause_above: share of the last answers in trouble above which scoring waits for the endpoint.
    pause_s: seconds that it waits before the run stops, saved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    fields: Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=500)]], Field(min_length=1)]
    unsure: Annotated[float, Field(ge=0.0, le=1.0)]
    pause_above: Annotated[float, Field(ge=0.0, le=1.0)]
    pause_s: Annotated[float, Field(ge=0.0)]
    endpoint: Endpoint


def judge_fault(
    judge: JudgeSpec | None, weights: Mapping[str, float], fields: Mapping[str, Any], known: Collection[str]
) -> str | None:
    """What is wrong with the judge of a task file (weights: of rubric.rewards), as "key: why; the fix"; or None."""
    weight = weights.get("judge", 0.0)
    if judge is None:
        return "rubric.rewards.judge: there is no section judge; add it, or take the reward out" if weight else None
    others = [value for name, value in weights.items() if name != "judge" and value > 0]
    if weight and not others:
        return "rubric.rewards.judge: a judge alone is no rubric; add a reward that is computed"
    if weight and weight > min(others):
        return f"rubric.rewards.judge: must weigh the least, at most {min(others):g}, got {weight:g}"
    for path in judge.fields:
        if path not in known or path not in fields:
            return f"judge.fields.{path}: not a leaf of the schema; known: {', '.join(known)}"
        spec = fields[path]
        if spec.weight > 0 and not (spec.kind == "class" and not spec.words):
            return (
                f"judge.fields.{path}: has a check in code (kind {spec.kind}); the judge takes classes without words, "
                f"and fields of weight 0: set fields.{path}.weight to 0"
            )
    return None
