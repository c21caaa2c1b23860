"""`offramp compare`: methods x seeds x numbers of documents from one starter, on one split, as jobs that can be cut.

    offramp compare study=receipts
    offramp compare docs.path=receipts.jsonl methods=sft,distill,grpo seeds='range(0,3)' documents=30,100,all

A job's folder is named by the hash of everything that decides it: what is done is kept, what failed or was cut is done
again, alone, by the same command.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

from envs.documents import read_documents
from envs.labels import traces_by_document
from launch import checks, job
from launch.compare_data import ask_teacher, prepare_data, say
from launch.compare_jobs import STARTER, Job, check_overrides, plan_jobs, weights_version
from launch.compose import compose_compare
from launch.launchers import script, submit
from rewards.document import Document
from rewards.errors import ConfigError, DataError, InfraError, OfframpError
from rewards.task import load_task
from rl import compare as numbers
from rl import report
from rl.compare_config import CompareConfig
from rl.evaluate import read_answers
from rl.prepare import at_most
from rl.record import write_whole

TEACHER = "teacher"


def compare(args: list[str], as_json: bool) -> dict[str, Any] | None:
    from launch.commands import _help, split_flags

    if _help("compare", args, CompareConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    config = compose_compare([word for word in overrides], config_dir)
    if any(flag in ("-c", "--cfg") for flag in flags):
        print(config.model_dump_json(indent=2))
        return None
    others = [flag for flag in flags if flag not in ("-m", "--multirun")]  # methods x seeds x documents are its runs
    if others:
        raise ConfigError(f"{others[0]}: not for compare, which takes --cfg and --multirun; leave it out")
    return run(config, config_dir)


def run(config: CompareConfig, config_dir: str | None = None) -> dict[str, Any]:
    """Runs what is not done yet, then writes tables, plots and page. Raises InfraError where jobs failed."""
    folder = Path(config.dir)
    check_baseline(config)
    check_overrides(config, config_dir)
    checks.check_traces("teacher.traces", config.teacher.traces)
    data = prepare_data(config, folder) | {"starter": weights_version(config, config_dir)}
    config = ask_teacher(config, folder)
    jobs = plan_jobs(config, folder, data, config_dir)
    write_whole(folder / "config.json", config.model_dump_json(indent=2) + "\n")
    failed: list[str] = []
    open_jobs = [j.folder for j in jobs if job.finished(j.folder, j.key) is None]
    if config.launcher.kind == "local":
        failed = run_here(jobs, config.launcher.parallel, config.launcher.retries)
    elif open_jobs:
        if config.launcher.kind == "none":
            say(f"{len(open_jobs)} of {len(jobs)} jobs are not done and left out")
        else:
            launch = submit if config.launcher.kind == "submitit" else script
            return launch(folder, open_jobs, config.launcher.parameters)
    faults = f"{len(failed)} of {len(jobs)} jobs failed"
    reasons = f"the same command does only those again: {'; '.join(failed)[:600]}"
    try:
        summary = report_on(config, folder, data, jobs)
    except OfframpError as error:
        if not failed:
            raise
        raise InfraError(f"{faults}, and no report is made ({error}); {reasons}") from None
    if failed:
        raise InfraError(f"{faults}, the others are in {folder / 'report.md'}; {reasons}")
    return summary


def check_baseline(config: CompareConfig) -> None:
    """Raises ConfigError where no row will have the baseline's name."""
    teacher = [TEACHER, "best_trace"] if config.teacher.traces or config.teacher.label else []
    rows = [STARTER, *teacher, *config.methods]
    if config.baseline not in rows:
        raise ConfigError(f"baseline={config.baseline}: no row of that name; give one of {', '.join(rows)}")


def run_here(jobs: Sequence[Job], parallel: int, retries: int) -> list[str]:
    """Runs the jobs that are not done, as child processes; returns a line for each that failed."""
    todo = [j for j in jobs if job.finished(j.folder, j.key) is None]
    say(f"{len(jobs)} jobs, {len(jobs) - len(todo)} done before")
    running: list[subprocess.Popen[bytes]] = []
    starting, over = Lock(), Event()  # after `over` no job begins, not even one that is tried again

    def one(item: tuple[int, Job]) -> str | None:
        number, j = item
        for attempt in range(retries + 1):
            with starting:
                if over.is_set():
                    return f"{j.folder.name}: stopped"
                say(f"[{number}/{len(todo)}] {j.folder.name}" + (" again" if attempt else ""))
                process = subprocess.Popen(
                    [sys.executable, "-m", "launch.job", str(j.folder)], stderr=subprocess.PIPE, start_new_session=True
                )
                running.append(process)
            _, errors = process.communicate()
            if process.returncode == 0:
                return None
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1].removeprefix("offramp: error: ") if lines else f"{j.folder.name}: exit {process.returncode}"
        say(f"[{number}/{len(todo)}] failed: {reason}")
        return reason

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    with ThreadPoolExecutor(parallel) as pool:
        try:
            outcomes = list(pool.map(one, enumerate(todo, start=1)))
        except BaseException:
            with starting:
                over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                if process.poll() is None:
                    process.terminate()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    return [outcome for outcome in outcomes if outcome is not None]


