"""One rank: reads the resolved configuration, trains, and rank 0 writes the result.

Started by launch/processes.py, or by hand: torchrun --nproc-per-node 2 -m launch.rank runs/NAME/config.json RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launch.cli import plain, speak
from launch.faults import ConfigFaults, validation_faults
from launch.processes import check_world_size, train
from rewards.errors import ConfigError, OfframpError
from rl.config import TrainConfig, read_config

NO_GPU = ("", "-1", "NoDevFiles")
"""What CUDA_VISIBLE_DEVICES says where GPUs are hidden."""


def own_device() -> None:
    """Of several ranks each sees one GPU, its own: vLLM's engine, one a rank, takes the first that it sees.

    Before torch looks for devices. Where CUDA_VISIBLE_DEVICES names some, the rank takes its place among them.
    """
    rank = os.environ.get("LOCAL_RANK")
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if rank is None or os.environ.get("LOCAL_WORLD_SIZE", "1") == "1" or on_cpu:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = rank
    elif visible not in NO_GPU:
        named = visible.split(",")
        if int(rank) >= len(named):
            raise ConfigError(
                f"launch.processes: rank {rank} has no GPU, CUDA_VISIBLE_DEVICES={visible} names {len(named)}; "
                "start as many processes as there are GPUs"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = named[int(rank)]


def main(args: list[str]) -> int:
    if _rank() == 0:
        speak(os.environ.get("OFFRAMP_LOG", "INFO"), "%(message)s")
    else:
        speak("WARNING", f"[rank {_rank()}] %(message)s")
    target = Path(args[1]) if len(args) > 1 else None
    try:
        own_device()
        config = read(Path(args[0]))
        check_world_size(config)
        write(target, {"result": train(config)})
    except OfframpError as error:
        for line in str(error).splitlines():
            print(f"offramp: error: {line}", file=sys.stderr)
        write(target, {"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        write(target, {"error": str(error), "exit_code": code})
        return code
    return 0


def read(path: Path) -> TrainConfig:
    """The configuration of a run's JSON. Raises ConfigError."""
    try:
        return read_config(path.read_bytes())
    except ValidationError as error:
        raise ConfigFaults(validation_faults(error, TrainConfig)) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def write(target: Path | None, outcome: dict[str, Any]) -> None:
    if target is not None and _rank() == 0:
        aside = target.with_suffix(".tmp")
        aside.write_text(json.dumps(plain(outcome)), encoding="utf-8")
        aside.replace(target)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
