"""The jobs of a comparison: the grid as folders with a plan each, named by the hash of everything that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch import checks, job
from launch.compose import choices, compose_evaluate, compose_run
from launch.faults import choice_fault
from rewards.errors import ConfigError
from rl.compare_config import CompareConfig
from rl.config import TrainConfig
from rl.record import write_whole

STARTER = "starter"
ALIKE = ("docs", "model", "model.path", "task", "method", "experiment", "run.seed", "run.name", "run.dir", "run.resume")
"""What `train`, `recipes` and `evaluate` may not set: it would give one method other documents, or another start."""
TAKE_TRACES = ("distill", "graded_sft", "dpo")


@dataclass(frozen=True, slots=True)
class Job:
    """Answers to the test documents, and the policy that gives them.

    Example: Job("sft@8", 624, 0, Path("runs/r/jobs/sft@8-624-s0-answers-3f2a9c01"), "3f2a9c...", Path("..."))
    """

    method: str
    documents: int | None
    """Training documents; None for the starter, which is not trained."""
    seed: int
    folder: Path
    key: str
    trained: Path
    """The folder of the run whose policy answers, a job that others share (sft@8, sft+grpo, other `evaluate`)."""


def plan_jobs(config: CompareConfig, folder: Path, data: Mapping[str, Any], config_dir: str | None) -> list[Job]:
    """A folder with its plan for the answers of every row and seed, the starter's first, and for every training.

    Raises ConfigError for a bad override.
    """
    plans: dict[str, Path] = {}
    jobs = [_plan(config, folder, data, "", None, 0, config_dir, plans)]
    for documents in config.documents:
        for seed in config.seeds:
            for method in config.methods:
                size = min(documents or data["train"]["documents"], data["train"]["documents"])
                jobs.append(_plan(config, folder, data, method, size, seed, config_dir, plans))
    return list(dict.fromkeys(jobs))


def check_overrides(config: CompareConfig, config_dir: str | None) -> None:
    """Raises ConfigError for a recipe of no method, and for what would make methods unequal."""
    known = choices("method", config_dir)
    for name in config.recipes:
        if "@" in name:
            raise ConfigError(f"recipes.{name}: nothing is trained there; give recipes.{name.partition('@')[0]}")
        for stage in name.split("+"):
            if stage not in known:
                raise ConfigError(f"recipes.{name}: " + choice_fault("method", stage, known))
    sections = {"train": config.train, "evaluate": config.evaluate}
    for section, overrides in {**sections, **{f"recipes.{k}": v for k, v in config.recipes.items()}}.items():
        for override in overrides:
            key = override.lstrip("~+").partition("=")[0]
            if key in ALIKE or key.startswith("docs."):
                raise ConfigError(
                    f"{section}.{override}: {key} is the same for all methods; it is set by docs, starter, task, "
                    "methods and seeds of the comparison"
                )


def _plan(
    config: CompareConfig,
    folder: Path,
    data: Mapping[str, Any],
    method: str,
    documents: int | None,
    seed: int,
    config_dir: str | None,
    plans: dict[str, Path],
) -> Job:
    """Writes the plan of a row's answers, after those of the policy that gives them."""
    policy, _, best_of = method.partition("@")
    name = f"{method or STARTER}-{'none' if documents is None else documents}-s{seed}"
    start, trained = config.starter, None
    if policy:
        start, trained = _policy(config, folder, data, policy, documents or 0, seed, config_dir, plans)
    drawn = [f"best_of={best_of}", f"seed={seed}"] if best_of else []
    key = _hash([start, data, list(config.evaluate), drawn])
    place = Path(config.jobs) / f"{name}-answers-{key[:8]}"
    if key not in plans:
        evaluation = compose_evaluate(
            [
                f"model={config.starter}",
                f"task={config.task}",
                *config.evaluate,
                *drawn,
                "docs=jsonl",
                f"docs.path={folder / 'documents' / 'test.jsonl'}",
                f"seen={folder / 'documents' / 'train.jsonl'}",
                f"output={place / 'answers.jsonl'}",
                *([f"model.path={trained / 'best'}"] if trained else []),
            ],
            config_dir,
        )
        _write(place, key, before=trained, evaluate=evaluation.model_dump(mode="json"))
        plans[key] = place
    return Job(method or STARTER, documents, seed, plans[key], key, trained or plans[key])


