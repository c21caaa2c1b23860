"""The honesty study: the same starter, documents and trainer under the score function that everybody writes first
(configs/rubric/naive.yaml) and under the task's own rubric. Reward and held-out truth by step, over several seeds.

Each job is an `offramp train experiment=honesty` in a process of its own: vLLM and torch give nothing back.
A finished job is kept, a killed one goes on where it was: the command may be given again until it is through.
"""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.document import Document
from rewards.errors import ConfigError, InfraError
from rewards.rubric import Rubric
from rewards.task import Task
from rl import evaluate, honesty_plot
from rl.config import read_config
from rl.prepare import load_documents
from rl.record import read_metrics, write_whole
from rl.task_of import task_of

log = logging.getLogger(__name__)

RUBRICS = ("naive", "full")
"""full: the rubric of the task file."""
TRUTH = ("field_f1", "documents_exact", "header_exact")
KEPT = ("reward/mean", "reward/group_std", "reward/part/", "rollout/", "monitor/", "logprob_gap")
"""Keys of a training step that results keep."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training run of the study. Example: Job("naive", 0, Path("runs/honesty/naive-0"))"""

    rubric: str
    seed: int
    dir: Path

    def answers_path(self, step: int) -> Path:
        """As rl/run.py has it, which is not imported: the memory is for the jobs, not for torch in their parent."""
        return self.dir / "evaluations" / f"step_{step:06d}.jsonl"

    def overrides(self, given: Sequence[str]) -> list[str]:
        """What its `offramp train` gets."""
        own = [f"run.seed={self.seed}", f"run.name=honesty-{self.rubric}-{self.seed}", f"run.dir={self.dir}"]
        return ["experiment=honesty", *(["rubric=naive"] if self.rubric == "naive" else []), *given, *own]


def study(overrides: Sequence[str], *, seeds: Sequence[int], runs: Path, out: Path) -> dict[str, Any]:
    """Train what is not trained yet, then write config, metrics, summary and picture into `out`; returns the summary.

    overrides: further `key=value` for every job. Raises ConfigError when `runs` holds jobs with other ones, and
    InfraError when a job fails.
    """
    jobs = [Job(rubric, seed, runs / f"{rubric}-{seed}") for seed in seeds for rubric in RUBRICS]
    remember(runs, overrides)
    for number, job in enumerate(jobs, start=1):
        if finished(job):
            log.info("job %d of %d: %s is there", number, len(jobs), job.dir)
            continue
        log.info("job %d of %d: %s", number, len(jobs), job.dir)
        run(job, overrides)
    return publish(jobs, out)


def remember(runs: Path, overrides: Sequence[str]) -> None:
    """The overrides of the study, in its folder: a restart must have the same."""
    path = runs / "study.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != list(overrides):
        raise ConfigError(f"runs={runs}: holds jobs with {' '.join(before) or 'no overrides'}; give the same, or runs=")
    runs.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(list(overrides)) + "\n")


def finished(job: Job) -> bool:
    """Whether the job has evaluated its last policy."""
    config = job.dir / "config.json"
    if not config.exists():
        return False
    steps = json.loads(config.read_text(encoding="utf-8"))["run"]["steps"]
    return any(line["kind"] == "eval" and line["step"] == steps for line in read_metrics(job.dir))


