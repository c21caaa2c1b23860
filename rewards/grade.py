"""The rubric as filter, table, confidence and review queue: four functions over the same scores. No gold is read.

attempts = grade([(document, completion), ...], task)
kept     = [a for a in attempts if confidence(a) >= 0.8]      # filter of training data, gate of an answer in service
print(table(attempts))                                         # evaluation without labels
queue    = review_order(attempts)                              # what a person should look at first, and why
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.document import Document
from rewards.parse import Attempt, parse
from rewards.rubric import Rubric, RubricScore
from rewards.score import Finding
from rewards.task import Task

MOST_REASONS = 6


@dataclass(frozen=True, slots=True)
class Graded:
    """One completion and what the rubric says about it.

    value: the parsed attempt, or None.  points: of the fields outside arrays, by path (None: left out).
    head: the fields that a document always has; what `confidence` asks about unless told otherwise.
    fields: every field of the task.
    """

    document: str
    completion: str
    value: dict[str, Any] | None
    score: RubricScore
    points: dict[str, float | None] = field(repr=False)
    head: tuple[str, ...] = field(repr=False)
    fields: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Review:
    """An entry of the review queue: the attempt, its confidence, and why it is doubted, the costliest reason first."""

    attempt: Graded
    confidence: float
    reasons: tuple[str, ...]


def grade(traces: Iterable[tuple[Document, str]], task: Task) -> list[Graded]:
    """Scores (document, completion) pairs, in order; neighbours of one document share its index. Never raises on what a
    model wrote; a reward in trouble leaves a score with status "error"."""
    rubric = Rubric(task)
    head = tuple(path for path, spec in task.fields.items() if spec.expected == "always" and "[]" not in path)
    graded: list[Graded] = []
    group: list[str] = []
    of: Document | None = None

    def flush() -> None:
        for completion, score in zip(group, rubric.score_group(of, group) if of else [], strict=True):
            attempt = parse(completion)
            value = attempt.value if isinstance(attempt, Attempt) else None
            points = {f.path: f.points for f in score.findings if f.path in task.fields}
            assert of is not None
            graded.append(Graded(of.id, completion, value, score, points, head, tuple(task.fields)))
        group.clear()

    for document, completion in traces:
        if of is not None and document is not of:
            flush()
        of = document
        group.append(completion)
    flush()
    return graded


def confidence(attempt: Graded, fields: Sequence[str] | None = None) -> float:
    """How sure the rubric is that the named fields (default: those that a document always has) are right, in [0, 1]:
    the reward times the points of each. 0 for an attempt that failed a gate or could not be scored.

    The reward brings in what the fields share (the relation that closes, the rows that are covered); the points say
    whether each stands where it should.
    """
    if attempt.score.status != "scored" or attempt.score.gate is not None:
        return 0.0
    sure = attempt.score.total
    for path in attempt.head if fields is None else fields:
        points = attempt.points.get(path)
        sure *= 1.0 if points is None else points
    return sure


def review_order(attempts: Sequence[Graded], fields: Sequence[str] | None = None) -> list[Review]:
    """The attempts, least confident first, with reasons; equal ones keep their order."""
    queue = [Review(a, confidence(a, fields), reasons(a)) for a in attempts]
    return sorted(queue, key=lambda entry: entry.confidence)


_ROW = re.compile(r"\[\d+\]")


def reasons(attempt: Graded) -> tuple[str, ...]:
    """Why the attempt lost points, each once, the costliest first. They name fields and checks, never values."""
    if attempt.score.status != "scored":
        return (f"not scored: {attempt.score.error}",)
    lost: Counter[str] = Counter()
    for finding in attempt.score.findings:
        if finding.points is not None and finding.points < 1.0:
            lost[f"{finding.path or 'whole'}: {finding.why}"] += round(1000 * (1.0 - finding.points))
    head = [f"stopped at the gate {attempt.score.gate}"] if attempt.score.gate else []
    return tuple([*head, *(why for why, _ in lost.most_common(MOST_REASONS))])


def doubted(attempt: Graded, aside: Sequence[str] = ()) -> bool:
    """Whether the attempt lost points for anything but the fields (paths such as items[].name) that are set aside."""
    if attempt.score.status != "scored" or attempt.score.gate is not None:
        return True
    lost = (f.path for f in attempt.score.findings if f.points is not None and f.points < 1.0)
    return any(_ROW.sub("[]", path) not in aside for path in lost)


def table(attempts: Sequence[Graded], accept: float = 0.8) -> dict[str, Any]:
    """Means over the attempts: n, reward, parts, gates, errors, accepted (share with confidence >= accept), and for
    each field its mean points and the share that lost some (`doubted`), with the commonest reason."""
    scored = [a for a in attempts if a.score.status == "scored"]
    passed = [a for a in scored if a.score.gate is None]
    names = dict.fromkeys(name for a in scored for name in a.score.parts)
    return {
        "n": len(attempts),
        "reward": _mean([a.score.total for a in scored]),
        "confidence": _mean([confidence(a) for a in scored]),
        "accept": accept,
        "accepted": _mean([float(confidence(a) >= accept) for a in attempts]),
        "parts": {name: _mean([a.score.parts.get(name) for a in passed]) for name in names},
        "fields": _fields(passed),
        "gates": dict(Counter(a.score.gate for a in scored if a.score.gate is not None)),
        "errors": len(attempts) - len(scored),
    }


def _fields(attempts: Sequence[Graded]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[Finding]] = {}
    for attempt in attempts:
        for finding in attempt.score.findings:
            path = _ROW.sub("[]", finding.path)
            if path in attempt.fields and finding.points is not None:
                found.setdefault(path, []).append(finding)
    rows: dict[str, dict[str, Any]] = {}
    for path, findings in found.items():
        bad = Counter(f.why for f in findings if f.points is not None and f.points < 1.0)
        rows[path] = {
            "points": _mean([f.points for f in findings]),
            "doubted": sum(bad.values()) / len(findings),
            "why": bad.most_common(1)[0][0] if bad else None,
        }
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accepting all with confidence >= threshold: the share accepted, and the share of those that is right."""

    threshold: float
    coverage: float
    precision: float


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """points: one for each distinct confidence, the surest first.  aurc: the mean risk over the coverages (lower is
    better).  augrc: the mean share of undetected errors (Traub et al. 2024).  n: attempts.  right: the right ones.
    """

    points: tuple[CurvePoint, ...]
    aurc: float
    augrc: float
    n: int
    right: int

    def at_coverage(self, coverage: float) -> CurvePoint:
        """The point with the least coverage that is at least `coverage`."""
        return next((p for p in self.points if p.coverage >= coverage - 1e-12), self.points[-1])

    def at_precision(self, precision: float) -> CurvePoint | None:
        """The point with the most coverage among those that are at least so precise; None where none is."""
        return max((p for p in self.points if p.precision >= precision), key=lambda p: p.coverage, default=None)


def risk_coverage(confidences: Sequence[float], right: Sequence[bool]) -> RiskCoverage:
    """The risk-coverage curve of confidences against the truth. Equal confidences are accepted together: no order among
    them is invented. Raises ValueError without attempts."""
    if not confidences:
        raise ValueError("a risk-coverage curve needs at least one attempt")
    ranked = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    n = len(ranked)
    points: list[CurvePoint] = []
    good = 0
    risk_area = undetected = 0.0
    start = 0
    for i, (threshold, is_right) in enumerate(ranked, start=1):
        good += is_right
        if i < n and ranked[i][0] == threshold:
            continue
        point = CurvePoint(threshold, i / n, good / i)
        points.append(point)
        risk_area += (i - start) / n * (1.0 - point.precision)
        undetected += (i - start) / n * (1.0 - point.precision) * point.coverage
        start = i
    return RiskCoverage(tuple(points), risk_area, undetected, n, good)
