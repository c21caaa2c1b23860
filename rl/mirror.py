"""W&B as a mirror of the record: it never blocks training and never stops it.

Everything of wandb happens in one background thread behind a queue. With an API key it goes online within
record.wandb.timeout_s; without a key, or without a network, it goes offline, and
`wandb sync <run>/logs/wandb/offline-run-*` uploads it later. A failure is logged once, and then the mirror is dead.
"""

import json
import logging
import netrc
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlparse

from rl.config import TrainConfig

log = logging.getLogger(__name__)

TEXT_LIMIT = 4096
"""Bytes of UTF-8 of a completion in the table."""
QUEUE_LIMIT = 256
"""Steps that may wait for a slow mirror; further ones are left out of it."""
Item: TypeAlias = tuple[int, dict[str, Any], list[list[Any]]] | tuple[str, str]
"""A step, its numbers and its table's rows; or the title and the text of an alert."""
COLUMNS = ("step", "document_id", "sample", "reward", "gate", "finish_reason", "parts", "completion")


class Mirror:
    """The queue, the thread behind it, and whether it still lives."""

    def __init__(self, config: TrainConfig, folder: Path, run_id: str) -> None:
        """Returns at once; `run_id` is the same for every start of a run, so that W&B joins them."""
        self.timeout_s = config.record.wandb.timeout_s
        self.failure: str | None = None
        self.skipped = 0
        self._queue: queue.Queue[Item | None] = queue.Queue(QUEUE_LIMIT)
        arguments: dict[str, Any] = {
            "project": config.record.wandb.project,
            "name": config.run.name,
            "id": run_id,
            "group": config.record.wandb.group,
            "resume": "allow",
            "dir": str(folder),
            "config": config.model_dump(mode="json"),
        }
        self._thread = threading.Thread(target=self._work, args=(arguments,), name="wandb mirror", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand over one step's numbers and a few of its rollouts (see rl.record.rollout_rows). Never waits."""
        if self.failure is not None:
            return
        try:
            self._queue.put_nowait((step, dict(metrics), [table_row(row) for row in rows]))
        except queue.Full:
            self.skipped += 1

    def alert(self, title: str, text: str) -> None:
        """Hand over an alert, which W&B shows and sends as its settings say. Never waits."""
        if self.failure is None:
            try:
                self._queue.put_nowait((title, text))
            except queue.Full:
                self.skipped += 1

    def close(self) -> None:
        """Wait for what is queued, for at most the timeout."""
        if self.skipped:
            log.warning("W&B was too slow for %d steps; the record on disk has them", self.skipped)
        if self.failure is None:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                log.warning("W&B did not finish in time; the record on disk is complete")
                return
        self._thread.join(self.timeout_s)
        if self._thread.is_alive():
            log.warning("W&B did not finish within %g s; the record on disk is complete", self.timeout_s)

    def _work(self, arguments: dict[str, Any]) -> None:
        try:
            run = start(arguments, self.timeout_s)
            import wandb

            while (item := self._queue.get()) is not None:
                if len(item) == 2:
                    run.alert(title=item[0], text=item[1])
                    continue
                step, metrics, rows = item
                if rows:
                    metrics["rollouts"] = wandb.Table(columns=list(COLUMNS), data=rows)
                run.log(metrics, step=step)
            run.finish()
        # wandb raises all sorts of errors, SystemExit among them; none of them is ours to die of.
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            log.warning("W&B mirror stopped (%s); the run goes on, its record is on disk", self.failure)


def start(arguments: Mapping[str, Any], timeout_s: float) -> Any:
    """`wandb.init`, online where there is a key and the server answers within `timeout_s`, offline otherwise."""
    import wandb

    def init(mode: Any, **more: Any) -> Any:
        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=timeout_s,
            disable_git=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_stats=True,
        )
        return wandb.init(**{**arguments, **more}, mode=mode, settings=settings)

    mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    if mode != "online":
        return init(mode)
    try:
        return init("online")
    except Exception as error:
        log.warning("W&B is offline (%s)", " ".join(str(error).split())[:120])
        # The first attempt still holds the id in wandb's service process.
        return init("offline", id=f"{arguments['id']}-offline")


def has_key() -> bool:
    """Whether there is an API key to log in with, in the environment or in the netrc file. Asks nobody."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def table_row(row: Mapping[str, Any]) -> list[Any]:
    """A row of rl.record.rollout_rows as the table shows it, the completion cut to TEXT_LIMIT bytes."""
    parts = {name.removeprefix("part/"): value for name, value in row.items() if name.startswith("part/")}
    shown = {**row, "parts": json.dumps(parts)}
    completion = row["completion"].encode("utf-8", "replace")
    shown["completion"] = completion[:TEXT_LIMIT].decode("utf-8", "ignore")
    return [shown[column] for column in COLUMNS]
