"""Documents and traces as JSON lines: streamed, checked, bad lines named and set aside.

A line of documents is {"id": "r-1", "text": "...", "group": "vendor", "gold": {...} or null}. `gold` may be left out
(there is none), and so may `group` (the document is then a group of its own); further keys are ignored. A line of
traces is {"id": "r-1", "extractor": "some-model", "completion": "..."}.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rewards.document import Document
from rewards.errors import DataError

LONGEST_LINE = 16 * 2**20
"""Bytes; a longer line is a fault, so that a file without line ends does not fill the memory."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Trace:
    """What some other model once answered. Example: Trace("r-1", "gpt-4o-2024-05-13", '{"vendor": "MAJU"}')"""

    id: str
    extractor: str
    completion: str


class LineFault(ValueError):
    """Why one line is no document or no trace."""


class Quarantine:
    """Counts bad lines, writes them aside, and stops the reading above `max_bad`.

    The file has one JSON object a bad line: {"path", "line", "reason", "raw"}; it is there only if there are any.
    """

    def __init__(self, source: str, max_bad: int, path: Path | None, key: str | None = "docs.max_bad") -> None:
        """key: what the user sets `max_bad` with; None where nothing does."""
        self.source = source
        self.key = key
        self.max_bad = max_bad
        self.path = path
        self.count = 0
        self._first = ""
        if path is not None:
            path.unlink(missing_ok=True)

    def add(self, line: int, reason: str, raw: bytes) -> None:
        """Sets one line aside. Raises DataError above `max_bad`."""
        self.count += 1
        self._first = self._first or f"line {line}: {reason}"
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            entry = {
                "path": self.source,
                "line": line,
                "reason": reason,
                "raw": raw.decode("utf-8", "backslashreplace"),
            }
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=True) + "\n")
        if self.count > self.max_bad:
            where = f"; the bad lines are in {self.path}" if self.path is not None else ""
            if self.count == 1:
                allow = f", or allow bad lines with {self.key}" if self.key else ""
                raise DataError(f"{self.source} {self._first}; mend the line{allow}{where}")
            raise DataError(
                f"{self.source}: {self.count} bad lines, more than {self.key}={self.max_bad}; "
                f"the first is {self._first}{where}"
            )

    def note(self) -> str:
        """What was left out, in one line; empty where nothing was."""
        lines = "line is" if self.count == 1 else "lines are"
        return f"{self.source}: {self.count} bad {lines} left out, the first is {self._first}" if self.count else ""


def read_documents(
    path: str | Path, *, max_bad: int, quarantine: Path | None, limit: int | None = None
) -> list[Document]:
    """All documents of a JSONL file, at most `limit`.

    Up to `max_bad` bad lines are left out and written to `quarantine`. Raises DataError above that, and for a file that
    is missing, empty or without one good line.
    """
    return read_documents_into(Quarantine(str(path), max_bad, quarantine), limit)


def read_documents_into(faults: Quarantine, limit: int | None = None) -> list[Document]:
    """The same, where the bad lines go to `faults`, which names the file."""
    documents: list[Document] = []
    for document in iterate_documents(faults.source, faults):
        documents.append(document)
        if limit is not None and len(documents) >= limit:
            break
    if not documents:
        nothing(faults, "document")
    return documents


def iterate_documents(path: str | Path, faults: Quarantine) -> Iterator[Document]:
    """Streams the documents of a JSONL file; bad lines go to `faults`."""
    first_line: dict[str, int] = {}

    def check(row: dict[str, Any], line: int) -> Document:
        document = document_of(row)
        if document.id in first_line:
            raise LineFault(f"duplicate id {document.id!r}, first on line {first_line[document.id]}")
        first_line[document.id] = line
        return document

    return iterate_lines(path, faults, check)


