"""Answers of an endpoint, kept in one SQLite file by the hash of what decides them. No prompt or document is stored."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

from rewards.errors import InfraError

log = logging.getLogger(__name__)

WAIT_S = 30.0
"""Longest wait for another process that writes."""


class AnswerCache:
    """A dictionary on disk, shared by threads and processes. A full disk costs the entry, with one warning."""

    def __init__(self, path: str | Path) -> None:
        """Raises InfraError for a file that is no such cache or a folder that cannot be written."""
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._warned = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")  # safe against a killed process; a power cut costs entries
            self._base.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as fault:
            raise InfraError(
                f"{self.path}: no cache can be kept there ({fault}); move it away, or name another"
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """The value, or None; an entry that cannot be read is none."""
        with self._lock:
            try:
                row = self._base.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
                value = json.loads(row[0]) if row is not None else None
            except (sqlite3.Error, ValueError) as fault:
                self._warn(fault)
                return None
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            return None
        whole = all(isinstance(value.get(name), int) for name in ("prompt_tokens", "completion_tokens"))
        return value if whole else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keeps a value; whole or not at all."""
        with self._lock:
            try:
                self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value)))
            except sqlite3.Error as fault:
                self._warn(fault)

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def _warn(self, fault: Exception) -> None:
        if not self._warned:
            log.warning("%s: the cache fails (%s); answers are asked for again", self.path, fault)
        self._warned = True
