"""Where the jobs of a comparison run if not here: a job array through submitit, or command lines for a scheduler."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.errors import ConfigError, InfraError
from rl.record import write_whole


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "launch.job", str(folder.resolve())]


def script(folder: Path, jobs: Sequence[Path], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Writes jobs.sh: one command a line, in any order and at any place that shares the folder."""
    path = folder / "jobs.sh"
    root = Path(__file__).resolve().parent.parent
    lines = [f"cd {shlex.quote(str(root))} && {shlex.join(command(one))}" for one in jobs]
    write_whole(path, "#!/bin/sh\n" + "\n".join(lines) + "\n")
    print(f"{len(jobs)} jobs are in {path}, a line each; when they are done, the same command writes the report")
    return {"jobs": len(jobs), "script": str(path)}


def submit(folder: Path, jobs: Sequence[Path], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hands the jobs to a cluster as one array. Raises InfraError without submitit, ConfigError for its parameters."""
    try:
        import submitit  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        written = script(folder, jobs, parameters)
        raise InfraError(
            f"launcher=submitit: submitit is not installed; run pip install submitit, or hand the lines of "
            f"{written['script']} to your scheduler"
        ) from None
    executor = submitit.AutoExecutor(folder=str(folder / "submitit"))
    try:
        executor.update_parameters(**parameters)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"launcher.parameters: submitit refuses them: {error}") from None
    sent = executor.map_array(submitit.helpers.CommandFunction(command(jobs[0])[:-1], verbose=False), map(str, jobs))
    numbers = [str(one.job_id) for one in sent]
    print(f"{len(jobs)} jobs are sent ({numbers[0]} to {numbers[-1]}); when they are done, the same command reports")
    return {"jobs": len(jobs), "job_ids": numbers}
