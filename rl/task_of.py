"""The task of a configuration: its task file, with the configuration's own rubric in its place where it has one."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from rewards.errors import ConfigError
from rewards.task import REWARDS, RubricSpec, Task, load_task, nearest
from rl.config import RubricConfig


class NamesTask(Protocol):
    """A configuration with a task and a rubric."""

    @property
    def task(self) -> str: ...
    @property
    def rubric(self) -> RubricConfig | None: ...


def task_of(config: NamesTask) -> Task:
    """Raises ConfigError. A rubric in a configuration names no function: configurations that travel run no code."""
    task = load_task(config.task)
    if config.rubric is None:
        return task
    for name in config.rubric.rewards:
        if ":" in name:
            raise ConfigError(f"rubric.rewards.{name}: runs code; name it in the rubric of a task file of your own")
        if name not in REWARDS:
            raise ConfigError(f"rubric.rewards.{name}: unknown reward{nearest(name, REWARDS)}")
    if not any(config.rubric.rewards.values()):
        raise ConfigError("rubric.rewards: at least one weight must be above 0")
    return replace(task, rubric=RubricSpec.model_validate(config.rubric.model_dump()))
