"""`offramp bench update|memory|scaling|step|load|rollout|ahead|learning|gpu`: read the settings, measure, print, keep.

Settings are `--name value` or `name=value`. With --keep the result is written under results/bench with the machine,
the versions and the load average: numbers of a busy machine are worth what their load average says.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from envs.synthetic import FAMILIES
from rewards.errors import ConfigError
from rl.bench_sides import machine
from rl.bench_update import STARTER

RESULTS = STARTER.parent / "bench"
CHECKPOINTED = 2048
"""Distinct tokens of a group from which on checkpointing=auto means true: there its memory is worth its time."""

SETTINGS: dict[str, tuple[Any, str]] = {
    "model": (str(STARTER), "a model folder"),
    "prompt": (350, "tokens of a prompt"),
    "completion": (100, "tokens of a completion"),
    "group": (8, "completions of a document (G)"),
    "documents": (4, "documents of a step"),
    "rounds": (5, "turns of each side, after one to warm up"),
    "threads": (2, "torch threads"),
    "tokens-per-batch": (1024, "token budget of our micro-batches, which hold a group at least, and of the limit's"),
    "attention": ("shared_prefix", "shared_prefix or plain, of our side"),
    "dtype": ("bfloat16", "bfloat16 or float32, of every side"),
    "checkpointing": (
        "auto",
        "gradient checkpointing on our side (TRL has it by default): true, products, false, auto",
    ),
    "task": ("receipt", "whose prompt and rubric"),
    "seed": (0, "of tokens and documents"),
}
ROLLOUT: dict[str, tuple[Any, str]] = {
    "model": (str(STARTER), "a model folder or hub name"),
    "task": ("receipt", "whose synthetic documents"),
    "documents": (16, "prompts"),
    "group-size": (8, "completions of each"),
    "max-tokens": (128, "longest completion"),
    "max-model-len": (2048, "longest prompt and completion"),
    "dtype": ("bfloat16", "bfloat16 or float32"),
    "threads": (2, "torch threads"),
    "rounds": (4, "turns"),
}
TRAINING: dict[str, tuple[Any, str]] = {
    "model": (str(STARTER), "a model folder"),
    "task": ("receipt", "whose synthetic documents, of held-out layouts"),
    "steps": (12, "updates of each side"),
    "documents": (16, "documents of a step"),
    "group": (8, "completions of a document (G)"),
    "completion": (320, "longest completion, tokens"),
    "dtype": ("bfloat16", "bfloat16 or float32"),
    "lr": (3e-4, "learning rate"),
    "threads": (2, "torch threads; ahead: half for the trainer, half for the sampler"),
    "seed": (0, "of the run; the first of the seeds"),
}
LEARNING = TRAINING | {
    "steps": (50, "updates of each run"),
    "seeds": (3, "runs of each side"),
    "documents": (4, "documents of a step"),
    "group": (4, "completions of a document (G)"),
    "dtype": ("float32", "float32 shows the gradients' difference; bfloat16 rounds more"),
}
GPU: dict[str, tuple[Any, str]] = {
    "device": ("cuda", "cuda or cpu"),
    "shapes": ("qwen3-0.6b,qwen3-4b", "of qwen3-0.6b, qwen3-4b and tiny"),
    "prompts": ("1000,4000,8000", "prompt lengths, tokens"),
    "completion": (200, "tokens"),
    "group": (16, "completions of a document"),
    "rounds": (5, "repetitions, after one to warm up"),
    "threads": (2, "torch threads, for device=cpu"),
    "seed": (0, "of the tokens"),
}


def main(args: Sequence[str], run: str | None = None) -> dict[str, Any]:
    """One part, args[0]; the rest are its settings. `run` is the RunConfig, as JSON, that whole steps train by."""
    from rl import bench_gpu, bench_rollout, bench_step, bench_training, bench_update

    parts: Mapping[str, tuple[Mapping[str, tuple[Any, str]], Callable[[dict[str, Any]], dict[str, Any]]]] = {
        "update": (SETTINGS, bench_update.update),
        "memory": (SETTINGS, bench_update.memory),
        "scaling": (SETTINGS, bench_step.scaling),
        "step": (SETTINGS, bench_step.step),
        "load": (SETTINGS, bench_step.load),
        "rollout": (ROLLOUT, lambda settings: bench_rollout.bench_rollout(settings.pop("model"), **settings)),
        "ahead": (TRAINING, bench_training.ahead),
        "learning": (LEARNING, bench_training.learning),
        "gpu": (GPU, bench_gpu.gpu),
    }
    name = args[0]
    known, measure = parts[name]
    settings = read_settings(name, args[1:], known)
    keep = settings.pop("keep")
    if re.search(r"[^\w.+-]", keep):
        raise ConfigError(f"--keep {keep}: letters, digits, _ . + - name a file of results/bench")
    if "model" in settings:
        if (Path(settings["model"]) / "config.json").is_file():
            settings["model"] = str(Path(settings["model"]).resolve())  # the sides run in a folder of their own
        elif name != "rollout" or Path(settings["model"]).exists():
            raise ConfigError(f"--model {settings['model']}: no model folder")
    if "task" in settings and settings["task"] not in FAMILIES:
        raise ConfigError(f"--task {settings['task']}: synthetic documents are there for {', '.join(FAMILIES)}")
    if settings.get("attention") not in (None, "shared_prefix", "plain"):
        raise ConfigError(f"--attention {settings['attention']}: must be shared_prefix or plain")
    if settings.get("group", 2) < 2:
        raise ConfigError(f"--group {settings['group']}: must be at least 2, an advantage is over a group")
    if name == "gpu":
        _check_gpu(settings)
    before = machine(settings["threads"])
    if run is not None:
        settings["run"] = run
    with _files_as_config_errors(name):
        if keep:
            RESULTS.mkdir(parents=True, exist_ok=True)
        result = measure(dict(settings))
    settings.pop("run", None)
    root = STARTER.parents[1]
    if "model" in settings and Path(settings["model"]).is_relative_to(root):
        settings["model"] = str(Path(settings["model"]).relative_to(root))
    whole = {"bench": name, **result, "settings": settings, "machine": before}
    for line in table(result):
        print(line)
    print(f"load average before: {before['load_average']}")
    if keep:
        with _files_as_config_errors(name):
            (RESULTS / f"{keep}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(f"kept in results/bench/{keep}.json")
    return whole


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, where argparse prints its usage too."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.removeprefix('offramp ')}: {message}; --help lists the settings")


@contextmanager
def _files_as_config_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"bench {name}: {str(error).splitlines()[0]}") from error


def read_settings(name: str, args: Sequence[str], known: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """Settings by name, "_" for "-"; raises ConfigError for what it does not know or cannot read."""
    parser = _Parser(prog=f"offramp bench {name}", allow_abbrev=False)
    for key, (default, about) in known.items():
        parser.add_argument(f"--{key}", type=type(default), default=default, help=f"{about} ({default})")
    parser.add_argument("--keep", metavar="NAME", default="", help="write the result to results/bench/NAME.json")
    words: list[str] = []
    for word in args:
        key, equals, value = word.partition("=")
        words += [f"--{key.replace('_', '-')}", value] if equals and not word.startswith("-") else [word]
    settings = vars(parser.parse_args(words))
    for key, value in settings.items():
        if isinstance(value, int) and value < (0 if key == "seed" else 1):
            raise ConfigError(f"--{key.replace('_', '-')} {value}: must be at least 1")
    if settings.get("dtype", "float32") not in ("bfloat16", "float32"):
        raise ConfigError(f"--dtype {settings['dtype']}: must be bfloat16 or float32")
    if "checkpointing" in settings:
        tokens = settings["prompt"] + settings["group"] * settings["completion"]
        auto = tokens > CHECKPOINTED
        kinds = {"auto": auto, "true": True, "products": "products", "false": False}
        if settings["checkpointing"] not in kinds:
            raise ConfigError(f"--checkpointing {settings['checkpointing']}: must be true, products, false or auto")
        settings["checkpointing"] = kinds[settings["checkpointing"]]
    return settings


def table(result: Mapping[str, Any], indent: str = "") -> list[str]:
    """What was measured, a line a number; lists on one line."""
    lines: list[str] = []
    for key, value in result.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *table(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines += [f"{indent}{key}:", *(f"{indent}  " + _row(row) for row in value)]
        elif isinstance(value, list):
            lines.append(f"{indent}{key}: " + " ".join(_number(each) for each in value))
        else:
            lines.append(f"{indent}{key}: {_number(value)}")
    return lines


def _row(row: Mapping[str, Any]) -> str:
    return "  ".join(f"{key} {_number(value)}" for key, value in row.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        if 0 < abs(value) < 0.001:
            return f"{value:.1e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _check_gpu(settings: Mapping[str, Any]) -> None:
    import torch

    from rl.bench_gpu import SHAPES

    if settings["device"] not in ("cuda", "cpu"):
        raise ConfigError(f"--device {settings['device']}: must be cuda or cpu")
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no CUDA device; --device cpu --shapes tiny tries the code")
    for shape in settings["shapes"].split(","):
        if shape not in SHAPES:
            raise ConfigError(f"--shapes {shape}: unknown shape; of {', '.join(SHAPES)}")
    if not all(re.fullmatch("0*[1-9][0-9]*", size) for size in settings["prompts"].split(",")):
        raise ConfigError(f"--prompts {settings['prompts']}: write whole numbers, as 1000,4000")
