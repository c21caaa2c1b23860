"""offramp score: the rubric on completions that are already there. No torch, no Hydra, no GPU."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from envs.documents import Quarantine, iterate_documents, iterate_lines, nothing, read_documents_into, text_of
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.task import load_task

SCORE_KEYS = {
    "task": "a name in configs/task, or a task file",
    "docs.path": "documents, JSON lines",
    "completions": 'JSON lines of {"id": ..., "completion": ...}; traces will do',
    "workers": "processes that score (1)",
    "deadline_s": "seconds for one document's completions (10)",
    "max_bad": "bad lines tolerated in each file (0)",
}


def score(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """Mean reward, mean of each part and counts; with gold, documents exact as well."""
    values = read_keys("score", args, SCORE_KEYS, required=("task", "docs.path", "completions"))
    if values is None:
        return None
    from rewards.fields import compare
    from rewards.parse import Attempt, parse
    from rewards.pool import RewardPool

    task = load_task(values["task"])
    max_bad = number_of(values, "max_bad", 0, int)
    documents = {d.id: d for d in known_documents(values["docs.path"], max_bad)}
    pairs = pair_up(documents, read_completions(values["completions"], max_bad), values["completions"])
    with RewardPool(task, number_of(values, "workers", 1, int), number_of(values, "deadline_s", 10.0, float)) as pool:
        scores = [one for group in pool.score(pairs) for one in group]
    flat = [(document, completion) for document, completions in pairs for completion in completions]
    known = [s for s in scores if s.status == "scored"]
    parts = {name: [s.parts.get(name) for s in known] for name in dict.fromkeys(n for s in known for n in s.parts)}
    result: dict[str, Any] = {
        "n": len(scores),
        "documents": len(pairs),
        "reward": _mean([s.total for s in known]),
        "parts": {name: _mean([v for v in values_ if v is not None]) for name, values_ in parts.items()},
        "gates": dict(Counter(s.gate for s in known if s.gate is not None)),
        "errors": len(scores) - len(known),
    }
    reports = []
    for document, completion in flat:
        if document.gold is not None:
            attempt = parse(completion)
            value = attempt.value if isinstance(attempt, Attempt) else None
            reports.append(compare(task, value, document.gold))
    if reports:
        headers = [float(report.header_exact) for report in reports if report.header_exact is not None]
        exact = [float(report.document_exact) for report in reports]
        result |= {"with_gold": len(reports), "documents_exact": _mean(exact), "header_exact": _mean(headers)}
    _table(result, parts)
    return result


def read_keys(
    command: str, args: Sequence[str], known: dict[str, str], required: Sequence[str]
) -> dict[str, str] | None:
    """key=value words; None after --help. Raises ConfigError."""
    if "--help" in args or "-h" in args:
        print(f"usage: offramp {command} key=value ... [--json]\n\nkeys:")
        for key, about in known.items():
            print(f"  {key:12} {about}")
        return None
    values: dict[str, str] = {}
    for word in args:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: no value; write KEY=VALUE, keys: {', '.join(known)}")
        if key not in known:
            close = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"keys: {', '.join(known)}"
            raise ConfigError(f"{key}: unknown key; {hint}")
        values[key] = value
    for key in required:
        if not values.get(key):
            raise ConfigError(f"{key}: has no value yet; give {key}=VALUE ({known[key]})")
    return values


def known_documents(path: str, max_bad: int) -> list[Document]:
    """All documents; bad lines that are tolerated are counted on stderr. Raises DataError."""
    faults = Quarantine(path, max_bad, None, "max_bad")
    found = read_documents_into(faults)
    _say(faults)
    return found


def _say(faults: Quarantine) -> None:
    if note := faults.note():
        print(f"offramp: {note}", file=sys.stderr)


def read_completions(path: str, max_bad: int) -> list[tuple[str, str]]:
    """(document id, completion) of each line. Raises DataError."""
    faults = Quarantine(path, max_bad, None, "max_bad")

    def check(row: dict[str, Any], line: int) -> tuple[str, str]:
        return text_of(row, "id"), text_of(row, "completion", may_be_empty=True)

    found = list(iterate_lines(path, faults, check))
    if not found and faults.count:
        nothing(faults, "completion")
    if not found:
        raise DataError(f"completions={path}: no completions")
    _say(faults)
    return found


def pair_up(
    documents: dict[str, Document], completions: Sequence[tuple[str, str]], path: str
) -> list[tuple[Document, list[str]]]:
    """The completions of each document; ids without one are counted on stderr. Raises DataError where all are."""
    groups: dict[str, list[str]] = {}
    for name, completion in completions:
        groups.setdefault(name, []).append(completion)
    known = [(documents[name], texts) for name, texts in groups.items() if name in documents]
    missing = [name for name in groups if name not in documents]
    if not known:
        raise DataError(f"completions={path}: none of its {len(groups)} ids is a document, the first is {missing[0]!r}")
    if missing:
        note = f"offramp: {len(missing)} of {len(groups)} ids are no document here, such as {missing[0]!r}"
        print(note, file=sys.stderr)
    return known


def document_of_file(path: str, name: str) -> Document:
    """The document of that id. Raises DataError."""
    names = []
    for document in iterate_documents(path, Quarantine(path, 10**9, None)):
        if document.id == name:
            return document
        names.append(document.id)
    close = difflib.get_close_matches(name, names, 1, 0.5) or names[:1]
    raise DataError(f"id={name}: no such document in {path}" + (f"; there is {close[0]}" if close else ""))


def completion_of(values: dict[str, str], name: str) -> str:
    """The completion that the keys completion= or completions= give for a document. Raises ConfigError, DataError."""
    if "completion" in values:
        return sys.stdin.read() if values["completion"] == "-" else values["completion"]
    if "completions" not in values:
        raise ConfigError("completion: has no value yet; give completion=TEXT, completion=- or completions=FILE")
    for found, completion in read_completions(values["completions"], 10**9):
        if found == name:
            return completion
    raise DataError(f"completions={values['completions']}: has none for id {name!r}")


def number_of(values: dict[str, str], key: str, default: Any, kind: Any) -> Any:
    """The value of a key as a number above 0 (max_bad may be 0). Raises ConfigError."""
    try:
        number = kind(values.get(key, default))
    except ValueError:
        raise ConfigError(f"{key}={values[key]}: must be a {'whole ' if kind is int else ''}number") from None
    if number < 0 or (number == 0 and key != "max_bad"):
        raise ConfigError(f"{key}={values[key]}: must be more than 0")
    return number


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _table(result: dict[str, Any], parts: dict[str, list[float | None]]) -> None:
    def line(name: str, value: float | None, note: str = "") -> None:
        print(f"{name:18} {'-' if value is None else format(value, '.4f'):>7}  {note}".rstrip())

    line("reward", result["reward"], f"{result['n']} completions of {result['documents']} documents")
    for name, value in result["parts"].items():
        skipped = sum(v is None for v in parts[name])
        line(f"  {name}", value, f"not applicable to {skipped}, or stopped at a gate" if skipped else "")
    if "documents_exact" in result:
        line("documents_exact", result["documents_exact"], f"{result['with_gold']} completions have gold")
        line("header_exact", result["header_exact"])
    for gate, count in result["gates"].items():
        print(f"failed at {gate}: {count}")
    if result["errors"]:
        print(f"scoring errors: {result['errors']}")
