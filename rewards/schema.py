"""The gates' measure: how much of the schema an attempt keeps, and the first faults in words."""

from __future__ import annotations

from typing import Any

from rewards.plan import Plan
from rewards.score import Finding

MAX_FAULTS = 8


def valid(plan: Plan, value: Any) -> bool:
    """Whether the attempt keeps the task's JSON Schema."""
    return bool(plan.validator.is_valid(value))


def share(plan: Plan, value: dict[str, Any]) -> tuple[float, list[Finding]]:
    """(share of the top-level keys that are there and keep their schema; unknown keys count against it, findings)."""
    faults: list[Finding] = []
    bad: set[str] = set()
    for i, fault in enumerate(plan.validator.iter_errors(value)):
        path = ".".join(map(str, fault.instance_path))
        bad.add(str(fault.instance_path[0]) if fault.instance_path else "")
        if len(faults) < MAX_FAULTS:
            faults.append(Finding(path, None, None, 0.0, str(fault.message)[:200]))
        if i >= 200:
            break
    properties = plan.task.schema["properties"]
    required = plan.task.schema.get("required", ())
    known = [key for key in properties if key in value or key in required]
    kept = sum(key in value and key not in bad for key in known)
    unknown = sum(key not in properties for key in value)
    return kept / max(1, len(known) + unknown), faults
