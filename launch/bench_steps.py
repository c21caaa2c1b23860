"""offramp bench step, load, ahead and learning: compose the run that a side trains by, as `offramp train` would."""

from __future__ import annotations

from typing import Any

from launch.compose import compose_run
from rewards.errors import ConfigError
from rl.bench import LEARNING, SETTINGS, TRAINING, main, read_settings


def step(args: list[str]) -> dict[str, Any] | None:
    return _run("step", args)


def load(args: list[str]) -> dict[str, Any] | None:
    return _run("load", args)


def _run(name: str, args: list[str]) -> dict[str, Any]:
    settings = read_settings(name, args, SETTINGS)
    config = compose_run(
        [
            "docs=jsonl",
            "docs.path=bench.jsonl",
            f"task={settings['task']}",
            f"model.path={settings['model']}",
            f"model.dtype={settings['dtype']}",
            f"model.attention={settings['attention']}",
            f"model.gradient_checkpointing={str(settings['checkpointing']).lower()}",
            f"batch.documents_per_step={settings['documents']}",
            f"batch.group_size={settings['group']}",
            f"batch.tokens_per_batch={settings['tokens_per_batch']}",
            f"sampler.max_tokens={settings['completion']}",
            f"run.seed={settings['seed']}",
            "eval.at_start=false",
            "eval.every_steps=0",
            "eval.documents=1",
            "optim.warmup_steps=0",
            "optim.lr=1e-6",
            "checkpoint.every_steps=1000000",
            "record.wandb.enabled=false",
            "method=dapo",
            "docs.max_bad=0",
        ]
    )
    return main([name, *args], run=config.model_dump_json())


def ahead(args: list[str]) -> dict[str, Any] | None:
    return _training("ahead", args, TRAINING)


def learning(args: list[str]) -> dict[str, Any] | None:
    return _training("learning", args, LEARNING)


def _training(name: str, args: list[str], known: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    settings = read_settings(name, args, known)
    if name == "ahead" and settings["steps"] < 3:
        raise ConfigError(f"--steps {settings['steps']}: must be at least 3, two of them warm up")
    config = compose_run(
        [
            "experiment=honesty",
            f"task={settings['task']}",
            f"model.path={settings['model']}",
            f"model.dtype={settings['dtype']}",
            f"batch.documents_per_step={settings['documents']}",
            f"batch.group_size={settings['group']}",
            f"sampler.max_tokens={settings['completion']}",
            f"optim.lr={settings['lr']}",
            f"run.seed={settings['seed']}",
            f"run.steps={settings['steps']}",
            "docs.test=1",
            "eval.at_start=false",
            "eval.every_steps=0",
            "optim.warmup_steps=0",
            "checkpoint.every_steps=1000000",
        ]
    )
    return main([name, *args], run=config.model_dump_json())
