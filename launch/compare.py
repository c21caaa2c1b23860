"""`offramp compare`: methods x seeds x numbers of documents from one starter, on one split, as jobs that can be cut.

    offramp compare study=receipts
    offramp compare docs.path=receipts.jsonl methods=sft,distill,grpo seeds='range(0,3)' documents=30,100,all

A job's folder is named by the hash of everything that decides it: what is done is kept, what failed or was cut is done
again, alone, by the same command.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from envs.documents import read_documents, write_documents
from envs.labels import traces_by_document
from envs.splits import Split, near_duplicates, split
from launch import checks, job
from launch.compose import compose_compare, compose_evaluate, compose_run
from launch.launchers import script, submit
from rewards.document import Document
from rewards.errors import DataError, InfraError
from rewards.task import Task, load_task
from rl import compare as numbers
from rl import report
from rl.compare_config import CompareConfig
from rl.config import DocsConfig, HfDocs, JsonlDocs, SyntheticDocs, TrainConfig
from rl.evaluate import read_answers
from rl.prepare import join, load_documents, read_extra
from rl.record import write_whole

STARTER, TEACHER = "starter", "teacher"
TAKE_TRACES = ("distill", "graded_sft", "dpo")


@dataclass(frozen=True, slots=True)
class Job:
    """Example: Job("distill+grpo", 624, 0, Path("runs/receipts/jobs/distill+grpo-624-s0-3f2a9c01"), "3f2a9c01...")"""

    method: str
    documents: int | None
    """Training documents; None for the starter, which is not trained."""
    seed: int
    folder: Path
    key: str


def compare(args: list[str], as_json: bool) -> dict[str, Any] | None:
    from launch.commands import _help, split_flags

    if _help("compare", args, CompareConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    config = compose_compare([word for word in overrides], config_dir)
    if any(flag in ("-c", "--cfg") for flag in flags):
        print(config.model_dump_json(indent=2))
        return None
    return run(config, config_dir)


def run(config: CompareConfig, config_dir: str | None = None) -> dict[str, Any]:
    """Runs what is not done yet, then writes tables, plots and page. Raises InfraError where jobs failed."""
    folder = Path(config.dir)
    checks.check_traces("teacher.traces", config.teacher.traces if config.teacher else ())
    data = prepare_data(config, folder) | {"starter": weights_version(config, config_dir)}
    config = ask_teacher(config, folder)
    jobs = plan_jobs(config, folder, data, config_dir)
    write_whole(folder / "config.json", config.model_dump_json(indent=2) + "\n")
    failed: list[str] = []
    if config.launcher.kind == "local":
        failed = run_here(jobs, config.launcher.parallel, config.launcher.retries)
    else:
        open_jobs = [j.folder for j in jobs if job.finished(j.folder, j.key) is None]
        if open_jobs:
            launch = submit if config.launcher.kind == "submitit" else script
            return launch(folder, open_jobs, config.launcher.parameters)
    summary = report_on(config, folder, data, jobs)
    if failed:
        raise InfraError(
            f"{len(failed)} of {len(jobs)} jobs failed, the others are in {folder / 'report.md'}; the same command "
            f"does only those again: {'; '.join(failed)[:600]}"
        )
    return summary


def prepare_data(config: CompareConfig, folder: Path) -> dict[str, Any]:
    """The one split, written once: train, select (where runs pick their best) and test, and their hashes.

    Raises DataError when the folder holds a comparison over other documents or another version of the task.
    """
    task = load_task(config.task)
    checks.check_docs(config.docs, config.task)
    docs = config.docs
    extra: list[Document] = []
    if isinstance(docs, JsonlDocs):
        extra = read_extra(docs, None)
        docs = docs.model_copy(update={"extra": (), "train_documents": None})
    parts = apart(docs, task)
    if not parts.test:
        raise DataError("docs: no test documents; give docs.test_path or a docs.test_fraction above 0")
    inner = split(parts.train, config.select_fraction, 0)
    train = join(Split(inner.train, (*inner.test, *parts.test)), extra).train
    select = inner.test[: config.select_documents]
    facts: dict[str, Any] = {"task": file_hash(config.task)}
    for name, documents in (("train", train), ("select", select), ("test", parts.test)):
        facts[name] = {"documents": len(documents), "hash": numbers.data_hash(documents)}
    path = folder / "documents"
    if (path / "data.json").is_file():
        before = json.loads((path / "data.json").read_text(encoding="utf-8"))
        for name in facts:
            if before.get(name) != facts[name]:
                raise DataError(
                    f"{folder}: holds a comparison over other data ({name} was {before.get(name)}, is {facts[name]}); "
                    "methods are compared on equal data only: choose another name"
                )
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, documents in (("train", train), ("select", select), ("test", parts.test)):
            write_documents(path / f"{name}.jsonl", documents)
        write_whole(path / "data.json", json.dumps(facts, indent=1) + "\n")
    return facts


def apart(docs: DocsConfig, task: Task) -> Split:
    """Training and test documents; of two files, the training ones that stand in the test file too, or nearly so, go.

    Groups of the test file may stay in training: they are the groups seen, and told apart in every table.
    """
    if isinstance(docs, SyntheticDocs):
        return load_documents(docs, task, None)
    key, held_out = ("split", docs.test_split) if isinstance(docs, HfDocs) else ("path", docs.test_path)
    if held_out is None:
        return load_documents(docs, task, None)
    alone = {("test_split" if key == "split" else "test_path"): None, "test_fraction": 0.0}
    train = load_documents(docs.model_copy(update=alone), task, None).train
    test = load_documents(docs.model_copy(update=alone | {key: held_out}), task, None).train
    known = {document.id for document in test}
    twice = {pair.first.id for pair in near_duplicates(train, test)} | {d.id for d in train if d.id in known}
    if twice:
        say(f"left out {len(twice)} of {len(train)} training documents that the test documents have too, or nearly so")
    return Split(tuple(document for document in train if document.id not in twice), test)


def ask_teacher(config: CompareConfig, folder: Path) -> CompareConfig:
    """Lets the teacher answer the documents, where it has to, and gives its traces; it goes on where it was cut."""
    if config.teacher is None or not config.teacher.label:
        return config
    documents = folder / "documents"
    out = documents / "traces.jsonl"
    command = [
        sys.executable,
        "-m",
        "launch.cli",
        "label",
        *config.teacher.label,
        f"task={config.task}",
        "docs=jsonl",
        f"docs.path={documents / 'train.jsonl'}",
        f"docs.extra=[{documents / 'test.jsonl'}]",
        f"out={out}",
    ]
    say(f"the teacher answers: {' '.join(config.teacher.label)}")
    if (code := subprocess.run(command, stdout=sys.stderr, check=False).returncode) != 0:
        raise InfraError(f"teacher.label: ended with exit code {code}; its messages stand above")
    teacher = config.teacher.model_copy(update={"traces": (*config.teacher.traces, str(out)), "label": ()})
    return config.model_copy(update={"teacher": teacher})


def file_hash(task: str) -> str:
    """Version of a task: SHA-256 of its file, 16 hex digits."""
    from rewards.task import TASK_FOLDER

    path = Path(task) if "/" in task or task.endswith((".yaml", ".yml")) else TASK_FOLDER / f"{task}.yaml"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def weights_version(config: CompareConfig, config_dir: str | None) -> str:
    """SHA-256 of the starter's weights, 16 hex digits; its name where it is no folder."""
    path = compose_evaluate([f"model={config.starter}", "docs=jsonl", "docs.path=none"], config_dir).model.path
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16] if Path(path).is_dir() else path


