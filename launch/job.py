"""One job of a comparison, alone: a training, or answers to the test documents. python -m launch.job FOLDER

FOLDER/plan.json says what to do; FOLDER/done.json is there when it is done, and then nothing is done again. What a job
builds on (the policy that answers, the first half of a chain) it does itself where nobody has done it yet, so that jobs
need no order.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from launch.cli import plain
from rewards.errors import InfraError, OfframpError
from rl.config import EvaluateConfig
from rl.record import write_whole

PLAN, DONE, LOG = "plan.json", "done.json", "log.txt"


def run(folder: Path) -> dict[str, Any]:
    """Does the job in `folder` unless it is done; returns what done.json holds. Raises InfraError where it fails."""
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    with locked(folder):
        if (done := finished(folder, plan["key"])) is not None:
            return done
        if plan["before"] is not None:
            run(folder.parent / plan["before"])
        start = time.time()
        done = {"key": plan["key"]}
        if plan["train"] is not None:
            done["training"] = child(folder, "train", ["launch.rank"], plan["train"])
            done["peak_memory_mb"] = done["training"].get("cost", {}).get("peak_memory_mb", 0.0)
        if plan["evaluate"] is not None:
            done["evaluation"] = child(folder, "evaluate", ["launch.job", "--evaluate"], plan["evaluate"])
        done["seconds"] = round(time.time() - start, 1)
        write_whole(folder / DONE, json.dumps(plain(done), indent=1) + "\n")
        return done


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """What a job left behind, if it ended, by the same plan."""
    try:
        done: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return done if done.get("key") == key else None


def child(folder: Path, what: str, module: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """Runs a module with a configuration in a process of its own: vLLM and torch give nothing back."""
    source, target = folder / f"{what}.json", folder / f"{what}_result.json"
    write_whole(source, json.dumps(config, indent=1) + "\n")
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", *module, str(source), str(target)]
    with (folder / LOG).open("ab") as log:
        log.write(f"\n== {time.strftime('%Y-%m-%dT%H:%M:%S')} {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        code = _wait(process)
    outcome: dict[str, Any] = {}
    if target.is_file():
        outcome = json.loads(target.read_text(encoding="utf-8"))
    if "result" not in outcome:
        reason = outcome.get("error", f"ended with exit code {code}")
        raise InfraError(f"{folder.name}: {what}: {reason}; its log is {folder / LOG}")
    result: dict[str, Any] = outcome["result"]
    return result


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Waits; who stops the job stops its child too."""

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()
            process.wait()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in a folder."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def evaluate(source: Path, target: Path) -> None:
    """An evaluation by its resolved configuration."""
    from rl import evaluate as evaluation

    config = EvaluateConfig.model_validate_json(source.read_bytes())
    try:
        outcome: dict[str, Any] = {"result": evaluation.main(config)}
    except OfframpError as error:
        outcome = {"error": str(error), "exit_code": error.exit_code}
    write_whole(target, json.dumps(plain(outcome)) + "\n")


def main(args: list[str]) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if args[:1] == ["--evaluate"]:
        evaluate(Path(args[1]), Path(args[2]))
        return 0
    try:
        run(Path(args[0]))
    except OfframpError as error:
        print(f"offramp: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
