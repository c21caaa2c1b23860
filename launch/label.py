"""offramp label: a teacher's answers to documents, as traces; it can be killed and goes on."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from envs.labelling import Tally
from launch.commands import _help, _hydra, split_flags
from launch.compose import compose_raw, finish
from launch.processes import under_torchrun
from rewards.errors import ConfigError
from rl.label import LabelConfig, main

EVERY_S = 10.0
"""Seconds between two plain lines of progress."""


def label(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """offramp label teacher=openai docs.path=FILE out=TRACES"""
    if _help("label", args, LabelConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        _hydra("label", LabelConfig, overrides, flags, config_dir)
        return None
    if under_torchrun():
        raise ConfigError("label: one process labels, with teacher.endpoint.concurrency requests at a time")
    config = finish(compose_raw("label", overrides, LabelConfig, config_dir), LabelConfig)
    progress = Progress()
    try:
        result = main(config, progress)
    finally:
        progress.close()
    show(result)
    return result


def show(result: dict[str, Any]) -> None:
    """The summary as lines."""
    before = f", {result['labelled_before']} of them before" if result["labelled_before"] else ""
    print(
        f"{result['labelled']} of {result['wanted']} labels{before}, {result['documents']} documents: {result['out']}"
    )
    if result["prompt_tokens"] or result["completion_tokens"]:
        print(
            f"tokens {result['prompt_tokens']} prompt, {result['completion_tokens']} completion; "
            f"cost {result['cost']:.4f}; {result['cached']} from the cache"
        )
    for fault, count in result.get("faults", {}).items():
        print(f"fault {fault}: {count}")
    if result["failed"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in result["failures"].items())
        print(f"failed: {result['failed']} ({kinds}); they are in {result['out']}.failed.jsonl")


class Progress:
    """A bar in a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._last = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        numbers = f"{tally.prompt_tokens + tally.completion_tokens} tokens  cost {tally.cost:.4f}"
        numbers += f"  cached {tally.cached}" if tally.cached else ""
        numbers += f"  failed {tally.failed.total()}" if tally.failed else ""
        done = tally.labelled + tally.failed.total()
        plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        if sys.stderr.isatty() and not plain:
            if self._live is None:
                self._live = bar()
                self._task = self._live.add_task("label", total=tally.wanted, numbers="")
            self._live.update(self._task, completed=done, numbers=numbers)
        elif time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            print(f"label {done}/{tally.wanted}  {numbers}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def bar() -> Any:
    """A started progress bar of rich with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )  # fmt: skip
    live = Rich(*columns, console=Console(stderr=True))
    live.start()
    return live
