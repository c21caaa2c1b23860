"""Labelling that can be killed: each answer is a line of the traces file as it comes, and a later start goes on.

Beside OUT.jsonl stand OUT.jsonl.made.json (with what the labels were made; another teacher is refused) and, where
something failed, OUT.jsonl.failed.jsonl. At the end the lines are put in the order of the documents.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.teachers import Failed, Job, Labelled, Outcome
from rewards.errors import ConfigError, DataError, InfraError, Paused

FEWEST = 20
"""Answers before the share of failed ones can stop the labelling."""
NOT_THE_SERVERS = frozenset({"content", "truncated", "refused", "missing"})
"""Failures of single documents: they do not stop the labelling, however many there are."""


@dataclass(slots=True)
class Tally:
    """What was done so far, this start and earlier ones. Money in the unit of the prices."""

    wanted: int
    labelled: int = 0
    before: int = 0
    """Of `labelled`: those of earlier starts."""
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    documents: set[str] = field(default_factory=set)
    faulty_documents: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any]) -> None:
        usage = row.get("usage") or {}
        self.labelled += 1
        self.documents.add(row["id"])
        self.cached += bool(usage.get("cached"))
        self.prompt_tokens += usage.get("prompt_tokens", 0)
        self.completion_tokens += usage.get("completion_tokens", 0)
        self.cost += usage.get("cost", 0.0)
        for fault in row.get("faults", ()):
            self.faults[fault] += 1
            self.faulty_documents.add(row["id"])

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "wanted": self.wanted,
            "labelled": self.labelled,
            "labelled_before": self.before,
            "documents": len(self.documents),
            "cached": self.cached,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": round(self.cost, 6),
            "failed": sum(self.failed.values()),
            "failures": dict(self.failed),
        }
        if self.faults:
            found |= {"faults": dict(sorted(self.faults.items())), "faulty_documents": len(self.faulty_documents)}
        return found


def label(
    jobs: Sequence[Job],
    ask: Callable[[Sequence[Job], float], Iterator[Outcome]],
    out: Path,
    made: Mapping[str, Any],
    *,
    max_failed: float,
    report: Callable[[Tally], None],
) -> Tally:
    """Answers to all jobs that `out` does not hold yet.

    ask: open jobs and the money spent before -> outcomes.  made: what decides the labels, plain JSON.  max_failed:
    share of this start's answers in trouble above which it stops.  Raises Paused when it stops early (what is labelled
    stays), ConfigError when `out` was made otherwise, InfraError when another process writes there.
    """
    with _owned(out, made):
        done = _done(out)
        tally = Tally(wanted=len(jobs))
        wanted = {job.key for job in jobs}
        for key, row in done.items():
            if key in wanted:
                tally.add(row)
        tally.before = tally.labelled
        open_jobs = [job for job in jobs if job.key not in done]
        report(tally)
        failures: list[Failed] = []
        stopped: Failed | None = None
        spent = sum((row.get("usage") or {}).get("cost", 0.0) for row in done.values())
        if open_jobs:
            with out.open("ab") as file, contextlib.closing(_closable(ask(open_jobs, spent))) as outcomes:
                for count, outcome in enumerate(outcomes, 1):
                    if isinstance(outcome, Labelled):
                        row = _row(outcome)
                        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                        file.flush()
                        done[outcome.job.key] = row
                        tally.add(row)
                    else:
                        failures.append(outcome)
                        tally.failed[outcome.kind] += 1
                        trouble = sum(n for kind, n in tally.failed.items() if kind not in NOT_THE_SERVERS)
                        if outcome.fatal or (count >= FEWEST and trouble > max_failed * count):
                            stopped = outcome
                            break
                    report(tally)
        _write_failures(out, failures)
        _put_in_order(out, done, jobs)
    if stopped is not None:
        raise Paused(
            f"{stopped.kind}: {stopped.reason}; stopped with {tally.labelled} of {tally.wanted} labels in {out}, "
            "the same command goes on"
        )
    if not tally.labelled:
        why = f"; the first: {failures[0].kind}: {failures[0].reason}" if failures else ""
        raise DataError(f"out={out}: no label was made{why}")
    return tally


def _closable(outcomes: Iterator[Outcome]) -> Any:
    return outcomes if hasattr(outcomes, "close") else (outcome for outcome in outcomes)


def _row(outcome: Labelled) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": outcome.job.document.id, "extractor": outcome.extractor, "completion": outcome.completion,
        "sample": outcome.job.sample,
    }  # fmt: skip
    if outcome.usage:
        row["usage"] = outcome.usage
    if outcome.faults:
        row["faults"] = list(outcome.faults)
    return row


@contextlib.contextmanager
def _owned(out: Path, made: Mapping[str, Any]) -> Iterator[None]:
    """Holds the lock on `out` and checks that earlier labels in it were made in the same way."""
    made = json.loads(json.dumps(made))
    beside = out.with_name(out.name + ".made.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise ConfigError(f"out={out}: is a folder; give a file")
        if out.exists() and not beside.exists() and out.stat().st_size:
            raise ConfigError(f"out={out}: is there already and was not made by offramp label; choose another")
        file = beside.open("a+", encoding="utf-8")
    except OSError as fault:
        raise ConfigError(f"out={out}: cannot be written: {fault.strerror or fault}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InfraError(f"out={out}: another process is labelling into it") from None
        file.seek(0)
        before = file.read()
        if before:
            try:
                key = _first_change(json.loads(before), made)
            except ValueError:
                raise ConfigError(f"{beside}: cannot be read; choose another out") from None
            if key is not None:
                name, old, new = key
                how = f"were made with {_short(old)}, not {_short(new)}"
                raise ConfigError(f"{name}: the labels in {out} {how}; choose another out")
        else:
            file.write(json.dumps(made, indent=2) + "\n")
            file.flush()
        yield


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_change(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (key, before, now)
    for name in [*before, *(name for name in now if name not in before)]:
        found = _first_change(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        if found is not None:
            return found
    return None


def _done(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of `out` by (id, sample); a torn last line is cut off. Raises DataError for any other bad line."""
    if not out.exists():
        return {}
    content = out.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with out.open("r+b") as file:
            file.truncate(whole)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            found[row["id"], row["sample"]] = row
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{out} line {number}: is no label; take the line out, or choose another out") from None
    return found


def _put_in_order(out: Path, done: Mapping[tuple[str, int], Mapping[str, Any]], jobs: Sequence[Job]) -> None:
    """Lines in the order of the documents, those of other documents behind them; written aside and renamed."""
    if not done:
        return
    order = {job.key: i for i, job in enumerate(jobs)}
    rows = sorted(done.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    _write(out, [row for _, row in rows])


def _write_failures(out: Path, failures: Sequence[Failed]) -> None:
    path = out.with_name(out.name + ".failed.jsonl")
    if failures:
        _write(
            path,
            [{"id": f.job.document.id, "sample": f.job.sample, "kind": f.kind, "reason": f.reason} for f in failures],
        )
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
