"""Where the jobs of a comparison run if not here: a job array through submitit, or command lines for a scheduler."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.errors import ConfigError, InfraError
from rl.record import write_whole

DAY_MIN = 24 * 60
"""Minutes that a job may take on the cluster unless the user says otherwise; submitit itself would end it after 5."""


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "launch.job", str(folder.resolve())]


def script(folder: Path, jobs: Sequence[Path], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Writes jobs.sh: one command a line, in any order and at any place that shares the folder."""
    path = folder / "jobs.sh"
    here = Path.cwd()  # plans hold paths as they were given
    lines = [f"cd {shlex.quote(str(here))} && {shlex.join(command(one))}" for one in jobs]
    write_whole(path, "#!/bin/sh\n" + "\n".join(lines) + "\n")
    print(f"{len(jobs)} jobs are in {path}, a line each; when they are done, the same command writes the report")
    return {"jobs": len(jobs), "script": str(path)}


def submit(folder: Path, jobs: Sequence[Path], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hands the jobs to a cluster as one array.

    `parameters` are those of AutoExecutor.update_parameters, and `cluster`: slurm, or local for processes here, all at
    once. Raises InfraError without submitit or Slurm, ConfigError for the parameters.
    """
    try:
        import submitit
    except ImportError:
        raise InfraError(f"launcher=submitit: submitit is not installed; {_otherwise(folder, jobs)}") from None
    wanted = {"timeout_min": DAY_MIN} | {name: value for name, value in parameters.items() if name != "cluster"}
    try:
        executor = submitit.AutoExecutor(folder=str(folder / "submitit"), cluster=parameters.get("cluster"))
        executor.update_parameters(**wanted)
    except (TypeError, ValueError, NameError, AssertionError) as error:
        raise ConfigError(f"launcher.parameters: submitit refuses them: {error}") from None
    except RuntimeError as error:  # cluster=slurm where there is none
        raise InfraError(f"launcher=submitit: {error}; {_otherwise(folder, jobs)}") from None
    if executor.cluster == "local" and parameters.get("cluster") != "local":
        raise InfraError(f"launcher=submitit: this machine knows no Slurm; {_otherwise(folder, jobs)}")
    sent = executor.map_array(submitit.helpers.CommandFunction(command(jobs[0])[:-1], verbose=False), map(str, jobs))
    numbers = [str(one.job_id) for one in sent]
    print(f"{len(jobs)} jobs are sent ({numbers[0]} to {numbers[-1]}); when they are done, the same command reports")
    return {"jobs": len(jobs), "job_ids": numbers}


def _otherwise(folder: Path, jobs: Sequence[Path]) -> str:
    written = script(folder, jobs, {})
    return f"use launcher.kind=local, or hand the lines of {written['script']} to your scheduler"
