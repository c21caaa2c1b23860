"""What can be known to be wrong before torch is imported: task, documents, model, the run's folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from envs.documents import Quarantine, iterate_documents
from rewards.errors import ConfigError, DataError
from rl.config import DocsConfig, EvaluateConfig, JsonlDocs, RunConfig, SyntheticDocs, TrainConfig
from rl.engine_arguments import check_engine_arguments, check_sampling
from rl.task_of import task_of

PEEK = 200
"""Lines of each file looked at before the start; the whole file is read later."""


def check_run(config: TrainConfig) -> None:
    """Raises ConfigError or DataError with one line."""
    task_of(config)
    check_folder(config)
    check_docs(config.docs, config.task)
    if isinstance(config.docs, SyntheticDocs):
        training = config.docs.train
        if training < config.batch.documents_per_step:
            raise ConfigError(
                f"docs.train={training}: fewer than batch.documents_per_step={config.batch.documents_per_step}; "
                "make more documents or smaller steps"
            )
    check_traces("method.traces", getattr(config.method, "traces", ()))
    check_settings(config)
    check_model(config.model.path)


def check_settings(config: TrainConfig) -> None:
    """What needs no file. Raises ConfigError with one line."""
    if isinstance(config, RunConfig) and config.lora is not None and config.lora.dropout:
        raise ConfigError(
            f"lora.dropout={config.lora.dropout}: method={config.method.kind} learns from the probabilities that it "
            "sampled with; set lora.dropout=0.0"
        )
    check_sampling(config.sampler)
    check_engine_arguments(config.sampler.engine)


def check_traces(key: str, paths: Iterable[str]) -> None:
    """Raises DataError for a file of recorded answers that is not there."""
    for path in paths:
        if not Path(path).is_file():
            raise DataError(f"{key}={path}: no such file; offramp label makes traces")


def check_evaluate(config: EvaluateConfig) -> None:
    """Raises ConfigError or DataError with one line."""
    task_of(config)
    check_docs(config.docs, config.task)
    if config.output is not None and Path(config.output).is_dir():
        raise ConfigError(f"output={config.output}: is a folder; give a file's name")
    if config.seen is not None and not Path(config.seen).exists():
        raise ConfigError(f"seen={config.seen}: no such file or run; seen=null if there is none")
    if config.baseline is not None and not Path(config.baseline).is_file():
        raise DataError(f"baseline={config.baseline}: no such file; offramp evaluate ... output=FILE writes one")
    check_sampling(config.sampler)
    check_engine_arguments(config.sampler.engine)
    check_model(config.model.path)


def check_folder(config: TrainConfig) -> None:
    folder = Path(config.run.dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run.dir={folder}: is a file; choose another run.dir")
    if config.run.resume == "never" and (folder / "metrics.jsonl").exists():
        raise ConfigError(f"run.resume=never: {folder} already holds a run; choose another run.name or run.resume=auto")
    if config.run.resume == "must" and not any(_entries(folder / "checkpoints")):
        raise ConfigError(f"run.resume=must: {folder} holds no checkpoint; use run.resume=auto to start")
    parent = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"run.dir={folder}: {parent} cannot be written to; choose another run.dir")


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def check_docs(docs: DocsConfig, task: str) -> None:
    if not isinstance(docs, JsonlDocs):
        return
    for key, path in [("docs.path", docs.path), ("docs.test_path", docs.test_path)] + [
        (f"docs.extra.{i}", path) for i, path in enumerate(docs.extra)
    ]:
        if path is None:
            continue
        file = Path(path).expanduser()
        if not file.is_file():
            near = file.parent if file.parent.is_dir() else None
            have = sorted(name.name for name in near.glob("*.jsonl"))[:5] if near else []
            hint = f"; {near} has {', '.join(have)}" if have else ""
            what = "is a folder, give a JSONL file" if file.is_dir() else "no such file"
            raise DataError(f"{key}={path}: {what}{hint}")
        faults = Quarantine(path, docs.max_bad, None)
        seen = sum(1 for _ in islice(iterate_documents(file, faults), PEEK))
        if seen == 0:
            raise DataError(f"{key}={path}: " + ("no good line" if faults.count else "no documents: the file is empty"))


def check_model(path: str, key: str = "model.path") -> None:
    """A folder must be there and hold a model or a run; a hub name must be in the cache where the hub is off."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        file = folder / "config.json"
        if not file.is_file():
            raise ConfigError(f"{key}={path}: no config.json in that folder, so neither a model nor a run")
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ConfigError(f"{key}={path}: its config.json cannot be read") from None
        return
    if folder.exists():
        raise ConfigError(f"{key}={path}: is a file; give the model's folder")
    looks_like_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not path.startswith((".", "results/", "runs/"))
    if not looks_like_hub_name:
        raise ConfigError(f"{key}={path}: no such folder, and a hub name is written ORG/NAME")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    if offline and not _hub_cache(path).is_dir():
        raise ConfigError(
            f"{key}={path}: not in the local Hugging Face cache, and HF_HUB_OFFLINE is set; unset it to "
            "download the model, or give a folder"
        )


def _hub_cache(name: str) -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return cache / f"models--{name.replace('/', '--')}"
