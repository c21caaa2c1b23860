"""The rollouts that a run has left on disk, read without torch: completions, their scores, and their documents."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from envs.documents import read_documents
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.task import REWARDS, RubricSpec, Task, load_task, nearest

RUBRICS = Path(__file__).parent.parent / "configs" / "rubric"
BASIC = ("document_id", "sample", "completion", "reward", "gate")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One rollout as the run scored it; reward None where the scoring failed.

    text: the document's, None in runs from before it was recorded.  parts: reward -> value, None: does not apply.
    """

    step: int
    document_id: str
    sample: int
    completion: str
    reward: float | None
    gate: str | None
    parts: dict[str, float | None]
    text: str | None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder: its configuration as it was written, and the file of each recorded step."""

    path: Path
    config: dict[str, Any]
    steps: dict[int, Path]

    def task(self, task: str | None, rubric: str | None = None, rewards: str | None = None) -> Task:
        """The task asked for, or the run's own with the rubric that the run had. Raises ConfigError.

        rubric: a name in configs/rubric or a file.  rewards: "grounded:4,covers:1", in the rubric's place.
        """
        own = self.config.get("task")
        if task is None and not isinstance(own, str):
            raise ConfigError(f"run={self.path}: its config.json names no task; give task=VALUE")
        found = load_task(task or str(own))
        raw = self.config.get("rubric")
        if rubric is not None:
            found = with_rubric(found, read_rubric(rubric), f"rubric={rubric}")
        elif task is None and isinstance(raw, dict):
            found = with_rubric(found, raw, f"{self.path / 'config.json'}: rubric")
        if rewards is not None:
            spec = found.rubric.model_dump() | {"rewards": _weights(rewards)}
            found = with_rubric(found, spec, f"rewards={rewards}", allow=found.rubric.allow or ())
        return found


def read_rubric(name_or_path: str) -> dict[str, Any]:
    """A rubric of its own: gates, rewards, abstain. Raises ConfigError."""
    known = sorted(file.stem for file in RUBRICS.glob("*.yaml"))
    path = RUBRICS / f"{name_or_path}.yaml" if name_or_path in known else Path(name_or_path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"rubric={name_or_path}: no such file{nearest(name_or_path, known)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as fault:
        raise ConfigError(f"rubric={name_or_path}: cannot be read: {str(fault).splitlines()[0]}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"rubric={name_or_path}: must be a mapping with gates, rewards and abstain")
    return raw


def with_rubric(task: Task, raw: dict[str, Any], where: str, allow: Sequence[str] = ()) -> Task:
    """The task under another rubric. Only functions in `allow` may be named. Raises ConfigError."""
    try:
        spec = RubricSpec.model_validate({"allow": None, **raw})
    except ValidationError as faults:
        fault = faults.errors(include_url=False)[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}") from None
    for name in spec.rewards:
        if ":" in name and name not in allow:
            raise ConfigError(f"{where}: {name}: runs code; name it, and allow it, in a task file of your own")
        if ":" not in name and name not in REWARDS:
            raise ConfigError(f"{where}: {name}: unknown reward{nearest(name, REWARDS)}")
    if not any(spec.rewards.values()):
        raise ConfigError(f"{where}: at least one weight must be above 0")
    return replace(task, rubric=spec)


def _weights(text: str) -> dict[str, float]:
    found = {}
    for word in text.split(","):
        name, colon, weight = word.strip().rpartition(":")
        try:
            found[name] = float(weight)
        except ValueError:
            colon = ""
        if not colon or not name:
            raise ConfigError(f"rewards={text}: {word!r}: write NAME:WEIGHT, as in grounded:4,covers:1")
    return found


def find_run(path: str) -> RunFolder:
    """Opens a run's folder. Raises ConfigError where it is none, DataError where it holds no rollouts."""
    folder = Path(path)
    if not folder.is_dir():
        near = difflib.get_close_matches(folder.name, _names(folder.parent), 1, 0.5)
        raise ConfigError(f"run={path}: no such folder" + (f"; is {folder.parent / near[0]} meant?" if near else ""))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"run={path}: no run's folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise DataError(f"{folder / 'config.json'}: holds no configuration")
    files = sorted((folder / "rollouts").glob("step_*.parquet"))
    steps = {int(file.stem[5:]): file for file in files if file.stem[5:].isdecimal()}
    if not steps:
        raise DataError(f"run={path}: it holds no rollouts; they are kept where record.rollouts=true")
    return RunFolder(folder, config, steps)


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_dir()] if folder.is_dir() else []


