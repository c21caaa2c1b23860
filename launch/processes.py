"""One process or several: torchrun is started here, and every rank reads the same resolved JSON (launch/rank.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rewards.errors import ConfigError, InfraError, OfframpError
from rl.config import RunConfig, TrainConfig


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains in this process, by the method that the configuration names; the trainers are imported only here.

    Raises InfraError where the GPU's memory is full, beside what the trainers raise.
    """
    from torch import OutOfMemoryError

    try:
        if isinstance(config, RunConfig):
            from rl import grpo

            return grpo.train(config)
        from rl import finetune

        return finetune.train(config)
    except OutOfMemoryError as error:
        raise InfraError(
            f"{config.run.dir}: the GPU's memory is full; lower batch.tokens_per_batch or "
            "sampler.engine.gpu_memory_utilization, or set model.gradient_checkpointing=true "
            f"({str(error).splitlines()[0]})"
        ) from error


def under_torchrun() -> bool:
    return "WORLD_SIZE" in os.environ and "LOCAL_RANK" in os.environ


def check_world_size(config: TrainConfig) -> None:
    """Raises ConfigError when the processes that are there are not those that the configuration wants."""
    there = int(os.environ.get("WORLD_SIZE", "1"))
    if there != config.run.world_size:
        raise ConfigError(
            f"run.world_size={config.run.world_size}: {there} processes were started; use launch=torchrun "
            f"launch.processes={there}, or start {config.run.world_size}"
        )


def torchrun(config: TrainConfig) -> dict[str, Any]:
    """Trains in `launch.processes` processes and returns rank 0's result. SIGTERM and Ctrl-C reach the ranks."""
    folder = Path(config.run.dir) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "launch.json", folder / "result.json"
    source.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    target.unlink(missing_ok=True)
    command = [sys.executable]
    if config.launch.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(config.launch.processes)]
    command += ["-m", "launch.rank", str(source), str(target)]
    environment = dict(os.environ)
    if shutil.which("nvidia-smi") is None:
        environment.setdefault("ACCELERATE_USE_CPU", "1")
    if config.launch.processes > 1:
        # torchrun would set 1 and say so on stderr; ranks that share the cores are no place for more.
        environment.setdefault("OMP_NUM_THREADS", "1")
    code = _wait(subprocess.Popen(command, env=environment, start_new_session=True))
    outcome: dict[str, Any] = {}
    if target.is_file():
        outcome = json.loads(target.read_text(encoding="utf-8"))
    if "error" in outcome:
        error = OfframpError(outcome["error"])
        error.exit_code = int(outcome["exit_code"])
        raise error
    if "result" in outcome:
        result: dict[str, Any] = outcome["result"]
        if code != 0:
            print(f"offramp: a process ended with exit code {code} after the result was written", file=sys.stderr)
        return result
    raise InfraError(
        f"training in {config.run.dir} ended with exit code {code} and no result; its messages stand above"
    )


def _wait(process: subprocess.Popen[bytes]) -> int:
    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()