def plan_jobs(config: CompareConfig, folder: Path, data: Mapping[str, Any], config_dir: str | None) -> list[Job]:
    """A folder with its plan for every job of the grid, the starter's first. Raises ConfigFaults for a bad override."""
    plans: dict[str, Job] = {}
    jobs = [_plan(config, folder, data, "", None, 0, config_dir, plans)]
    for documents in config.documents:
        for seed in config.seeds:
            for method in config.methods:
                size = min(documents or data["train"]["documents"], data["train"]["documents"])
                jobs.append(_plan(config, folder, data, method, size, seed, config_dir, plans))
    return list(dict.fromkeys(jobs))


def _plan(
    config: CompareConfig,
    folder: Path,
    data: Mapping[str, Any],
    method: str,
    documents: int | None,
    seed: int,
    config_dir: str | None,
    plans: dict[str, Job],
) -> Job:
    """Writes one job's plan, after that of the job it builds on."""
    first = method.rpartition("+")[0]
    before = _plan(config, folder, data, first, documents, seed, config_dir, plans) if first else None
    name = f"{method or STARTER}-{'none' if documents is None else documents}-s{seed}"
    train = None
    if method:
        train = _training(config, folder, method, documents or 0, seed, before, config_dir)
        checks.check_traces("method.traces", getattr(train.method, "traces", ()))
    start = before.key if before else config.starter
    decides = [{} if train is None else _what_decides(train, start), list(config.evaluate), data, start]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    place = Path(config.jobs) / f"{name}-{key[:8]}"
    if key not in plans:
        place.mkdir(parents=True, exist_ok=True)
        if train is not None:
            run_settings = train.run.model_copy(update={"name": place.name, "dir": str(place)})
            train = train.model_copy(update={"run": run_settings})
        evaluation = compose_evaluate(
            [
                f"model={config.starter}",
                f"task={config.task}",
                *config.evaluate,
                "docs=jsonl",
                f"docs.path={folder / 'documents' / 'test.jsonl'}",
                f"seen={folder / 'documents' / 'train.jsonl'}",
                f"output={place / 'answers.jsonl'}",
                *([f"model.path={place / 'best'}"] if method else []),
            ],
            config_dir,
        )
        plan = {
            "key": key,
            "before": before.folder.name if before else None,
            "train": None if train is None else train.model_dump(mode="json"),
            "evaluate": evaluation.model_dump(mode="json"),
        }
        write_whole(place / job.PLAN, json.dumps(plan, indent=1) + "\n")
        plans[key] = Job(method or STARTER, documents, seed, place, key)
    return plans[key]


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
    before: Job | None,
    config_dir: str | None,
) -> TrainConfig:
    """The training configuration of the last stage of `method`."""
    last = method.rpartition("+")[2]
    traces = config.teacher.traces if config.teacher and last in TAKE_TRACES else ()
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
        *config.train,
        *config.recipes.get(last, ()),
        *(config.recipes.get(method, ()) if method != last else ()),
    ]
    if config.budget.kind != "documents" and config.budget.amount is not None:
        share = config.budget.amount / len(method.split("+"))
        cap = f"max_tokens={int(share)}" if config.budget.kind == "update_tokens" else f"max_seconds={share}"
        overrides.append(f"run.{cap}")
    if before is not None:
        overrides.append(f"model.path={before.folder / 'best'}")
    return compose_run(overrides, config_dir)


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
        return lines[-1].removeprefix("offramp: error: ") if lines else f"{j.folder.name}: exit {process.returncode}"

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
    traces = traces_by_document(config.teacher.traces) if config.teacher else {}
    done = {j: result for j in jobs if (result := job.finished(j.folder, j.key)) is not None}
    check_equal_data(done)
    rows: list[numbers.Row] = []
    if config.teacher:
        for name, best in ((TEACHER, False), ("best_trace", True)):
            answers = numbers.recorded_answers(task, test, traces, best=best)
            several = any(len(traces.get(document.id, ())) > 1 for document in test)
            if answers and (several or not best):
                rows.append(numbers.Row(name, None, (), numbers.measure(task, test, answers)))
    for (method, documents), members in _by_row(done).items():
        measured = [numbers.measure(task, test, read_answers(j.folder / "answers.jsonl")) for j in members]
        costs = [job_cost(config, j, done, train, traces) for j in members]
        seeds = tuple(j.seed for j in members) if documents is not None else ()
        rows.append(
            numbers.Row(method, documents, seeds, numbers.combine(measured), tuple(measured), numbers.mean_costs(costs))
        )
    curves = {j.folder.name: j for j in done if j.documents is not None}
    return report.write(config, folder, data, rows, train, test, {name: j.folder for name, j in curves.items()})


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
        documents = json.loads((j.folder / "run.json").read_text(encoding="utf-8")).get("documents")
        name, before = seen.setdefault(j.documents, (j.folder.name, documents))
        if before != documents:
            raise DataError(
                f"{j.folder.name} and {name} saw different documents ({documents}, {before}); methods are compared on "
                "equal data only: remove the overrides in `train` and `recipes` that change docs, model or sampler"
            )


def job_cost(
    config: CompareConfig, j: Job, done: Mapping[Job, Any], train: Sequence[Document], traces: Mapping[str, Any]
) -> dict[str, Any]:
    """What a job took: labels, calls and tokens of the teacher, seconds, tokens, memory, and its speed in use."""
    result = done[j]
    speed = {"inference_tokens_per_second": result["evaluation"].get("tokens_per_second") or 0.0}
    if j.documents is None:
        return speed
    stages = [j.folder]
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
            used = train
            if docs["train_documents"] is not None and docs["train_documents"] < len(train):
                used = load_documents(
                    JsonlDocs.model_validate_json(json.dumps(docs)), load_task(config.task), None
                ).train
            calls = numbers.teacher_tokens(used, traces, config.prices)
            cost |= {
                "teacher_calls": calls["teacher_calls"],
                "teacher_tokens": calls["teacher_tokens"],
                "teacher_prompt_tokens": round(calls["prompt"]),
                "teacher_completion_tokens": round(calls["completion"]),
            }
        memory = (job.finished(stage, plan["key"]) or {}).get("peak_memory_mb", 0.0)
        costs.append(cost | {"peak_memory_mb": memory})
    return numbers.add_costs(costs) | speed


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
