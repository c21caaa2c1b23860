"""Rewards of your own, to copy: a task file names them as house_rewards:known_vendor, under rubric.rewards and allow.

    rubric:
      rewards: {grounded: 4, reconciles: 2, covers: 2, house_rewards:known_vendor: 1, house_rewards:no_round_total: 0.5}
      allow: [house_rewards:known_vendor, house_rewards:no_round_total]

The module stands beside the task file or in the working directory, or is installed: offramp score task=mine.yaml ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.document import Document
from rewards.score import Finding, Score, not_applicable, scored
from rewards.task import Task

VENDORS = {"KEDAI MAJU SDN BHD", "POPULAR BOOK CO. (M) SDN BHD"}


def known_vendor(document: Document, attempt: Mapping[str, Any], task: Task) -> Score:
    """1 where the vendor is in the master data; it does not apply where no vendor is given."""
    vendor = attempt.get("vendor")
    if not isinstance(vendor, str):
        return not_applicable("no vendor is given", "vendor")
    known = vendor.upper() in VENDORS
    at = document.text.find(vendor)
    span = (at, at + len(vendor)) if at >= 0 else None
    why = "in the master data" if known else "not in the master data"
    return scored(float(known), [Finding("vendor", vendor, span, float(known), why)])


def no_round_total(document: Document, attempt: Mapping[str, Any], task: Task) -> float:
    """A plain number in [0, 1] is enough: here a total without cents is a little suspicious."""
    return 0.5 if str(attempt.get("total")).endswith(".00") else 1.0
