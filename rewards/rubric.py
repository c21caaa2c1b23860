"""Rubric: gates, then weighted rewards, for one task. Knows the document's text and never its gold."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from inspect import isfunction
from math import fsum
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards import naive, schema
from rewards.coverage import covered
from rewards.document import Document, DocumentIndex, read
from rewards.errors import ConfigError
from rewards.evidence import Grounded, gather
from rewards.parse import ParseFault, parse
from rewards.plan import Plan, compile_plan
from rewards.plausible import characters, plausible
from rewards.reconcile import reconciles
from rewards.records import uncovered
from rewards.score import Finding, Score, Status, not_applicable, scored
from rewards.task import Task, nearest

Reward = Callable[[Document, Mapping[str, Any], Task], "Score | float"]


@dataclass(frozen=True, slots=True)
class RubricScore:
    """What the rubric says about one completion.

    total: in [0, 1] (0 with status "error": look at the status first).  gate: the gate that failed, or None.
    parts: reward -> unweighted value in [0, 1], or None where it does not apply.  error: the trouble, in one line.
    checks: the reward or gate that each of the findings comes from, in their order.
    """

    total: float
    status: Status
    gate: str | None
    parts: dict[str, float | None]
    findings: tuple[Finding, ...]
    error: str | None = None
    checks: tuple[str, ...] = ()


def index_document(document: Document, task: Task) -> DocumentIndex:
    """The index of a document, to be shared by every attempt at it. One index serves one task."""
    return read(document.text)


class Rubric:
    """Scores completions for one task. Pure: the same document and completion give the same score, always."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.plan = compile_plan(task)
        self.custom: dict[str, Reward] = {
            name: _load(name, task.folder) for name, weight in task.rubric.rewards.items() if ":" in name and weight > 0
        }
        # An attempt that passes the gates never scores below one that fails one.
        self.floor = max(task.rubric.gates.values(), default=0.0)

    def score(self, document: Document, completion: str) -> RubricScore:
        """Scores one completion. Never raises on what the model wrote."""
        return self.score_group(document, [completion])[0]

    def score_group(self, document: Document, completions: Sequence[str]) -> list[RubricScore]:
        """Scores the completions of one document, which share its index."""
        index = index_document(document, self.task)
        known: dict[str, RubricScore] = {}
        result = []
        for completion in completions:
            found = known.get(completion)
            if found is None:
                try:
                    found = self._score(document, index, completion)
                except Exception as fault:  # a fault of ours must not stop a run: it is counted, and it has a name
                    found = RubricScore(0.0, "error", None, {}, (), f"{type(fault).__name__}: {fault}"[:300])
                known[completion] = found
            result.append(found)
        return result

    def _score(self, document: Document, index: DocumentIndex, completion: str) -> RubricScore:
        gates = self.task.rubric.gates
        attempt = parse(completion)
        if isinstance(attempt, ParseFault):
            where = "" if attempt.position is None else f" at character {attempt.position}"
            finding = Finding("", completion[:40], None, 0.0, f"{attempt.reason}{where}")
            return RubricScore(0.0, "scored", "parses", {}, (finding,), None, ("parses",))
        value = attempt.value
        if not schema.valid(self.plan, value):
            kept, faults = schema.share(self.plan, value)
            # Part of a schema is worth something inside its band, so that there is a slope to climb.
            low = gates.get("parses", 0.0)
            high = max(low, gates.get("schema", 0.0))
            checks = ("schema",) * len(faults)
            return RubricScore(low + (high - low) * kept, "scored", "schema", {}, tuple(faults), None, checks)
        return self._rewards(document, index, value)

    def _rewards(self, document: Document, index: DocumentIndex, value: dict[str, Any]) -> RubricScore:
        grounded = gather(self.plan, index, value, self.task.rubric.abstain)
        parts: dict[str, float | None] = {}
        findings: list[Finding] = []
        checks: list[str] = []
        total = weights = 0.0
        for name, weight in self.task.rubric.rewards.items():
            if weight == 0:
                continue
            try:
                outcome = self._part(name, document, index, value, grounded)
            # A user's reward may raise anything and call sys.exit; ours must not stop a run either.
            except (Exception, SystemExit) as fault:
                message = f"{name}: {type(fault).__name__}: {fault}".replace("\n", " ")[:300]
                return RubricScore(0.0, "error", None, parts, tuple(findings), message, tuple(checks))
            if outcome.status == "error":
                message = f"{name}: {outcome.error}"
                return RubricScore(0.0, "error", None, parts, tuple(findings), message, tuple(checks))
            parts[name] = outcome.value
            findings.extend(outcome.findings)
            checks.extend([name] * len(outcome.findings))
            if outcome.value is not None:
                total += weight * outcome.value
                weights += weight
        mean = min(total / weights, 1.0) if weights else 0.0
        kept = _kept(parts.get("covers"))
        if kept < 1.0:
            findings.append(Finding("", None, None, kept, f"most of the table is left out: the total keeps {kept:.2f}"))
            checks.append("covers")
        total = self.floor + (1.0 - self.floor) * mean * kept
        return RubricScore(total, "scored", None, parts, tuple(findings), None, tuple(checks))

    def _part(
        self, name: str, document: Document, index: DocumentIndex, value: dict[str, Any], grounded: Grounded
    ) -> Score:
        plan = self.plan
        if name == "grounded":
            return _grounded(plan, grounded)
        if name == "reconciles":
            return reconciles(plan, value, grounded)
        if name == "covers":
            return _covers(plan, index, grounded)
        if name == "plausible":
            return plausible(plan, value)
        if name == "characters":
            return characters(plan, value, index, grounded)
        if name == "has_keys":
            return naive.has_keys(plan, value)
        if name == "adds_up":
            return naive.adds_up(plan, value)
        if name == "words_in_source":
            return naive.words_in_source(plan, value, index)
        if name == "judge":
            return not_applicable("a judge is asked when the rest is scored, by RewardPool")
        # Its own copy: what one reward changes, the others do not see.
        return _checked(self.custom[name](document_without_gold(document), copy.deepcopy(value), self.task))


