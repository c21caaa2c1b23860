"""The documents of a comparison, split once and kept, and the teacher's answers to them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from envs.documents import write_documents
from envs.splits import Split, near_duplicates, split
from launch import checks
from rewards.document import Document
from rewards.errors import DataError, InfraError
from rewards.task import Task, load_task
from rl import compare as numbers
from rl.compare_config import CompareConfig
from rl.config import DocsConfig, HfDocs, JsonlDocs, SyntheticDocs
from rl.prepare import join, load_documents, read_extra
from rl.record import write_whole


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
    numbers.check_metric(task, parts.test, config.metric)
    inner = split(parts.train, config.select_fraction, 0, "select_fraction")
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
    if not config.teacher.label:
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


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