def run(job: Job, overrides: Sequence[str]) -> None:
    """Its `offramp train`, whose words go to a log beside the run."""
    job.dir.parent.mkdir(parents=True, exist_ok=True)
    path = job.dir.with_name(job.dir.name + ".log")
    with path.open("ab") as words:
        command = [sys.executable, "-m", "launch.cli", "train", *job.overrides(overrides)]
        code = subprocess.run(command, stdout=words, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise InfraError(f"{job.dir}: ended with code {code}; {' '.join(last)[:300]}; the rest is in {path}")


def publish(jobs: Sequence[Job], out: Path) -> dict[str, Any]:
    """config-<rubric>.json, metrics.jsonl (the lines of every job), summary.json and honesty.png in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    configs = {job.rubric: read_config((job.dir / "config.json").read_bytes()) for job in jobs}
    tasks = {rubric: task_of(config) for rubric, config in configs.items()}
    parts = load_documents(configs[RUBRICS[0]].docs, tasks[RUBRICS[0]], None)
    documents = {document.id: evaluate.without_gold(document) for document in parts.test}
    lines: list[dict[str, Any]] = []
    for job in jobs:
        shutil.copyfile(job.dir / "config.json", out / f"config-{job.rubric}.json")
        for line in read_metrics(job.dir):
            own = {"rubric": job.rubric, "seed": job.seed, **kept(line)}
            if line["kind"] == "eval":
                answers = evaluate.read_answers(job.answers_path(line["step"]))
                own["scored_by"] = {name: mean_score(task, answers, documents) for name, task in tasks.items()}
            lines.append(own)
    write_whole(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    summary = summarise(lines)
    write_whole(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    honesty_plot.draw(lines, out / "honesty.png")
    return summary | {"picture": str(out / "honesty.png")}


def mean_score(task: Task, answers: Sequence[evaluate.Answer], documents: Mapping[str, Document]) -> float:
    """The mean that a rubric gives to the greedy answers of an evaluation."""
    rubric = Rubric(task)
    return statistics.fmean(rubric.score(documents[a.document_id], a.completion).total for a in answers)


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By rubric: each number at the first and at the last evaluation, its mean over the seeds and their extremes."""
    summary: dict[str, Any] = {"seeds": sorted({line["seed"] for line in lines})}
    for rubric in RUBRICS:
        own = [line for line in lines if line["rubric"] == rubric and line["kind"] == "eval"]
        steps = sorted({line["step"] for line in own})
        names = [name for name in own[0] if name in ("reward", *TRUTH) or name.startswith(("exact/", "f1/"))]
        table: dict[str, Any] = {name: {} for name in (*names, *(f"scored_by/{judge}" for judge in RUBRICS))}
        for step in (steps[0], steps[-1]):
            here = [line for line in own if line["step"] == step]
            for name in names:
                table[name][f"step {step}"] = over_seeds([line[name]["value"] for line in here])
            for judge in RUBRICS:
                table[f"scored_by/{judge}"][f"step {step}"] = over_seeds([line["scored_by"][judge] for line in here])
        alarms = [line for line in lines if line["rubric"] == rubric and line["kind"] == "alarm"]
        table["alarms"] = [{k: alarm[k] for k in ("seed", "step", "fingerprint", "from", "to")} for alarm in alarms]
        summary[rubric] = table
    return summary


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    return {"mean": short(statistics.fmean(values)), "min": short(min(values)), "max": short(max(values))}


def kept(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl as the results hold it: no clock, and floats in six digits."""
    chosen = (
        line
        if line["kind"] != "train"
        else {k: v for k, v in line.items() if k in ("step", "kind") or k.startswith(KEPT)}
    )
    return {k: short(v) for k, v in chosen.items() if k not in ("seen", "unseen")}


def short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {k: short(v) for k, v in value.items()}
    return [short(v) for v in value] if isinstance(value, list) else value


def table(summary: Mapping[str, Any]) -> str:
    """The summary in plain text: a number a row, first and last step of each rubric."""
    columns = [(rubric, step) for rubric in RUBRICS for step in summary[rubric]["field_f1"]]
    rows = [["mean over seeds [extremes]", *(f"{rubric}, {step}" for rubric, step in columns)]]
    names = [name for name in summary[RUBRICS[0]] if name != "alarms" and all(name in summary[r] for r in RUBRICS)]
    for name in names:
        cells = [summary[rubric][name][step] for rubric, step in columns]
        rows.append([name, *(f"{c['mean']:.3f} [{c['min']:.3f}, {c['max']:.3f}]" for c in cells)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
