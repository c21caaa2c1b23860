"""SIGTERM and Ctrl-C as an exception that never comes in the middle of an update."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """The process was asked to leave. Like KeyboardInterrupt, no `except Exception` swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class Interrupts:
    """While entered, SIGTERM and SIGINT raise Stopped at once, or at the end of a `held` block that they fall into."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._previous: dict[int, Any] = {}
        self._held = 0
        self._pending: int | None = None

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Weights, record and state change together or not at all."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._pending is not None and self._held == 0:
            number, self._pending = self._pending, None
            raise Stopped(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked scoring worker inherits the handler, not the duty
            os._exit(128 + number)
        if self._held:
            self._pending = number
        else:
            raise Stopped(number)