def choose_steps(run: RunFolder, text: str | None) -> list[int]:
    """The recorded steps that "12", "10-20", "last" or None (all) stands for. Raises ConfigError."""
    known = sorted(run.steps)
    if text is None:
        return known
    if text == "last":
        return known[-1:]
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (not dash or high.isdecimal())):
        raise ConfigError(f"step={text}: write a number, FIRST-LAST or last")
    chosen = [step for step in known if int(low) <= step <= int(high or low)]
    if not chosen:
        raise ConfigError(f"step={text}: not recorded; {run.path} has the steps {known[0]} to {known[-1]}")
    return chosen


def read_rollouts(run: RunFolder, steps: Iterable[int]) -> list[Recorded]:
    """The rollouts of these steps, in order. Raises DataError for a file that is no record of rollouts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Recorded] = []
    for step in steps:
        path = run.steps[step]
        try:
            names = pq.read_schema(path).names
            parts = [name for name in names if name.startswith("part/")]
            wanted = [*BASIC, *parts, *(["document"] if "document" in names else [])]
            rows = pq.read_table(path, columns=wanted).to_pylist()
            found += [
                Recorded(
                    step=step,
                    parts={name.removeprefix("part/"): row[name] for name in parts},
                    text=row.get("document"),
                    **{name: row[name] for name in BASIC},
                )
                for row in rows
            ]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DataError(f"{path}: no record of rollouts: {' '.join(str(error).split())[:200]}") from None
    if not found:
        raise DataError(f"run={run.path}: the steps asked for hold no rollouts")
    return found


def choose(rollouts: Sequence[Recorded], name: str | None, sample: str) -> Recorded:
    """One rollout: of document `name`, or of all; sample: its number there, or "worst" or "best" by recorded reward."""
    rows = [row for row in rollouts if name is None or row.document_id == name]
    if not rows:
        known = sorted({row.document_id for row in rollouts})
        near = difflib.get_close_matches(str(name), known, 1, 0.5) or known[:1]
        raise DataError(f"id={name}: not sampled in step {rollouts[0].step}; there is {near[0]}")
    if sample in ("worst", "best"):
        scored = [row for row in rows if row.reward is not None] or rows
        return (min if sample == "worst" else max)(scored, key=lambda row: row.reward or 0.0)
    if not sample.isdecimal():
        raise ConfigError(f"sample={sample}: write a number, worst or best")
    if int(sample) >= len(rows):
        of = f"document {name}" if name is not None else f"step {rows[0].step}"
        raise ConfigError(f"sample={sample}: {of} has the samples 0 to {len(rows) - 1}")
    return rows[int(sample)]


def documents_of(
    run: RunFolder, rollouts: Sequence[Recorded], task: Task, docs_path: str | None
) -> dict[str, Document]:
    """The documents of these rollouts by id: from `docs_path`, else as recorded, else as the run's config makes them.

    Raises ConfigError or DataError where they cannot be had; ids that stay unknown are left out.
    """
    wanted = {row.document_id for row in rollouts}
    if docs_path is not None:
        found = {d.id: d for d in read_documents(docs_path, max_bad=10**9, quarantine=None) if d.id in wanted}
        if not found:
            raise DataError(f"docs.path={docs_path}: none of the {len(wanted)} documents of {run.path} is there")
        return found
    recorded = {row.document_id: row.text for row in rollouts if row.text is not None}
    if recorded.keys() == wanted:
        return {name: Document(name, text, name, None) for name, text in recorded.items()}
    return {d.id: d for d in _configured(run, task) if d.id in wanted}


def _configured(run: RunFolder, task: Task) -> Sequence[Document]:
    """The training documents that the run's configuration names."""
    from rl.config import DocsConfig
    from rl.prepare import load_documents

    fix = f"the rollouts of {run.path} hold no document text; give docs.path=FILE"
    try:
        docs = TypeAdapter[Any](DocsConfig).validate_json(json.dumps(run.config.get("docs")))
    except ValidationError:
        raise DataError(f"{run.path / 'config.json'}: docs: cannot be read by this version, and {fix}") from None
    try:
        return load_documents(docs, task, None).train
    except DataError as error:
        raise DataError(f"{error}; {fix}") from None