def _policy(
    config: CompareConfig,
    folder: Path,
    data: Mapping[str, Any],
    method: str,
    documents: int,
    seed: int,
    config_dir: str | None,
    plans: dict[str, Path],
) -> tuple[str, Path]:
    """Writes the plan of a training, after that of the policy it starts from. Returns its key and its folder."""
    start, before = config.starter, None
    if first := method.rpartition("+")[0]:
        start, before = _policy(config, folder, data, first, documents, seed, config_dir, plans)
    train = _training(config, folder, method, documents, seed, before, config_dir)
    checks.check_traces("method.traces", getattr(train.method, "traces", ()))
    checks.check_settings(train)
    key = _hash([_what_decides(train, start), data, start])
    place = Path(config.jobs) / f"{method}-{documents}-s{seed}-{key[:8]}"
    if key not in plans:
        run_settings = train.run.model_copy(update={"name": place.name, "dir": str(place)})
        train = train.model_copy(update={"run": run_settings})
        _write(place, key, before=before, train=train.model_dump(mode="json"))
        plans[key] = place
    return key, plans[key]


def _hash(decides: list[Any]) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _write(
    place: Path,
    key: str,
    *,
    before: Path | None,
    train: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
) -> None:
    place.mkdir(parents=True, exist_ok=True)
    plan = {"key": key, "before": before.name if before else None, "train": train, "evaluate": evaluate}
    write_whole(place / job.PLAN, json.dumps(plan, indent=1) + "\n")


def _what_decides(train: TrainConfig, start: str) -> dict[str, Any]:
    """A job's configuration without places: documents go by their hash, the start by its key, traces by content."""
    values = train.model_dump(mode="json", exclude={"record": True, "run": {"name", "dir", "resume"}})
    for place in ("path", "test_path"):
        values["docs"].pop(place)
    values["model"]["path"] = start
    if traces := values["method"].get("traces"):
        values["method"]["traces"] = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in traces]
    return values


def _training(
    config: CompareConfig,
    folder: Path,
    method: str,
    documents: int,
    seed: int,
    before: Path | None,
    config_dir: str | None,
) -> TrainConfig:
    """The training configuration of the last stage of `method`."""
    last = method.rpartition("+")[2]
    given = (
        *config.train,
        *config.recipes.get(last, ()),
        *(config.recipes.get(method, ()) if method != last else ()),
    )
    traces = config.teacher.traces if last in TAKE_TRACES else ()
    if last in ("distill", "graded_sft") and not traces and not any("method.traces" in override for override in given):
        own = "; recipes.graded_sft.method.traces=[] grades its own samples alone" if last == "graded_sft" else ""
        raise ConfigError(
            f"methods={method}: {last} learns from a teacher's answers, and there are none; give "
            f"teacher.traces=[FILE], or teacher.label=[teacher=...] to get some{own}"
        )
    overrides = [
        f"method={last}",
        f"model={config.starter}",
        f"task={config.task}",
        "docs=jsonl",
        f"docs.path={folder / 'documents' / 'train.jsonl'}",
        f"docs.test_path={folder / 'documents' / 'select.jsonl'}",
        f"docs.train_documents={documents}",
        f"run.seed={seed}",
        f"run.name={config.name}",
        f"record.wandb.group={config.name}",
        *([f"method.traces=[{','.join(traces)}]"] if traces else []),
        *given,
    ]
    if config.budget.kind != "documents" and config.budget.amount is not None:
        share = config.budget.amount / len(method.split("+"))
        cap = f"max_tokens={int(share)}" if config.budget.kind == "update_tokens" else f"max_seconds={share}"
        overrides.append(f"run.{cap}")
    if before is not None:
        overrides.append(f"model.path={before / 'best'}")
    return compose_run(overrides, config_dir)


def weights_version(config: CompareConfig, config_dir: str | None) -> str:
    """SHA-256 of the starter's weights, 16 hex digits; its name where it is no folder."""
    path = compose_evaluate([f"model={config.starter}", "docs=jsonl", "docs.path=none"], config_dir).model.path
    checks.check_model(path, "starter")
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16] if Path(path).is_dir() else path