def report_on(config: CompareConfig, folder: Path, data: Mapping[str, Any], jobs: Sequence[Job]) -> dict[str, Any]:
    """Reads the answers of all finished jobs and writes summary.json, report.md, report.html, plots and cards."""
    task = load_task(config.task)
    paths = {name: folder / "documents" / f"{name}.jsonl" for name in ("train", "test")}
    train, test = (read_documents(path, max_bad=0, quarantine=None) for path in paths.values())
    traces = traces_by_document(config.teacher.traces)
    done = {j: result for j in jobs if (result := job.finished(j.folder, j.key)) is not None}
    if not any(j.documents is not None for j in done):
        raise DataError("no method was trained, so there is nothing to compare")
    check_equal_data(done)
    rows: list[numbers.Row] = []
    for name, best in ((TEACHER, False), ("best_trace", True)):
        answers = numbers.recorded_answers(task, test, traces, best=best)
        several = any(len(traces.get(document.id, ())) > 1 for document in test)
        if answers and (several or not best):
            cost = teacher_cost(config, [d for d in test if d.id in traces], traces)
            rows.append(numbers.Row(name, None, (), numbers.measure(task, test, answers), cost=cost))
    seen: dict[int | None, frozenset[str]] = {None: frozenset(document.group for document in train)}
    for (method, documents), members in _by_row(done).items():
        measured = [numbers.measure(task, test, read_answers(j.folder / "answers.jsonl")) for j in members]
        costs = [job_cost(config, j, done, train, traces) for j in members]
        seeds = tuple(j.seed for j in members) if documents is not None else ()
        if documents is not None and documents not in seen:
            seen[documents] = frozenset(document.group for document in trained_on(members[0].trained, train))
        rows.append(
            numbers.Row(method, documents, seeds, numbers.combine(measured), tuple(measured), numbers.mean_costs(costs))
        )
    runs = {j.folder.name: j.trained for j in done if j.documents is not None}
    write_whole(folder / "metrics.jsonl", "".join(numbers.metric_lines(runs)))
    labelled = sum(document.gold is not None for document in train)
    return report.write(
        config, folder, {**data, "train": {**data["train"], "labelled": labelled}}, rows, seen, test, runs
    )


def _by_row(done: Mapping[Job, Any]) -> dict[tuple[str, int | None], list[Job]]:
    found: dict[tuple[str, int | None], list[Job]] = {}
    for j in done:
        found.setdefault((j.method, j.documents), []).append(j)
    return found


def check_equal_data(done: Mapping[Job, Any]) -> None:
    """Raises DataError where two runs of one size saw different documents."""
    seen: dict[int, tuple[str, str]] = {}
    for j in done:
        if j.documents is None:
            continue
        documents = json.loads((j.trained / "run.json").read_text(encoding="utf-8")).get("documents")
        name, before = seen.setdefault(j.documents, (j.folder.name, documents))
        if before != documents:
            raise DataError(
                f"{j.folder.name} and {name} saw different documents ({documents}, {before}); methods are compared on "
                "equal data only: remove the overrides in `train` and `recipes` that change docs, model or sampler"
            )


def trained_on(stage: Path, train: Sequence[Document]) -> Sequence[Document]:
    """The training documents of a job: all of them, or the part that its size drew."""
    docs = json.loads((stage / job.PLAN).read_text(encoding="utf-8"))["train"]["docs"]
    return at_most(train, docs["train_documents"], docs["split_seed"])


def teacher_cost(config: CompareConfig, documents: Sequence[Document], traces: Mapping[str, Any]) -> dict[str, Any]:
    """Calls and tokens of the teacher for these documents."""
    calls = numbers.teacher_tokens(documents, traces, config.prices)
    return {
        "teacher_calls": calls["teacher_calls"],
        "teacher_tokens": calls["teacher_tokens"],
        "teacher_prompt_tokens": round(calls["prompt"]),
        "teacher_completion_tokens": round(calls["completion"]),
    }


def job_cost(
    config: CompareConfig, j: Job, done: Mapping[Job, Any], train: Sequence[Document], traces: Mapping[str, Any]
) -> dict[str, Any]:
    """What a job took: labels, calls and tokens of the teacher, seconds, tokens, memory, and its speed in use."""
    result = done[j]
    speed = {"inference_tokens_per_second": result["evaluation"].get("tokens_per_second") or 0.0}
    if j.documents is None:
        return speed
    stages = [j.trained]
    while (before := json.loads((stages[0] / job.PLAN).read_text(encoding="utf-8"))["before"]) is not None:
        stages.insert(0, j.folder.parent / before)
    costs = []
    for stage in stages:
        plan = json.loads((stage / job.PLAN).read_text(encoding="utf-8"))
        facts = json.loads((stage / "run.json").read_text(encoding="utf-8"))
        method, docs = plan["train"]["method"], plan["train"]["docs"]
        cost: dict[str, Any] = dict(numbers.run_cost(stage))
        cost["human_labels"] = facts.get("labels", {}).get("human", 0)
        if plan["train"]["eval"]["metric"] != "reward":
            select = read_documents(docs["test_path"], max_bad=0, quarantine=None)
            cost["human_labels"] += sum(document.gold is not None for document in select)
        if method.get("traces"):
            cost |= teacher_cost(config, trained_on(stage, train), traces)
        memory = (job.finished(stage, plan["key"]) or {}).get("peak_memory_mb", 0.0)
        costs.append(cost | {"peak_memory_mb": memory})
    return numbers.add_costs(costs) | speed
