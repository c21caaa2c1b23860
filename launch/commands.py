"""train, evaluate, pretrain, demo: compose and check the configuration, then call the floor below."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import BaseModel

from launch import checks, processes
from launch.compose import (
    CONFIGS,
    TASK_KEY,
    compose_evaluate,
    compose_pretrain,
    compose_raw,
    compose_run,
    finish,
    rewrite,
)
from rewards.errors import ConfigError, InfraError, OfframpError
from rl.config import EvaluateConfig, PretrainConfig, RunConfig, TrainConfig

HYDRA_FLAGS = {
    "-m", "--multirun", "-c", "--cfg", "-i", "--info", "--resolve", "-p", "--package", "-r", "--run", "-sc",
    "--shell-completion", "--hydra-help",
}  # fmt: skip
TAKES_VALUE = {"-c", "--cfg", "-i", "--info", "-p", "--package"}


def train(args: list[str], as_json: bool) -> dict[str, Any] | None:
    if _help("train", args, TrainConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        _hydra("train", TrainConfig, overrides, flags, config_dir)
        return None
    config = compose_run(overrides, config_dir)
    checks.check_run(config)
    return train_config(config)


def train_config(config: TrainConfig) -> dict[str, Any]:
    """Trains in this process, as one rank of a torchrun that is already there, or in processes of its own."""
    if processes.under_torchrun():
        processes.check_world_size(config)
    elif config.launch.processes > 1:
        return processes.torchrun(config)
    return processes.train(config)


def evaluate(args: list[str], as_json: bool) -> dict[str, Any] | None:
    if _help("evaluate", args, EvaluateConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        _hydra("evaluate", EvaluateConfig, overrides, flags, config_dir)
        return None
    config = compose_evaluate(overrides, config_dir)
    checks.check_evaluate(config)
    result: dict[str, Any] = _lower("rl.evaluate", "main")(config)
    return result


def pretrain(args: list[str], as_json: bool) -> dict[str, Any] | None:
    if _help("pretrain", args, PretrainConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        _hydra("pretrain", PretrainConfig, overrides, flags, config_dir)
        return None
    config = compose_pretrain(overrides, config_dir)
    result: dict[str, Any] = _lower("rl.pretrain", "pretrain")(config)
    return result


def demo(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """`experiment=demo`, and the comparison of the starter with what came out."""
    if _help("demo", args, RunConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        raise ConfigError(f"{flags[0]}: unknown option of demo; use offramp train experiment=demo {flags[0]}")
    config = compose_run(["experiment=demo", *overrides], config_dir)
    checks.check_run(config)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"method={config.method.kind}: the demo shows grpo and its kin; use offramp train")
    result: dict[str, Any] = _lower("rl.demo", "main")(config)
    return result


def split_flags(args: list[str]) -> tuple[list[str], list[str], str | None]:
    """(overrides, flags for Hydra with their values, folder of --config-dir)."""
    overrides: list[str] = []
    flags: list[str] = []
    config_dir: str | None = None
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            config_dir = value if equals else next(words, None)
            if not config_dir:
                raise ConfigError(f"{name}: no value; write --config-dir FOLDER")
        elif name in HYDRA_FLAGS:
            flags.append(name)
            if name in TAKES_VALUE:
                given = value if equals else next(words, None)
                if given is None:
                    raise ConfigError(f"{name}: no value; write {name} VALUE (--cfg takes job, hydra or all)")
                flags.append(given)
        else:
            overrides.append(word)
    return overrides, flags, config_dir


def _hydra(name: str, model: type[BaseModel], overrides: list[str], flags: list[str], config_dir: str | None) -> None:
    """Hydra's own command line: --cfg, --multirun, --info and the rest."""
    if flags[:2] in (["--cfg", "job"], ["-c", "job"]) and "-p" not in flags and "--package" not in flags:
        config = compose_raw(name, overrides, model, config_dir)
        with open_dict(config):
            if TASK_KEY in config:
                config["task"] = config.pop(TASK_KEY)
        print(OmegaConf.to_yaml(config, resolve="--resolve" in flags), end="")
        return
    words: list[str] = [*flags, *rewrite(overrides, config_dir), *(["--config-dir", config_dir] if config_dir else [])]
    if set(flags) & {"-m", "--multirun"}:
        if name != "train":
            raise ConfigError(f"--multirun: only train has it, not {name}")
    else:
        compose_raw(name, overrides, model, config_dir)  # a mistake gets its one line here

    def job(composed: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig

        settings = HydraConfig.get()
        if "run" in composed and not any(o.startswith("run.name=") for o in settings.overrides.task):
            with open_dict(composed):
                composed.run.name = f"{composed.run.name}-{settings.job.num}"
        config = finish(composed, TrainConfig)
        checks.check_run(config)
        # A process of its own for each job: vLLM and torch give nothing back.
        return _objective(processes.torchrun(config), config.eval.metric)

    import hydra

    before, variable = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"offramp {name}", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us whole, and leave as one line
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(job)()
    except OfframpError:
        raise
    except Exception as error:
        from launch.compose import hydra_fault

        raise hydra_fault(error, words, model) from error
    finally:
        sys.argv = before
        if variable is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _objective(result: dict[str, Any], metric: str) -> float | None:
    value = result.get(metric)
    if isinstance(value, dict):
        value = value.get("value")
    return float(value) if isinstance(value, (int, float)) else None


def _lower(module: str, function: str) -> Callable[..., Any]:
    if importlib.util.find_spec(module) is None:
        raise InfraError(f"{module}: not part of this installation; install Offramp again with bash launch/setup.sh")
    target: Callable[..., Any] | None = getattr(importlib.import_module(module), function, None)
    if target is None:
        raise InfraError(f"{module}.{function}: not part of this installation; install Offramp again")
    return target


def _help(name: str, args: list[str], model: type[Any]) -> bool:
    if "--help" not in args and "-h" not in args:
        return False
    from launch.faults import known_keys

    print(f"usage: offramp {name} [key=value ...] [group=choice ...] [--config-dir FOLDER] [--json]")
    if name == "compare":
        print("       --cfg job shows it; methods, seeds and documents take Hydra's sweeps (seeds='range(0,3)').")
    else:
        print("       Hydra's --multirun, --cfg job, --resolve and --info work as well.")
    print("\ngroups:")
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir() and path.name != "task"):
        if folder.name in model.model_fields or (folder.name == "experiment" and name in ("train", "demo")):
            choices = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
            print(f"  {folder.name}: {', '.join(choices)}")
    print(f"  task: {', '.join(sorted(Path(file).stem for file in (CONFIGS / 'task').glob('*.yaml')))}, or a file")
    print("\nkeys:")
    for key, about in known_keys(model).items():
        print(f"  {key}" + (f"  {about}" if about else ""))
    return True