def read_traces(
    path: str | Path, *, max_bad: int, quarantine: Path | None, limit: int | None = None, key: str | None = None
) -> list[Trace]:
    """All traces of a JSONL file, at most `limit`; faults as in `read_documents`. One document may have several.

    key: what the user sets `max_bad` with, if anything does.
    """
    faults = Quarantine(str(path), max_bad, quarantine, key)
    traces: list[Trace] = []
    for trace in iterate_traces(path, faults):
        traces.append(trace)
        if limit is not None and len(traces) >= limit:
            break
    if not traces:
        nothing(faults, "trace")
    return traces


def iterate_traces(path: str | Path, faults: Quarantine) -> Iterator[Trace]:
    """Streams the traces of a JSONL file; bad lines go to `faults`."""

    def check(row: dict[str, Any], line: int) -> Trace:
        return Trace(text_of(row, "id"), text_of(row, "extractor"), text_of(row, "completion", may_be_empty=True))

    return iterate_lines(path, faults, check)


def write_documents(path: str | Path, documents: Iterable[Document]) -> int:
    """Writes JSON lines that `read_documents` reads back as they were; returns how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for document in documents:
            row = {"id": document.id, "text": document.text, "group": document.group, "gold": document.gold}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def document_of(row: Mapping[str, Any]) -> Document:
    """One row checked. Raises LineFault."""
    name, text = text_of(row, "id"), text_of(row, "text")
    group = name if row.get("group") in (None, "") else text_of(row, "group")
    gold = row.get("gold")
    if gold is not None:
        if not isinstance(gold, dict):
            raise LineFault(f"gold must be an object or null, not {_kind(gold)}")
        _no_surrogates("gold", json.dumps(gold, ensure_ascii=False))
    return Document(id=name, text=text, group=group, gold=gold)


def iterate_lines(path: str | Path, faults: Quarantine, check: Callable[[dict[str, Any], int], Item]) -> Iterator[Item]:
    """`check(object, line number)` of each line; where it raises LineFault, the line goes to `faults`."""
    for number, raw, whole in _lines(Path(path)):
        try:
            yield check(_object(raw), number)
        except LineFault as fault:
            torn = "" if whole else "torn last line (the file ends inside it): "
            faults.add(number, torn + str(fault), raw)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(number from 1, bytes without the line end, whether a line end follows) of each line that is not blank."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                whole = raw.endswith(b"\n")
                while not whole and len(raw) > LONGEST_LINE and (rest := file.readline(LONGEST_LINE)):
                    whole = rest.endswith(b"\n")
                if number == 1:
                    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.strip():
                    yield number, raw.rstrip(b"\r\n"), whole
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; give a JSONL file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _object(raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_LINE:
        raise LineFault(f"longer than {LONGEST_LINE} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LineFault(f"invalid UTF-8 at byte {error.start}") from None
    try:
        row = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise LineFault(f"not JSON: {error.msg} at character {error.pos}") from None
    except LineFault:
        raise
    except RecursionError:
        raise LineFault("not usable: nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise LineFault(f"not usable: {str(error).split(';')[0]}") from None
    if not isinstance(row, dict):
        raise LineFault(f"must be an object, not {_kind(row)}")
    return row


def _no_constant(name: str) -> NoReturn:
    raise LineFault(f"not JSON: {name} is no JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LineFault(f"key {twice!r} stands twice")
    return row


def text_of(row: Mapping[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    if key not in row:
        close = difflib.get_close_matches(key, [str(name) for name in row], 1, 0.6)
        hint = f"; is {close[0]!r} meant?" if close else ""
        raise LineFault(f"no {key!r}{hint}")
    value = row[key]
    if not isinstance(value, str):
        raise LineFault(f"{key} must be text, not {_kind(value)}")
    if not may_be_empty and not value.strip():
        raise LineFault(f"{key} is empty")
    _no_surrogates(key, value)
    return value


def _no_surrogates(key: str, value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"\\u{ord(value[error.start]):04x}"
        raise LineFault(f"{key} holds a lone surrogate ({code}) at character {error.start}") from None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def nothing(faults: Quarantine, what: str) -> NoReturn:
    if faults.count == 0:
        raise DataError(f"{faults.source}: no {what}s: the file is empty")
    raise DataError(f"{faults.source}: no good {what} among {faults.count} bad lines; the first: {faults._first}")