def document_without_gold(document: Document) -> Document:
    """The document as a reward sees it."""
    return document if document.gold is None else Document(document.id, document.text, document.group, None)


def _load(reference: str, folder: Path | None) -> Reward:
    """The function that `module:function` names: installed, beside the task file or in the working directory."""
    where = f"rubric.rewards.{reference}: cannot be imported"
    module, _, name = reference.partition(":")
    # Behind all that is installed: a file called random.py beside the task shadows nothing.
    places = dict.fromkeys(str(place) for place in (folder, Path.cwd()) if place is not None)
    sys.path += [place for place in places if place not in sys.path]
    importlib.invalidate_caches()
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as fault:
        if fault.name is not None and f"{module}.".startswith(f"{fault.name}."):
            looked = " or ".join(places)
            raise ConfigError(f"{where}: no module {fault.name!r} is installed, or stands in {looked}") from None
        raise ConfigError(f"{where}: {fault}") from None
    except (Exception, SystemExit) as fault:  # the user's code runs here
        raise ConfigError(f"{where}: {type(fault).__name__}: {str(fault).partition(chr(10))[0]}"[:300]) from None
    own = folder / f"{module.replace('.', '/')}.py" if folder is not None else None
    file = getattr(loaded, "__file__", None)
    if own is not None and own.is_file() and (file is None or not own.samefile(file)):
        raise ConfigError(f"{where}: another module {module!r} is in the way of {own}: {file}; rename it")
    found = getattr(loaded, name, None)
    if found is None:
        raise ConfigError(f"{where}: {file} has no {name!r}{nearest(name, _functions(loaded))}")
    if not callable(found):
        raise ConfigError(f"rubric.rewards.{reference}: is not a function")
    return found  # type: ignore[no-any-return]


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isfunction(value) and value.__module__ == module.__name__]


def _checked(outcome: object) -> Score:
    """What a custom reward returned, as a Score; anything but a Score or a number in [0, 1] is an error."""
    if isinstance(outcome, Score):
        return outcome
    if type(outcome) is not bool and isinstance(outcome, Real) and 0.0 <= float(outcome) <= 1.0:
        return scored(float(outcome))
    return Score(None, "error", (), f"returned {outcome!r}, which is neither a Score nor a number in [0, 1]"[:200])


def _grounded(plan: Plan, grounded: Grounded) -> Score:
    """Weighted mean over fields; the rows of an array are one field with their mean."""
    total = weights = 0.0
    for path, points in grounded.points.items():
        if points is not None:
            weight = plan.scalars[path].spec.weight
            total += weight * points
            weights += weight
    for array, points_of_rows in grounded.row_points.items():
        weight = plan.array_weight(array)
        if points_of_rows:
            total += weight * fsum(points_of_rows) / len(points_of_rows)
            weights += weight
        elif array in grounded.expected:
            weights += weight
    if not weights:
        return not_applicable("nothing to ground")
    return scored(min(1.0, total / weights), grounded.findings)


LEFT_OUT = 0.5  # what an attempt keeps of its mean that explains nothing of a table
ENOUGH = 0.5  # the share of a table that must be explained to keep all of it


def _kept(covers: float | None) -> float:
    """What an attempt keeps of its mean, by the share of the printed table that it explains.

    Header fields are worth their points only beside the rows: without this, header and empty rows are an easy half of
    the score, and dropping rows (fewer tokens, fewer mistakes) a bargain.
    """
    if covers is None or covers >= ENOUGH:
        return 1.0
    return LEFT_OUT + (1.0 - LEFT_OUT) * covers / ENOUGH


def _covers(plan: Plan, index: DocumentIndex, grounded: Grounded) -> Score:
    """Mean over the arrays of the share of their printed lines that the attempt explains."""
    shares: list[float] = []
    findings: list[Finding] = []
    for array, rows in plan.rows.items():
        amounts = [amount for _, amount in grounded.rows[array] if amount is not None]
        total = sum(amounts, Decimal(0))
        share, missing = covered(rows, index, grounded.matches[array], frozenset(grounded.lines), total)
        if share is None and array in grounded.expected and not grounded.rows[array]:
            share = 0.0
            findings.append(Finding(array, None, None, 0.0, "no row, and the document shows amounts"))
        if share is None:
            continue
        shares.append(share)
        for i in missing[:20]:
            line = index.lines[i]
            findings.append(Finding(array, None, (line.start, line.end), 0.0, "a printed line that no row explains"))
    for array, record in plan.records.items():
        if record.spec.covers:
            share, left = uncovered(record, index, grounded.records[array])
            shares += [] if share is None else [share]
            findings += [Finding(array, None, one.span, 0.0, "a printed record that no row is") for one in left[:20]]
    if grounded.names is not None:
        share, spans = grounded.names
        shares += [] if share is None else [share]
        findings += [Finding("", None, span, 0.0, "a name of the text that no row gives") for span in spans[:20]]
    if not shares:
        return not_applicable("the document shows no table, no record and no name")
    return scored(fsum(shares) / len(shares), findings)
